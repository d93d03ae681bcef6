/** A model behind an inference service: rows in, answers out, and the key nowhere but here. */

import { messageBytes, unwrap, wrap } from "./envelope.js";
import { classIndex, probabilities, valueOf } from "./links.js";
import { Lwe } from "./lwe.js";
import { openPackage } from "./package.js";
import { toInputs } from "./preprocessing.js";
import { InferenceService } from "./service.js";

/** @import { Cell } from "./cells.js" */
/** @import { Label } from "./card.js" */
/** @import { Encryption } from "./lwe.js" */
/** @import { ClientPackage } from "./package.js" */
/** @import { Description } from "./service.js" */

/**
 * @typedef {object} Answer
 * @property {Label | null} label predicted class; null of a regression
 * @property {number | null} value predicted value; null of a classification
 * @property {number[] | null} probabilities of each class; null where the estimator has none
 * @property {number[]} scores one for two classes and for a regression, else one for each class
 */

/**
 * @typedef {object} Options
 * @property {string} [version] the current one by default
 * @property {string} [apiKey] of the service, where it needs one
 * @property {"refuse" | "clip"} [outOfBounds] what happens to numbers outside their declared bounds;
 *   what the card says by default
 * @property {number} [retrySeconds] how long a request is repeated while the service is busy
 * @property {Lwe} [lwe] the compiled core; fetched from beside this module by default
 * @property {typeof fetch} [fetch] what requests go through
 */

/**
 * A model that is evaluated on encrypted rows.
 *
 * Every query has a key of its own, which is overwritten when its result is opened. Nothing of what
 * was decrypted goes back to the service, and a result that cannot be opened is not reported to it.
 */
export class EncryptedModel {
  #service;
  #lwe;
  #package;
  #outOfBounds;

  /**
   * Use `EncryptedModel.open`.
   *
   * @param {InferenceService} service
   * @param {Lwe} lwe
   * @param {Description} description
   * @param {ClientPackage} opened
   * @param {"refuse" | "clip"} outOfBounds
   */
  constructor(service, lwe, description, opened, outOfBounds) {
    this.#service = service;
    this.#lwe = lwe;
    this.#package = opened;
    this.#outOfBounds = outOfBounds;
    /** The version in use, and the SHA-256 of its client.zip. */
    this.description = description;
  }

  /**
   * Fetch what is needed to query a model, and check it.
   *
   * @param {string} url of the service
   * @param {string} name of the model
   * @param {Options} [options]
   * @returns {Promise<EncryptedModel>}
   * @throws {CloisterError} see errors.js
   */
  static async open(url, name, options = {}) {
    const service = new InferenceService(url, name, options);
    const lwe = options.lwe ?? (await Lwe.load());
    const description = await service.describe(options.version);
    const zip = await service.clientZip(description);
    const opened = await openPackage(zip, (dimension, std) => lwe.isSafe(dimension, std));
    const outOfBounds = options.outOfBounds ?? opened.card.outOfBounds;
    return new EncryptedModel(service, lwe, description, opened, outOfBounds);
  }

  /** The model card: features, bounds, classes. */
  get card() {
    return this.#package.card;
  }

  /**
   * What is encrypted of a row.
   *
   * @param {readonly Cell[]} row
   * @returns {BigInt64Array}
   * @throws {CloisterError} the row does not fit the card; it names the feature, and never the value
   */
  quantise(row) {
    const { card, features, quantiser } = this.#package;
    const inputs = toInputs(row, card.data, this.#outOfBounds);
    return quantiser.quantise(features.map((index) => inputs[index] ?? NaN));
  }

  /**
   * Predict from one row.
   *
   * @param {readonly Cell[]} row raw values in the order of the card's features: numbers, or text as
   *   people write it, and labels where features are categories
   * @returns {Promise<Answer>}
   * @throws {CloisterError} as `quantise`; or the service cannot be reached, refuses, or answers what
   *   is no result
   */
  async predict(row) {
    const { input, output } = this.#package;
    const sealed = await this.#lwe.seal(this.#encryption, this.quantise(row));
    try {
      const message = wrap(input, sealed.ciphertexts);
      const result = await this.#service.infer(this.description, message, messageBytes(output));
      return this.answer(sealed.key.open(unwrap(output, result)));
    } finally {
      sealed.key.wipe();
    }
  }

  /**
   * What the circuit's integer scores mean.
   *
   * @param {BigInt64Array} integers one for each output
   * @returns {Answer}
   */
  answer(integers) {
    const { card, link, outputScale } = this.#package;
    const scores = outputScale.dequantise(integers);
    const isRegression = card.data.task === "regression";
    return {
      label: isRegression ? null : card.data.classes[classIndex(scores)] ?? null,
      value: isRegression ? valueOf(scores, link) : null,
      probabilities: probabilities(scores, link),
      scores,
    };
  }

  /** @returns {Encryption} */
  get #encryption() {
    const { input, output } = this.#package;
    return {
      dimension: input.dimension,
      std: Math.sqrt(input.variance),
      inputWidth: input.width,
      nInputs: input.count,
      outputWidth: output.width,
      outputSigned: output.isSigned,
      nOutputs: output.count,
    };
  }
}
