/** A model behind an inference service: rows in, answers out, and the key nowhere but here. */

import { messageBytes, unwrap, wrap } from "./envelope.js";
import { classIndex, probabilities, valueOf } from "./links.js";
import { Lwe } from "./lwe.js";
import { openPackage } from "./package.js";
import { inputCount } from "./card.js";
import { toInputs } from "./preprocessing.js";
import { readReference } from "./reference.js";
import { InferenceService, sha256 } from "./service.js";

/** @import { Cell } from "./cells.js" */
/** @import { Label } from "./card.js" */
/** @import { Encryption } from "./lwe.js" */
/** @import { ClientPackage } from "./package.js" */
/** @import { Reference } from "./reference.js" */
/** @import { Description } from "./service.js" */

/**
 * @typedef {object} Answer
 * @property {Label | null} label predicted class; null of a regression
 * @property {number | null} value predicted value; null of a classification
 * @property {number[] | null} probabilities of each class; null where the estimator has none
 * @property {number[]} scores one for two classes and for a regression, else one for each class
 */

/**
 * @typedef {object} Query One encrypted row, and what became of it.
 * @property {Answer} answer
 * @property {BigInt64Array} integers the circuit's, one for each output
 * @property {object} sent all that the service received of the row, and what it answered
 * @property {Uint8Array<ArrayBuffer>} sent.ciphertext the body of the request
 * @property {string} sent.sha256 of it
 * @property {number} sent.bytesDown of the encrypted result
 * @property {object} milliseconds
 * @property {number} milliseconds.encrypt key, encryption and message
 * @property {number} milliseconds.network the request, repetitions included, without its evaluation
 * @property {number | null} milliseconds.evaluate the encrypted evaluation, as the service says;
 *   null where it does not, and `network` is then the whole request
 * @property {number} milliseconds.decrypt
 */

/**
 * @typedef {object} Clear What a row gives in the clear.
 * @property {Answer} quantised of the circuit's integers
 * @property {BigInt64Array} integers which the encrypted ones must equal
 * @property {Answer} float of the model as it was trained
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
  /** @type {Promise<Reference | null> | null} */
  #reference = null;

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
    const { features, quantiser } = this.#package;
    const inputs = this.#inputs(row);
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
    return (await this.query(row)).answer;
  }

  /**
   * Predict from one row, and tell what was sent and where the time went.
   *
   * @param {readonly Cell[]} row as `predict` takes it
   * @returns {Promise<Query>}
   * @throws {CloisterError} as `predict`
   */
  async query(row) {
    const { input, output } = this.#package;
    const start = performance.now();
    const sealed = await this.#lwe.seal(this.#encryption, this.quantise(row));
    try {
      const ciphertext = wrap(input, sealed.ciphertexts);
      const encrypted = performance.now();
      const { body, evaluateMs } = await this.#service.infer(
        this.description,
        ciphertext,
        messageBytes(output),
      );
      const received = performance.now();
      const integers = sealed.key.open(unwrap(output, body));
      const decrypted = performance.now();
      return {
        answer: this.answer(integers),
        integers,
        sent: { ciphertext, sha256: await sha256(ciphertext), bytesDown: body.length },
        milliseconds: {
          encrypt: encrypted - start,
          network: Math.max(received - encrypted - (evaluateMs ?? 0), 0),
          evaluate: evaluateMs,
          decrypt: decrypted - received,
        },
      };
    } finally {
      sealed.key.wipe();
    }
  }

  /**
   * What a row gives in the clear, computed here: nothing of it is sent.
   *
   * @param {readonly Cell[]} row as `predict` takes it
   * @returns {Promise<Clear | null>} null where the service publishes no reference
   * @throws {CloisterError} as `quantise`; or the reference is damaged, or of another model
   */
  async clear(row) {
    const inputs = this.#inputs(row);
    this.#reference ??= this.#fetchReference();
    const reference = await this.#reference.catch((error) => {
      this.#reference = null;
      throw error;
    });
    if (!reference) return null;
    const integers = reference.integerScores(inputs);
    return {
      quantised: this.answer(integers),
      integers,
      float: this.#answerOf(reference.floatScores(inputs)),
    };
  }

  /**
   * What the circuit's integer scores mean.
   *
   * @param {BigInt64Array} integers one for each output
   * @returns {Answer}
   */
  answer(integers) {
    return this.#answerOf(this.#package.outputScale.dequantise(integers));
  }

  /**
   * @param {number[]} scores
   * @returns {Answer}
   */
  #answerOf(scores) {
    const { card, link } = this.#package;
    const isRegression = card.data.task === "regression";
    return {
      label: isRegression ? null : card.data.classes[classIndex(scores)] ?? null,
      value: isRegression ? valueOf(scores, link) : null,
      probabilities: probabilities(scores, link),
      scores,
    };
  }

  /** @param {readonly Cell[]} row */
  #inputs(row) {
    return toInputs(row, this.card.data, this.#outOfBounds);
  }

  async #fetchReference() {
    const data = await this.#service.reference(this.description);
    return data && readReference(data, this.#package, inputCount(this.card.data));
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
