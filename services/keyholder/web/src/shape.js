/**
 * What JSON from elsewhere is held to. A check takes a value and where it stands, and returns the
 * value with its type, or throws a `Mismatch`.
 */

/**
 * @template T
 * @typedef {(value: unknown, where: string) => T} Check
 */

/** A value is not what it should be. */
export class Mismatch extends Error {}

/**
 * @param {string} where
 * @param {string} why
 * @returns {never}
 */
export function mismatch(where, why) {
  throw new Mismatch(where ? `${where}: ${why}` : why);
}

/**
 * An object with these members; `others` says whether it may have further ones.
 *
 * @template {Record<string, Check<unknown>>} Members
 * @param {Members} members
 * @param {"refuse" | "ignore"} [others]
 * @returns {Check<{ [Name in keyof Members]: ReturnType<Members[Name]> }>}
 */
export function object(members, others = "refuse") {
  return (value, where) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      mismatch(where, "it must be an object");
    }
    const given = new Map(Object.entries(value));
    if (others === "refuse") {
      for (const name of given.keys()) {
        // A member that is not known may change what the others mean.
        if (!Object.hasOwn(members, name)) {
          mismatch(inside(where, name.slice(0, 40)), "it is not known");
        }
      }
    }
    const checked = Object.entries(members).map(([name, check]) => [
      name,
      check(given.get(name), inside(where, name)),
    ]);
    return Object.fromEntries(checked);
  };
}

/**
 * @template T
 * @param {Check<T>} check of each element
 * @param {number} [least] elements
 * @param {number} [most] elements
 * @returns {Check<T[]>}
 */
export function array(check, least = 0, most = Infinity) {
  return (value, where) => {
    if (!Array.isArray(value) || value.length < least || value.length > most) {
      const count = least === most ? `${least}` : `at least ${least}, at most ${most}`;
      mismatch(where, `it must be a list of ${count} elements`);
    }
    return value.map((element, index) => check(element, `${where}.${index}`));
  };
}

/**
 * @param {number} [low]
 * @param {number} [high]
 * @returns {Check<number>}
 */
export function integer(low = Number.MIN_SAFE_INTEGER, high = Number.MAX_SAFE_INTEGER) {
  return (value, where) => {
    if (!Number.isSafeInteger(value) || Number(value) < low || Number(value) > high) {
      mismatch(where, `it must be a whole number in [${low}, ${high}]`);
    }
    return Number(value);
  };
}

/**
 * @param {(value: number) => boolean} [allowed]
 * @returns {Check<number>}
 */
export function finite(allowed = () => true) {
  return (value, where) => {
    if (typeof value !== "number" || !Number.isFinite(value) || !allowed(value)) {
      mismatch(where, "it is not a number that is allowed here");
    }
    return value;
  };
}

/** @type {Check<boolean>} */
export function boolean(value, where) {
  if (typeof value !== "boolean") mismatch(where, "it must be true or false");
  return value;
}

/**
 * @template {string | number | boolean} const T
 * @param {...T} allowed
 * @returns {Check<T>}
 */
export function literal(...allowed) {
  return (value, where) =>
    allowed.find((one) => one === value) ??
      /** @type {T} */ (mismatch(where, `it must be one of ${JSON.stringify(allowed)}`));
}

/** Text that can be shown as it is, on one line. @type {Check<string>} */
export function text(value, where) {
  if (typeof value !== "string" || !/^(?:[^\p{C}\p{Z}]| )+$/u.test(value)) {
    mismatch(where, "it must be printable text on one line");
  }
  return value;
}

/** @type {Check<unknown>} */
export function anything(value) {
  return value;
}

/**
 * @template T
 * @param {Check<T>} check
 * @returns {Check<T | null>}
 */
export function optional(check) {
  return (value, where) => (value === undefined || value === null ? null : check(value, where));
}

/**
 * @template T
 * @template U
 * @param {Check<T>} one
 * @param {Check<U>} other
 * @returns {Check<T | U>}
 */
export function either(one, other) {
  return (value, where) => {
    try {
      return one(value, where);
    } catch (error) {
      if (!(error instanceof Mismatch)) throw error;
      return other(value, where);
    }
  };
}

/**
 * Parse JSON and check it.
 *
 * @template T
 * @param {Uint8Array<ArrayBuffer>} data UTF-8
 * @param {Check<T>} check
 * @param {(why: string) => Error} refused makes the error to throw
 * @returns {T}
 */
export function read(data, check, refused) {
  try {
    return check(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(data)), "");
  } catch (error) {
    if (error instanceof Mismatch) throw refused(error.message);
    throw refused("it is no JSON");
  }
}

/**
 * @param {string} where
 * @param {string} name
 */
function inside(where, name) {
  return where ? `${where}.${name}` : name;
}
