/** Rows that are not typed in: pasted from a table, or made from the card's bounds. */

/** @import { Card, Cell } from "/client/index.d.ts" */

/** Digits that an example's numbers have. */
const DIGITS = 3;

/**
 * The first row of values in text as spreadsheets and CSV files have it.
 *
 * @param {string} text one row, or a row under a row of the features' names
 * @param {string[]} names of the features
 * @returns {string[]} cells in the features' order
 * @throws {Error} saying what does not fit
 */
export function parseRow(text, names) {
  const lines = text.split(/\r\n|\r|\n/).filter((line) => line.trim());
  const separator = lines[0]?.includes("\t") ? "\t" : ",";
  const [first = [], second] = lines.map((line) => cells(line, separator));
  const isHeader = second !== undefined && names.every((name) => first.includes(name));
  const row = isHeader ? names.map((name) => second[first.indexOf(name)] ?? "") : first;
  if (row.length !== names.length) {
    throw new Error(
      `A row of this model has ${names.length} values, and ${row.length} were pasted. More columns ` +
        "are fine under a line with their names.",
    );
  }
  return row;
}

/**
 * Values in the middle of their bounds, and the first of categories.
 *
 * @param {Card} card
 * @returns {Cell[]}
 */
export function middleOf({ data: { features } }) {
  return features.map((one) =>
    "categories" in one ? one.categories[0] : rounded(0.5, one.low, one.high)
  );
}

/**
 * Any values within their bounds.
 *
 * @param {Card} card
 * @returns {Cell[]}
 */
export function randomOf({ data: { features } }) {
  return features.map((one) =>
    "categories" in one
      ? one.categories[Math.floor(Math.random() * one.categories.length)]
      : rounded(Math.random(), one.low, one.high)
  );
}

/**
 * @param {number} share
 * @param {number} low
 * @param {number} high
 */
function rounded(share, low, high) {
  const value = low + share * (high - low);
  const steps = Math.max(0, DIGITS - 1 - Math.floor(Math.log10(high - low)));
  return Math.min(Math.max(Number(value.toFixed(Math.min(steps, 100))), low), high);
}

/**
 * @param {string} line
 * @param {string} separator
 */
function cells(line, separator) {
  const found = [];
  let cell = "", isQuoted = false;
  for (let at = 0; at < line.length; at++) {
    const one = line[at];
    if (isQuoted && one === '"' && line[at + 1] === '"') {
      cell += line[++at];
    } else if (one === '"' && (isQuoted || !cell.trim())) {
      isQuoted = !isQuoted;
    } else if (one === separator && !isQuoted) {
      found.push(cell.trim());
      cell = "";
    } else {
      cell += one;
    }
  }
  return [...found, cell.trim()];
}
