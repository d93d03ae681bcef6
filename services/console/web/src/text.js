/** Numbers and times for people. */

/** What stands for a value that is not there. */
export const NONE = "–";

/**
 * @param {number | null | undefined} value
 * @param {number} digits after the point
 */
export function fixed(value, digits) {
  return value === null || value === undefined ? NONE : value.toFixed(digits);
}

/**
 * @param {number | null | undefined} value
 */
export function count(value) {
  return value === null || value === undefined ? NONE : value.toLocaleString("en");
}

/**
 * @param {number | null | undefined} value
 */
export function significant(value) {
  return value === null || value === undefined ? NONE : String(Number(value.toPrecision(4)));
}

/**
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * @param {string | null} time ISO 8601
 */
export function moment(time) {
  const date = new Date(time ?? NaN);
  if (Number.isNaN(date.getTime())) return "at an unknown time";
  return date.toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

/**
 * @param {number} bytes
 */
export function bytes(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * @param {number} number
 * @param {string} one
 * @param {string} [many]
 */
export function counted(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}
