/**
 * The outer form of ciphertexts, byte for byte as Concrete 2.10 writes it.
 *
 * A serialised value is one Cap'n Proto message of two segments: the struct Value of Concrete's
 * concrete-protocol.capnp, whose last part, how integers are encoded, is in the second. Everything
 * around the ciphertexts follows from client.specs.json, so that a result is held to it as a whole.
 * Source: https://capnproto.org/encoding.html
 */

import { InvalidResult } from "./errors.js";

/** @import { Gate } from "./specs.js" */

const SEGMENT_TABLE_BYTES = 16;
const WORD_BYTES = 8;
/** Words of a message beside the ciphertexts: of both segments, and of the second alone. */
const WORDS = 31;
const SECOND_WORDS = 3;
/** Elements of a list: bytes, numbers of 32 bits, and pointers. */
const BYTES = 2;
const HALF_WORDS = 4;
const POINTERS = 6;
/** A pointer to a struct without members has to be told from none. */
const EMPTY_STRUCT = 0xfffffffcn;
const IN_SECOND_SEGMENT = (1n << 32n) | 2n;

/**
 * @param {Gate} gate the input of a circuit
 * @param {Uint8Array} ciphertexts of its length
 * @returns {Uint8Array<ArrayBuffer>}
 */
export function wrap(gate, ciphertexts) {
  const { head, tail } = envelope(gate);
  const message = new Uint8Array(head.length + ciphertexts.length + tail.length);
  message.set(head);
  message.set(ciphertexts, head.length);
  message.set(tail, head.length + ciphertexts.length);
  return message;
}

/**
 * @param {Gate} gate the output of a circuit
 * @param {Uint8Array<ArrayBuffer>} message from anywhere
 * @returns {Uint8Array<ArrayBuffer>} its ciphertexts
 * @throws {InvalidResult} it is no result of the circuit
 */
export function unwrap(gate, message) {
  const length = messageBytes(gate);
  if (message.length !== length) {
    throw new InvalidResult(
      `a result of this circuit has ${length} bytes; ${message.length} bytes cannot be one`,
    );
  }
  const { head, tail } = envelope(gate);
  const end = message.length - tail.length;
  if (!equal(message.subarray(0, head.length), head) || !equal(message.subarray(end), tail)) {
    throw new InvalidResult("the result is damaged, or of another circuit");
  }
  return message.subarray(head.length, end);
}

/**
 * Bytes of a serialised value.
 *
 * @param {Gate} gate
 */
export function messageBytes(gate) {
  return SEGMENT_TABLE_BYTES + WORDS * WORD_BYTES + dataBytes(gate);
}

/** @param {Gate} gate */
function dataBytes(gate) {
  return gate.count * gate.wordsEach * WORD_BYTES;
}

/** @param {Gate} gate */
function envelope(gate) {
  const bytes = dataBytes(gate);
  const dataWords = bytes / WORD_BYTES;
  const concreteShape = [list(HALF_WORDS, 3), pair(1, gate.count), pair(gate.wordsEach, 0)];
  const head = [
    // Segments less one, and their lengths.
    pair(1, dataWords + WORDS - SECOND_WORDS),
    pair(SECOND_WORDS, 0),
    struct(0, 0, 3),
    // Value: payload, rawInfo and typeInfo.
    struct(2, 0, 1),
    struct(dataWords + 3, 1, 1),
    struct(dataWords + 7, 1, 1),
    // Payload: one piece of data.
    list(POINTERS, 1),
    list(BYTES, bytes),
  ];
  const tail = [
    // RawInfo: integerPrecision, isSigned; shape.
    pair(64, 0),
    struct(0, 0, 1),
    ...concreteShape,
    // TypeInfo: lweCiphertext.
    0n,
    struct(0, 1, 4),
    // LweCiphertextTypeInfo: integerPrecision, compression; both shapes, encryption and encoding.
    pair(64, gate.compression === "seed" ? 1 : 0),
    struct(3, 0, 1),
    struct(4, 0, 1),
    struct(6, 2, 1),
    IN_SECOND_SEGMENT,
    list(HALF_WORDS, 2),
    pair(1, gate.count),
    ...concreteShape,
    // LweCiphertextEncryptionInfo: keyId, lweDimension, variance; modulus, which is native.
    pair(gate.keyId, gate.dimension),
    new BigUint64Array(new Float64Array([gate.variance]).buffer)[0] ?? 0n,
    struct(0, 1, 1),
    0n,
    EMPTY_STRUCT,
    // EncodingInfo: width, isSigned; mode, which is native.
    struct(0, 1, 1),
    pair(gate.width, gate.isSigned ? 1 : 0),
    EMPTY_STRUCT,
  ];
  return { head: words(head), tail: words(tail) };
}

/**
 * A pointer to a struct, so many words after the pointer.
 *
 * @param {number} offset
 * @param {number} dataWords of the struct
 * @param {number} pointers of the struct
 */
function struct(offset, dataWords, pointers) {
  return pair(offset * 4, dataWords | (pointers << 16));
}

/**
 * A pointer to the list that follows it.
 *
 * @param {number} kind of its elements
 * @param {number} count of its elements
 */
function list(kind, count) {
  return pair(1, count * 8 + kind);
}

/**
 * @param {number} low
 * @param {number} high
 */
function pair(low, high) {
  return BigInt(low) | (BigInt(high) << 32n);
}

/** @param {bigint[]} values */
function words(values) {
  const bytes = new Uint8Array(values.length * WORD_BYTES);
  const view = new DataView(bytes.buffer);
  values.forEach((value, index) => view.setBigUint64(index * WORD_BYTES, value, true));
  return bytes;
}

/**
 * @param {Uint8Array} one
 * @param {Uint8Array} other
 */
function equal(one, other) {
  return one.length === other.length && one.every((byte, index) => byte === other[index]);
}
