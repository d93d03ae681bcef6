/** A raw row to a model's inputs in [0, 1], exactly as sites and the Python client map it. */

import { inputCount } from "./card.js";
import { isMissing, positionOf, toNumber, UNKNOWN } from "./cells.js";
import { CloisterError } from "./errors.js";
import { pairwiseSum } from "./sums.js";

/** @import { Feature, Schema } from "./card.js" */
/** @import { Cell } from "./cells.js" */

/** Categories that a message lists. */
const CATEGORIES_SHOWN = 10;

/**
 * @param {readonly Cell[]} row one cell for each feature, in the schema's order
 * @param {Schema} schema
 * @param {"refuse" | "clip"} outOfBounds what happens to a number outside its bounds
 * @returns {Float64Array} `inputCount(schema)` values in [0, 1]
 * @throws {CloisterError} a wrong number of cells, or a cell that is missing, no number, unknown or
 *   out of bounds, each unless the schema has a policy for it; it names the feature, never the value
 */
export function toInputs(row, schema, outOfBounds) {
  if (row.length !== schema.features.length) {
    throw new CloisterError(
      `a row has ${row.length} cells; ${schema.dataset} needs ${schema.features.length}`,
    );
  }
  const inputs = new Float64Array(inputCount({ ...schema, pool: 1 }));
  let start = 0;
  schema.features.forEach((feature, index) => {
    const value = encoded(row[index], feature, outOfBounds);
    if ("categories" in feature) {
      if (value !== UNKNOWN) inputs[start + value] = 1;
      start += feature.categories.length;
    } else {
      const { low, high } = feature;
      inputs[start++] = (Math.min(Math.max(value, low), high) - low) / (high - low);
    }
  });
  const { imageShape, pool } = schema;
  return imageShape && pool > 1 ? pooled(inputs, imageShape, pool) : inputs;
}

/**
 * What a value must be, for people.
 *
 * @param {Feature} feature
 */
export function described(feature) {
  if (!("categories" in feature)) return `a number in [${feature.low}, ${feature.high}]`;
  const more = feature.categories.length - CATEGORIES_SHOWN;
  const shown = feature.categories.slice(0, CATEGORIES_SHOWN).join(", ");
  return `one of ${shown}${more > 0 ? ` and ${more} more` : ""}`;
}

/**
 * @param {Cell} cell
 * @param {Feature} feature
 * @param {"refuse" | "clip"} outOfBounds
 */
function encoded(cell, feature, outOfBounds) {
  const value = "categories" in feature ? category(cell, feature.categories) : toNumber(cell);
  if (Number.isNaN(value)) {
    if (feature.missing === null) throw misfit(feature, "is missing");
    return "categories" in feature
      ? positionOf(feature.missing, feature.categories)
      : feature.missing;
  }
  if ("categories" in feature) {
    if (value === UNKNOWN && feature.unknown === "refuse") {
      throw misfit(feature, "is not among its categories");
    }
  } else if (!Number.isFinite(value)) {
    throw misfit(feature, "is not finite, or no number");
  } else if (outOfBounds === "refuse" && !(value >= feature.low && value <= feature.high)) {
    throw misfit(feature, "is outside its declared bounds");
  }
  return value;
}

/**
 * @param {Cell} cell
 * @param {(string | number)[]} categories
 */
function category(cell, categories) {
  const position = positionOf(cell, categories);
  return position === UNKNOWN && isMissing(cell) ? NaN : position;
}

/**
 * @param {Feature} feature
 * @param {string} why
 */
function misfit(feature, why) {
  return new CloisterError(
    `feature ${feature.name}: the value ${why}; it must be ${described(feature)}`,
  );
}

/**
 * Means of square blocks of pixels.
 *
 * @param {Float64Array} unit
 * @param {[number, number]} shape
 * @param {number} pool
 */
function pooled(unit, [height, width], pool) {
  const across = width / pool;
  const means = new Float64Array((height / pool) * across);
  // Numpy adds a block's rows one after another, and takes a single column of blocks as one run.
  const run = across === 1 ? pool * pool : pool;
  for (let block = 0; block < means.length; block++) {
    const first = Math.floor(block / across) * pool * width + (block % across) * pool;
    let sum = 0;
    for (let done = 0; done < pool * pool; done += run) {
      sum += pairwiseSum(unit, first + (done / pool) * width, run);
    }
    // The mean of numbers up to 1 can be rounded to above 1.
    means[block] = Math.min(sum / (pool * pool), 1);
  }
  return means;
}
