/**
 * The encryption parameters in client.specs.json, held to what is known to be safe.
 *
 * They come from the service, which must not learn the inputs: taken on trust, they could hide
 * nothing. Linear circuits alone are known here; the Python client knows trees too.
 */

import { InvalidClientPackage, UnsafeParameters } from "./errors.js";
import {
  anything,
  array,
  boolean,
  finite,
  integer,
  literal,
  object,
  optional,
  read,
  text,
} from "./shape.js";

/** A seeded ciphertext is a seed of two 64-bit words and a body of one. */
const SEED_AND_BODY_WORDS = 3;
/** The most bytes that the ciphertexts of one input or of one result may have. */
const DATA_LIMIT = 64 << 20;

/**
 * @typedef {object} Gate The encrypted row that goes into a circuit, or comes out of it.
 * @property {number} count integers in the row
 * @property {number} wordsEach 64-bit words of each ciphertext
 * @property {"seed" | "none"} compression
 * @property {number} keyId
 * @property {number} dimension
 * @property {number} variance relative to 2^128
 * @property {number} width bits of the integers
 * @property {boolean} isSigned
 */

const native = object({ native: object({}) });
const dimensions = object({ dimensions: array(integer(0), 2, 4) });
const variance = finite((value) => value > 0 && value < 1);
const gate = object({
  rawInfo: object({
    shape: dimensions,
    integerPrecision: literal(64),
    isSigned: literal(false),
  }),
  typeInfo: object({
    lweCiphertext: object({
      abstractShape: dimensions,
      concreteShape: dimensions,
      integerPrecision: literal(64),
      encryption: object({
        keyId: integer(0),
        variance,
        lweDimension: integer(1),
        modulus: object({ modulus: native }),
      }),
      compression: literal("seed", "none"),
      encoding: object({
        integer: object({ width: integer(1, 61), isSigned: boolean, mode: native }),
      }),
    }),
  }),
});
const secretKey = object({
  id: literal(0),
  params: object({
    lweDimension: integer(1),
    integerPrecision: literal(64),
    keyType: literal("binary"),
  }),
});
const specs = object({
  keyset: object({
    lweSecretKeys: array(secretKey, 1, 1),
    lweBootstrapKeys: array(anything, 0, 0),
    lweKeyswitchKeys: array(anything, 0, 0),
    packingKeyswitchKeys: array(anything, 0, 0),
  }),
  circuits: array(
    object({ inputs: array(gate, 1, 1), outputs: array(gate, 1, 1), name: text }),
    1,
    1,
  ),
  // Concrete's bridge to TFHE-rs, which linear circuits do not use.
  tfhers_specs: optional(anything),
});
const evaluationKeys = object({
  keyset: object({ lweBootstrapKeys: array(anything, 1) }, "ignore"),
}, "ignore");

/**
 * @param {Uint8Array<ArrayBuffer>} data client.specs.json
 * @param {(dimension: number, std: number) => boolean} isSafe the security curve
 * @returns {{ input: Gate, output: Gate }}
 * @throws {InvalidClientPackage} the circuit needs evaluation keys
 * @throws {UnsafeParameters} it is malformed, of another kind, or below 128 bits of security
 */
export function readSpecs(data, isSafe) {
  refuseEvaluationKeys(data);
  const { keyset, circuits } = read(data, specs, refused);
  const [key] = keyset.lweSecretKeys;
  const [circuit] = circuits;
  const [given] = circuit?.inputs ?? [];
  const [answered] = circuit?.outputs ?? [];
  if (!key || !given || !answered) throw refused("it has no circuit");
  const input = flat(given, "seed", SEED_AND_BODY_WORDS);
  const output = flat(
    answered,
    "none",
    answered.typeInfo.lweCiphertext.encryption.lweDimension + 1,
  );
  for (const { keyId, dimension, variance } of [input, output]) {
    if (keyId !== key.id || dimension !== key.params.lweDimension) {
      throw refused("a ciphertext is not of the secret key");
    }
    if (!isSafe(dimension, Math.sqrt(variance))) {
      throw refused(
        `noise of variance ${variance} at the LWE dimension ${dimension} is below 128 bits of ` +
          "security, or outside the range where that is known",
      );
    }
  }
  return { input, output };
}

/**
 * Smallest and largest integer that an encoding holds.
 *
 * @param {Gate} gate
 */
export function rangeOf(gate) {
  const low = gate.isSigned ? -(2 ** (gate.width - 1)) : 0;
  return { low, high: low + 2 ** gate.width - 1 };
}

/** @param {Uint8Array<ArrayBuffer>} data */
function refuseEvaluationKeys(data) {
  try {
    read(data, evaluationKeys, refused);
  } catch {
    return;
  }
  throw new InvalidClientPackage(
    "this model is a tree: it needs evaluation keys of megabytes and a key that is kept, which a " +
      "page does not do. Use the Python client",
  );
}

/**
 * @param {ReturnType<typeof gate>} given
 * @param {"seed" | "none"} compression
 * @param {number} wordsEach
 * @returns {Gate}
 */
function flat(given, compression, wordsEach) {
  const ciphertext = given.typeInfo.lweCiphertext;
  const shape = ciphertext.abstractShape.dimensions;
  const count = shape[1] ?? 0;
  if (ciphertext.compression !== compression) {
    throw refused(`compression is ${ciphertext.compression}, not ${compression}`);
  }
  if (shape.length !== 2 || shape[0] !== 1 || count < 1) {
    throw refused(`a row must have the shape (1, n), not (${shape})`);
  }
  const concrete = `${[1, count, wordsEach]}`;
  if (
    `${ciphertext.concreteShape.dimensions}` !== concrete ||
    `${given.rawInfo.shape.dimensions}` !== concrete
  ) {
    throw refused(`ciphertexts do not fit a row of ${count} integers`);
  }
  if (count * wordsEach * 8 > DATA_LIMIT) {
    throw refused(`a row takes more than ${DATA_LIMIT} bytes`);
  }
  const { keyId, lweDimension: dimension, variance } = ciphertext.encryption;
  const { width, isSigned } = ciphertext.encoding.integer;
  return { count, wordsEach, compression, keyId, dimension, variance, width, isSigned };
}

/** @param {string} why */
function refused(why) {
  return new UnsafeParameters(
    `the encryption parameters of this model are refused: ${why}. Nothing was encrypted; ask ` +
      "whoever runs the service",
  );
}
