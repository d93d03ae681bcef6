/**
 * Keys, encryption and decryption, in WebAssembly; the source is services/keyholder/lwe/native.
 *
 * A query has an instance of the module of its own, and so a memory of its own, which is overwritten
 * as a whole when the query ends: key, messages and noise are nowhere else.
 */

import { KeyUnusable } from "./errors.js";

/** Bytes of a seed, and of a seeded ciphertext: the seed, then the body. */
const SEED_BYTES = 16;
const SEEDED_BYTES = 24;
const WORD_BYTES = 8;
const PAGE_BYTES = 1 << 16;
/** The most that `crypto.getRandomValues` gives at a time. */
const RANDOM_BYTES = 1 << 16;

/**
 * @typedef {object} Exports Addresses and sizes are in bytes of `memory`; see wasm.c.
 * @property {WebAssembly.Memory} memory
 * @property {WebAssembly.Global} __heap_base
 * @property {(dimension: number, std: number) => number} is_safe
 * @property {(random: number, dimension: number, key: number) => void} make_key
 * @property {(key: number, dimension: number, width: number, std: number, messages: number,
 *   count: number, seeds: number, noise: number, bodies: number, seeded: number) => void} encrypt
 * @property {(key: number, dimension: number, width: number, isSigned: number, words: number,
 *   count: number, scores: number) => void} decrypt
 */

/**
 * @typedef {object} Encryption Checked parameters of a circuit.
 * @property {number} dimension length of the key, in bits
 * @property {number} std of the noise, relative to 2^64
 * @property {number} inputWidth bits of the integers that are encrypted
 * @property {number} nInputs
 * @property {number} outputWidth bits of the integers in a result
 * @property {boolean} outputSigned
 * @property {number} nOutputs
 */

/** @typedef {(buffer: Uint8Array<ArrayBuffer>) => void} Random Fills a buffer with random bytes. */

/** @type {Random} */
export function systemRandom(buffer) {
  for (let start = 0; start < buffer.length; start += RANDOM_BYTES) {
    crypto.getRandomValues(buffer.subarray(start, start + RANDOM_BYTES));
  }
}

/** The compiled core. */
export class Lwe {
  #module;
  #random;
  #isSafe;

  /**
   * @param {WebAssembly.Module} module
   * @param {Random} random
   * @param {Exports["is_safe"]} isSafe
   */
  constructor(module, random, isSafe) {
    this.#module = module;
    this.#random = random;
    this.#isSafe = isSafe;
  }

  /**
   * Compile the core.
   *
   * @param {Uint8Array<ArrayBuffer>} code of lwe.simd.wasm or lwe.wasm
   * @param {Random} [random] the system's by default, and something else in tests alone
   * @returns {Promise<Lwe>}
   */
  static async compile(code, random = systemRandom) {
    const module = await WebAssembly.compile(code);
    return new Lwe(module, random, (await instantiate(module)).is_safe);
  }

  /**
   * Fetch and compile the build that this browser runs.
   *
   * @param {URL} [folder] with both builds
   * @returns {Promise<Lwe>}
   */
  static async load(folder = new URL("../dist/", import.meta.url)) {
    const vectors = await fetched(new URL("lwe.simd.wasm", folder));
    const code = WebAssembly.validate(vectors)
      ? vectors
      : await fetched(new URL("lwe.wasm", folder));
    return await Lwe.compile(code);
  }

  /**
   * Whether noise of a standard deviation relative to 2^64 gives 128 bits of security.
   *
   * @param {number} dimension
   * @param {number} std
   */
  isSafe(dimension, std) {
    return this.#isSafe(dimension, std) === 1;
  }

