/** What a feature's value is entered with, and what values stand for. */

import { described } from "../preprocessing.js";

/** @import { Feature } from "../card.js" */

/**
 * @param {Feature} feature
 * @returns {HTMLInputElement | HTMLSelectElement} empty stands for a missing value, where there may
 *   be one
 */
export function fieldFor(feature) {
  if (!("categories" in feature)) {
    const input = document.createElement("input");
    input.inputMode = "decimal";
    input.autocomplete = "off";
    input.placeholder = `${feature.low} to ${feature.high}`;
    return named(input, feature);
  }
  const select = document.createElement("select");
  if (feature.missing !== null) select.append(new Option("(missing)", ""));
  select.append(...feature.categories.map((one) => new Option(String(one))));
  if (feature.unknown === "ignore") select.append(new Option("(none of these)"));
  return named(select, feature);
}

/**
 * The value at a share of a number's range.
 *
 * @param {number} share in [0, 1]
 * @param {Feature | undefined} feature
 * @returns {number} not a number where the feature is none of numbers
 */
export function ofBounds(share, feature) {
  if (!feature || "categories" in feature) return NaN;
  return feature.low + share * (feature.high - feature.low);
}

/**
 * @template {HTMLInputElement | HTMLSelectElement} T
 * @param {T} input
 * @param {Feature} feature
 * @returns {T}
 */
function named(input, feature) {
  input.name = feature.name;
  input.title = described(feature);
  input.required = feature.missing === null;
  return input;
}
