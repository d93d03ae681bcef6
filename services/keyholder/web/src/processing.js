/** Scales and zero points from serialized_processing.json, and what they do. */

import { InvalidClientPackage } from "./errors.js";
import { array, boolean, either, finite, integer, literal, object, read } from "./shape.js";

const scale = object({
  type_name: literal("numpy_float"),
  serialized_value: finite((value) => value > 0),
}, "ignore");
const scalar = object({
  type_name: literal("numpy_integer"),
  serialized_value: integer(),
}, "ignore");
const row = object({
  type_name: literal("numpy_array"),
  serialized_value: array(array(integer()), 1, 1),
}, "ignore");
const uniform = literal("UniformQuantizer");
const processing = object({
  input_quantizers: array(
    object({
      type_name: uniform,
      serialized_value: object({
        n_bits: integer(1, 16),
        offset: integer(0, 1 << 16),
        is_narrow: boolean,
        no_clipping: literal(false),
        scale,
        zero_point: scalar,
      }, "ignore"),
    }, "ignore"),
    1,
    1,
  ),
  output_quantizers: array(
    object({
      type_name: uniform,
      serialized_value: object({ scale, zero_point: either(row, scalar) }, "ignore"),
    }, "ignore"),
    1,
    1,
  ),
  is_training: literal(false),
  ciphertext_format: literal("concrete"),
}, "ignore");

/** Uniform quantisation: q = clip(rint(x / scale + zeroPoint), low, high). */
export class Quantiser {
  /**
   * @param {number} scale above 0
   * @param {number} zeroPoint quantised value of 0
   * @param {number} low smallest quantised value
   * @param {number} high largest quantised value
   */
  constructor(scale, zeroPoint, low, high) {
    this.scale = scale;
    this.zeroPoint = zeroPoint;
    this.low = low;
    this.high = high;
  }

  /**
   * @param {ArrayLike<number>} values finite
   * @returns {BigInt64Array}
   */
  quantise(values) {
    return BigInt64Array.from(values, (value) => {
      const rounded = rint(value / this.scale + this.zeroPoint);
      return BigInt(Math.min(Math.max(rounded, this.low), this.high));
    });
  }
}

/** Integer scores to scores: scale * (integer - zeroPoint). */
export class OutputScale {
  /**
   * @param {number} scale
   * @param {number[]} zeroPoints one for each output
   */
  constructor(scale, zeroPoints) {
    this.scale = scale;
    this.zeroPoints = zeroPoints;
  }

  /**
   * @param {BigInt64Array} integers one for each output
   * @returns {number[]}
   */
  dequantise(integers) {
    return this.zeroPoints.map((zero, index) =>
      this.scale * Number((integers[index] ?? 0n) - BigInt(zero))
    );
  }
}

/**
 * @param {Uint8Array<ArrayBuffer>} data serialized_processing.json
 * @param {number} nOutputs of the circuit
 * @returns {{ quantiser: Quantiser, outputScale: OutputScale }}
 * @throws {InvalidClientPackage} it is malformed, or for another kind of model
 */
export function readProcessing(data, nOutputs) {
  const { input_quantizers: [input], output_quantizers: [output] } = read(
    data,
    processing,
    (why) =>
      new InvalidClientPackage(`serialized_processing.json is not that of a known model: ${why}`),
  );
  if (!input || !output) throw new InvalidClientPackage("serialized_processing.json is empty");
  const given = input.serialized_value;
  const zero = output.serialized_value.zero_point.serialized_value;
  let zeroPoints = typeof zero === "number" ? [zero] : zero[0] ?? [];
  if (zeroPoints.length === 1) zeroPoints = Array(nOutputs).fill(zeroPoints[0]);
  if (zeroPoints.length !== nOutputs) {
    throw new InvalidClientPackage(
      `serialized_processing.json has ${zeroPoints.length} zero points for ${nOutputs} outputs`,
    );
  }
  return {
    quantiser: new Quantiser(
      given.scale.serialized_value,
      given.zero_point.serialized_value,
      Number(given.is_narrow) - given.offset,
      2 ** given.n_bits - 1 - given.offset,
    ),
    outputScale: new OutputScale(output.serialized_value.scale.serialized_value, zeroPoints),
  };
}

/**
 * The nearest whole number, the even one of two.
 *
 * @param {number} value
 */
function rint(value) {
  const floor = Math.floor(value);
  const above = value - floor;
  if (above === 0.5) return floor % 2 === 0 ? floor : floor + 1;
  return above < 0.5 ? floor : floor + 1;
}