  /**
   * Encrypt integers under a new key.
   *
   * @param {Encryption} encryption held to `isSafe`
   * @param {BigInt64Array} messages `nInputs` integers, each in the range of the encoding
   * @returns {Promise<Sealed>}
   */
  async seal(encryption, messages) {
    const core = await instantiate(this.#module);
    const { dimension, std, inputWidth, nInputs: count } = encryption;
    const place = new Layout(core);
    const key = place.take(dimension * WORD_BYTES);
    const result = place.take(encryption.nOutputs * (dimension + 1) * WORD_BYTES);
    const scores = place.take(encryption.nOutputs * WORD_BYTES);
    const keyBytes = Math.ceil(dimension / 8);
    const keyRandom = place.take(keyBytes);
    const integers = place.take(count * WORD_BYTES);
    const seeds = place.take(count * SEED_BYTES);
    const noiseBytes = (count + (count % 2)) * WORD_BYTES;
    const noise = place.take(noiseBytes);
    const bodies = place.take(count * WORD_BYTES);
    const seeded = place.take(count * SEEDED_BYTES);
    place.reserve();
    const memory = core.memory.buffer;
    try {
      this.#random(new Uint8Array(memory, keyRandom, keyBytes));
      this.#random(new Uint8Array(memory, seeds, count * SEED_BYTES));
      this.#random(new Uint8Array(memory, noise, noiseBytes));
      core.make_key(keyRandom, dimension, key);
      new BigInt64Array(memory, integers, count).set(messages);
      core.encrypt(key, dimension, inputWidth, std, integers, count, seeds, noise, bodies, seeded);
      const ciphertexts = new Uint8Array(memory, seeded, count * SEEDED_BYTES).slice();
      return new Sealed(ciphertexts, new QueryKey(core, encryption, { key, result, scores }));
    } catch (error) {
      new Uint8Array(memory).fill(0);
      throw error;
    }
  }
}

/** Encrypted integers, and the only key that opens their result. */
export class Sealed {
  /**
   * @param {Uint8Array<ArrayBuffer>} ciphertexts what is sent: a seed and a body for each integer
   * @param {QueryKey} key what is kept
   */
  constructor(ciphertexts, key) {
    this.ciphertexts = ciphertexts;
    this.key = key;
  }
}

/**
 * The secret key of one query, good for one result.
 *
 * A service that could make a key open results of its own making, and learn what came out, would
 * recover the key in a few of them.
 */
export class QueryKey {
  /** @type {Exports | null} */
  #core;
  #encryption;
  #places;

  /**
   * @param {Exports} core whose memory holds the key
   * @param {Encryption} encryption
   * @param {{ key: number, result: number, scores: number }} places addresses in that memory
   */
  constructor(core, encryption, places) {
    this.#core = core;
    this.#encryption = encryption;
    this.#places = places;
  }

  /**
   * Decrypt the query's result, and overwrite the key.
   *
   * @param {Uint8Array} words `nOutputs` ciphertexts: mask words, then the body
   * @returns {BigInt64Array} of `nOutputs` integers
   * @throws {KeyUnusable} the key has been overwritten before
   */
  open(words) {
    const core = this.#core;
    if (!core) throw new KeyUnusable("this key has opened its one result: encrypt the row again");
    const { dimension, outputWidth, outputSigned, nOutputs } = this.#encryption;
    const { key, result, scores } = this.#places;
    try {
      if (words.length !== nOutputs * (dimension + 1) * WORD_BYTES) {
        throw new RangeError("the result is not of the circuit's length");
      }
      new Uint8Array(core.memory.buffer, result, words.length).set(words);
      core.decrypt(key, dimension, outputWidth, outputSigned ? 1 : 0, result, nOutputs, scores);
      return new BigInt64Array(core.memory.buffer, scores, nOutputs).slice();
    } finally {
      this.wipe();
    }
  }

  /** Overwrite the key, and all else that the query left. */
  wipe() {
    if (this.#core) new Uint8Array(this.#core.memory.buffer).fill(0);
    this.#core = null;
  }
}

/** Hands out addresses from the end of the module's own memory on. */
class Layout {
  #core;
  #end;

  /** @param {Exports} core */
  constructor(core) {
    this.#core = core;
    this.#end = Number(core.__heap_base.value);
  }

  /** @param {number} bytes */
  take(bytes) {
    const start = Math.ceil(this.#end / WORD_BYTES) * WORD_BYTES;
    this.#end = start + bytes;
    return start;
  }

  /** Make the memory as long as what was taken. */
  reserve() {
    const missing = this.#end - this.#core.memory.buffer.byteLength;
    if (missing > 0) this.#core.memory.grow(Math.ceil(missing / PAGE_BYTES));
  }
}

/**
 * @param {WebAssembly.Module} module
 * @returns {Promise<Exports>}
 */
async function instantiate(module) {
  const { exports } = await WebAssembly.instantiate(module, {});
  return /** @type {Exports} */ (/** @type {unknown} */ (exports));
}

/** @param {URL} url */
async function fetched(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} is missing: \`make setup\` builds it`);
  return new Uint8Array(await response.arrayBuffer());
}
