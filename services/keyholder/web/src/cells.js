/** What a person or a table gives for a feature, to the number that stands for it. */

/** @typedef {string | number | boolean | null | undefined} Cell */

/** Position of what is none of the known labels. */
export const UNKNOWN = -1;

const NUMBER = /^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?$/;
const MISSING = /^(?:|[-\u2013.?]+|#?n\/?a|<na>|-?nan|nat|null|none|missing|#value!|#div\/0!)$/i;
const WHOLE = /^(-?(?:0|[1-9][0-9]*))\.0*$/;
const BOOLEANS = {
  true: ["True", "true", "TRUE", "1"],
  false: ["False", "false", "FALSE", "0"],
};

/**
 * Whether a cell holds no value.
 *
 * @param {Cell} cell
 */
export function isMissing(cell) {
  if (typeof cell === "string") return MISSING.test(cell.trim());
  return cell === null || cell === undefined || Number.isNaN(cell);
}

/**
 * The number in a cell: NaN where it is missing, infinity where something else is there.
 *
 * @param {Cell} cell
 */
export function toNumber(cell) {
  if (isMissing(cell)) return NaN;
  if (typeof cell !== "string") return Number(cell);
  return NUMBER.test(cell.trim()) ? Number(cell.trim()) : Infinity;
}

/**
 * Position of the label that a cell means: labels are compared as text, and 7, 7.0, "7", "7.0" and
 * " 7 " are one.
 *
 * @param {Cell} cell
 * @param {(string | number)[]} labels
 * @returns {number} `UNKNOWN` where it is none, or missing
 */
export function positionOf(cell, labels) {
  const known = labels.map(String);
  for (const name of names(cell)) {
    const position = known.indexOf(name);
    if (position !== -1) return position;
  }
  return UNKNOWN;
}

/**
 * What a label that this cell means can be called, the likeliest first.
 *
 * @param {Cell} cell
 * @returns {string[]}
 */
function names(cell) {
  if (typeof cell === "boolean") return BOOLEANS[cell ? "true" : "false"];
  if (typeof cell === "number") {
    return [Number.isInteger(cell) ? String(BigInt(cell)) : fraction(cell)];
  }
  if (typeof cell !== "string") return [];
  const text = cell.trim();
  const whole = WHOLE.exec(text)?.[1];
  const lower = text.toLowerCase();
  return [
    text,
    ...(whole ? [whole] : []),
    ...(lower === "true" || lower === "false" ? BOOLEANS[lower] : []),
  ];
}

/**
 * A number that is not whole, as Python writes it.
 *
 * @param {number} value
 */
function fraction(value) {
  const [digits, exponent] = value.toExponential().split("e");
  const power = -Number(exponent);
  return power > 4 ? `${digits}e-${String(power).padStart(2, "0")}` : String(value);
}
