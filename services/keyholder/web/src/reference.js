/** The circuit in the clear, where the service publishes it: what encrypted results must equal. */

import { InvalidAnswer } from "./errors.js";
import { damaged, readNpz } from "./npz.js";
import { Quantiser } from "./processing.js";

/** @import { ClientPackage } from "./package.js" */
/** @import { Floats, Integers } from "./npz.js" */

/** The most bytes that the arrays may have together. */
const UNPACKED_LIMIT = 64 << 20;

/** Float weights, and the integer circuit made of them. */
export class Reference {
  #coef;
  #intercept;
  #features;
  #weights;
  #bias;
  #quantiser;

  /**
   * @param {Floats} coef of all inputs of the model, shape (outputs, inputs)
   * @param {Floats} intercept shape (outputs,)
   * @param {number[]} features indices of the inputs that the circuit takes
   * @param {Integers} weights shape (circuit inputs, outputs)
   * @param {Integers} bias shape (outputs,)
   * @param {Quantiser} quantiser of the inputs
   */
  constructor(coef, intercept, features, weights, bias, quantiser) {
    this.#coef = coef;
    this.#intercept = intercept;
    this.#features = features;
    this.#weights = weights;
    this.#bias = bias;
    this.#quantiser = quantiser;
  }

  /**
   * What the circuit gives for a row, exactly.
   *
   * @param {Float64Array} inputs all of the model's, in [0, 1]
   * @returns {BigInt64Array} one for each output
   */
  integerScores(inputs) {
    const quantised = this.#quantiser.quantise(
      this.#features.map((index) => inputs[index] ?? NaN),
    );
    const nOutputs = this.#bias.integers.length;
    return this.#bias.integers.map((bias, output) =>
      quantised.reduce(
        (sum, one, index) => sum + one * (this.#weights.integers[index * nOutputs + output] ?? 0n),
        bias,
      )
    );
  }

  /**
   * Scores of the model as it was trained; sums are rounded in their own order.
   *
   * @param {Float64Array} inputs all of the model's, in [0, 1]
   * @returns {number[]} one for each output
   */
  floatScores(inputs) {
    return Array.from(this.#intercept.floats, (intercept, output) => {
      const start = output * inputs.length;
      return inputs.reduce(
        (sum, one, index) => sum + one * (this.#coef.floats[start + index] ?? NaN),
        intercept,
      );
    });
  }
}

/**
 * @param {Uint8Array<ArrayBuffer>} data reference.npz
 * @param {ClientPackage} opened of the same model
 * @param {number} nInputs of the model
 * @returns {Promise<Reference>}
 * @throws {InvalidAnswer} it is damaged, or of another model
 */
export async function readReference(data, opened, nInputs) {
  const arrays = await readNpz(data, UNPACKED_LIMIT);
  /** @param {string} name */
  const whole = (name) => Number(one(arrays.integers(name).integers, name));
  const scale = one(arrays.floats("input_scale").floats, "input_scale");
  const quantiser = new Quantiser(
    scale,
    whole("input_zero_point"),
    whole("input_low"),
    whole("input_high"),
  );
  if (!(scale > 0) || quantiser.low >= quantiser.high) throw damaged("it quantises nothing");
  const coef = arrays.floats("coef");
  const intercept = arrays.floats("intercept");
  const features = Array.from(arrays.integers("features").integers, Number);
  const weights = arrays.integers("weights");
  const bias = arrays.integers("bias");
  const nOutputs = opened.output.count;
  const fits = `${coef.shape}` === `${[nOutputs, nInputs]}` &&
    `${intercept.shape}` === `${nOutputs}` &&
    `${features}` === `${opened.features}` &&
    `${weights.shape}` === `${[features.length, nOutputs]}` &&
    `${bias.shape}` === `${nOutputs}`;
  if (!fits) throw new InvalidAnswer("the service's reference.npz is of another model");
  return new Reference(coef, intercept, features, weights, bias, quantiser);
}

/**
 * @template T
 * @param {ArrayLike<T>} values
 * @param {string} name
 */
function one(values, name) {
  const [value] = Array.from(values);
  if (values.length !== 1 || value === undefined) throw damaged(`${name} is no single number`);
  return value;
}
