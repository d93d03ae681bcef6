/** The model card in client.zip: what of it answers and inputs depend on. */

import { InvalidClientPackage } from "./errors.js";
import {
  anything,
  array,
  either,
  finite,
  integer,
  literal,
  Mismatch,
  object,
  optional,
  read,
  text,
} from "./shape.js";

/** The most inputs that a row may become. */
const MAX_INPUTS = 65536;

/** @typedef {string | number} Label */
/** @typedef {{ name: string, low: number, high: number, missing: number | null }} NumberFeature */
/**
 * @typedef {{ name: string, categories: Label[], missing: Label | null,
 *   unknown: "refuse" | "ignore" }} CategoryFeature
 */
/** @typedef {NumberFeature | CategoryFeature} Feature */
/**
 * @typedef {object} Schema
 * @property {string} dataset
 * @property {"classification" | "regression"} task
 * @property {Feature[]} features
 * @property {[number, number] | null} imageShape height and width in pixels
 * @property {number} pool pixels, down and across, whose mean becomes one input
 * @property {Label[]} classes of a classification
 * @property {{ low: number, high: number } | null} target bounds of a regression's values
 */
/**
 * @typedef {object} Card
 * @property {string} name
 * @property {string} estimator class name in scikit-learn
 * @property {Record<string, unknown>} parameters of its constructor
 * @property {"refuse" | "clip"} outOfBounds
 * @property {Schema} data
 */

const label = either(integer(), text);
const number = object({ name: text, low: finite(), high: finite(), missing: optional(finite()) });
const category = object({
  name: text,
  categories: array(label, 2),
  missing: optional(label),
  unknown: optional(literal("refuse", "ignore")),
});
const card = object({
  name: text,
  estimator: text,
  parameters: object({}, "ignore"),
  data: object({
    dataset: text,
    task: optional(literal("classification", "regression")),
    features: array(anything, 1, MAX_INPUTS),
    image_shape: optional(array(integer(1), 2, 2)),
    pool: optional(integer(1)),
    label: optional(text),
    classes: optional(array(label)),
    target: optional(object({ low: finite(), high: finite() })),
  }),
  out_of_bounds: optional(literal("refuse", "clip")),
  federation: anything,
  rounds: anything,
  final: anything,
  bits: anything,
  pruned: anything,
  standardised: anything,
  libraries: anything,
  created: anything,
});
const parameters = object({ parameters: anything }, "ignore");

/**
 * @param {Uint8Array<ArrayBuffer>} data card.json
 * @returns {Card}
 * @throws {InvalidClientPackage} it is not a model card
 */
export function readCard(data) {
  const given = read(data, card, notACard);
  const schema = given.data;
  const features = schema.features.map(feature);
  const [height, width] = schema.image_shape ?? [];
  const pool = schema.pool ?? 1;
  const classes = schema.classes ?? [];
  const task = schema.task ?? "classification";
  if (new Set(features.map(({ name }) => name)).size !== features.length) {
    throw notACard("feature names must be unique");
  }
  if (new Set(classes.map(String)).size !== classes.length) {
    throw notACard("classes must be unique");
  }
  if (task === "classification" ? classes.length < 2 : classes.length > 0) {
    throw notACard("a classification has two or more classes, and a regression none");
  }
  if (height === undefined || width === undefined) {
    if (pool !== 1) throw notACard("pool is of images");
  } else if (
    height * width !== features.length || height % pool || width % pool ||
    features.some((one) => "categories" in one)
  ) {
    throw notACard("image_shape and pool do not fit the features");
  }
  const checked = {
    name: given.name,
    estimator: given.estimator,
    parameters:
      /** @type {Record<string, unknown>} */ (read(data, parameters, notACard).parameters),
    outOfBounds: given.out_of_bounds ?? "refuse",
    data: {
      dataset: schema.dataset,
      task,
      features,
      imageShape: height === undefined || width === undefined
        ? null
        : /** @type {[number, number]} */ ([height, width]),
      pool,
      classes,
      target: schema.target,
    },
  };
  if (inputCount(checked.data) > MAX_INPUTS) {
    throw notACard(`a row becomes more than ${MAX_INPUTS} inputs`);
  }
  return checked;
}

/**
 * Values in [0, 1] that a row becomes.
 *
 * @param {Schema} schema
 */
export function inputCount(schema) {
  const each = schema.features.map((one) => ("categories" in one ? one.categories.length : 1));
  return each.reduce((sum, count) => sum + count, 0) / schema.pool ** 2;
}

/**
 * @param {unknown} given
 * @param {number} index
 * @returns {Feature}
 */
function feature(given, index) {
  const where = `data.features.${index}`;
  try {
    if (typeof given === "object" && given !== null && "categories" in given) {
      const one = category(given, where);
      const labels = new Set(one.categories.map(String));
      if (labels.size !== one.categories.length) throw new Mismatch(`${where}: labels repeat`);
      if (one.missing !== null && !labels.has(String(one.missing))) {
        throw new Mismatch(`${where}: missing must be one of the categories`);
      }
      return { ...one, unknown: one.unknown ?? "refuse" };
    }
    const one = number(given, where);
    const { low, high, missing } = one;
    if (!(low < high && Number.isFinite(high - low))) {
      throw new Mismatch(`${where}: low must be below high`);
    }
    if (missing !== null && !(low <= missing && missing <= high)) {
      throw new Mismatch(`${where}: missing must be within the bounds`);
    }
    return one;
  } catch (error) {
    if (error instanceof Mismatch) throw notACard(error.message);
    throw error;
  }
}

/** @param {string} why */
function notACard(why) {
  return new InvalidClientPackage(`card.json is not a model card: ${why}`);
}
