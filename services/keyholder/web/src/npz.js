/** Arrays of numbers in .npz files, as numpy's savez writes them: never pickle. */

import { readMembers } from "./archive.js";
import { InvalidAnswer, InvalidClientPackage } from "./errors.js";

const MAGIC = "\x93NUMPY";
/** Bytes before the header: magic, version, and the header's length in two bytes or in four. */
const PREFIX_BYTES = [0, 10, 12];
const HEADER =
  /^\{'descr': '<(f8|i8)', 'fortran_order': (True|False), 'shape': \(((?:[0-9]{1,9}(?:, ?|(?=\))))*)\), \} *\n$/;
const WORD_BYTES = 8;

/** @typedef {{ shape: number[], floats: Float64Array }} Floats in row-major order */
/** @typedef {{ shape: number[], integers: BigInt64Array }} Integers in row-major order */

/**
 * @param {Uint8Array<ArrayBuffer>} data the file
 * @param {number} limit the most bytes that all arrays may have together
 * @returns {Promise<{ floats: (name: string) => Floats, integers: (name: string) => Integers }>}
 *   both throw an `InvalidAnswer` where there is no such array of that type
 * @throws {InvalidAnswer} it is damaged, or too large
 */
export async function readNpz(data, limit) {
  /** @type {Map<string, Uint8Array<ArrayBuffer>>} */
  let members;
  try {
    members = await readMembers(data, limit);
  } catch (error) {
    if (error instanceof InvalidClientPackage) throw damaged("it is no archive of arrays");
    throw error;
  }
  /** @param {string} name */
  const member = (name) => {
    const found = members.get(`${name}.npy`);
    if (!found) throw damaged(`it lacks ${name}`);
    return found;
  };
  return {
    floats(name) {
      const { shape, words } = readArray(member(name), name, "f8");
      return { shape, floats: new Float64Array(words.buffer) };
    },
    integers(name) {
      const { shape, words } = readArray(member(name), name, "i8");
      return { shape, integers: new BigInt64Array(words.buffer) };
    },
  };
}

/**
 * @param {Uint8Array<ArrayBuffer>} data a .npy file
 * @param {string} name
 * @param {"f8" | "i8"} type
 * @returns {{ shape: number[], words: BigUint64Array<ArrayBuffer> }} in row-major order
 */
function readArray(data, name, type) {
  const prefix = PREFIX_BYTES[data[6] ?? 0] ?? 0;
  if (!prefix || data.length < prefix || ascii(data.subarray(0, 6)) !== MAGIC) {
    throw damaged(`${name} is no array`);
  }
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const length = prefix === 10 ? view.getUint16(8, true) : view.getUint32(8, true);
  const start = prefix + length;
  const [, descr, isColumns, dimensions] = HEADER.exec(ascii(data.subarray(prefix, start))) ?? [];
  if (descr !== type || dimensions === undefined) {
    throw damaged(`${name} is not of the type that it should be`);
  }
  const shape = dimensions.split(",").filter((one) => one.trim()).map(Number);
  const count = shape.reduce((product, one) => product * one, 1);
  if (data.length !== start + count * WORD_BYTES) throw damaged(`${name} ends early`);
  const words = new BigUint64Array(count);
  for (let index = 0; index < count; index++) {
    words[index] = view.getBigUint64(start + index * WORD_BYTES, true);
  }
  return {
    shape,
    words: isColumns === "True" && shape.length === 2 ? byRows(words, shape) : words,
  };
}

/**
 * @param {BigUint64Array<ArrayBuffer>} words a matrix by its columns
 * @param {number[]} shape
 */
function byRows(words, [rows = 0, columns = 0]) {
  return BigUint64Array.from(
    words,
    (_, at) => words[(at % columns) * rows + Math.floor(at / columns)] ?? 0n,
  );
}

/** @param {Uint8Array} bytes */
function ascii(bytes) {
  return Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
}

/** @param {string} why */
export function damaged(why) {
  return new InvalidAnswer(`the service's reference.npz is damaged: ${why}`);
}
