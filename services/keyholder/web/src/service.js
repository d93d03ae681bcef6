/** The inference service's HTTP interface: the Open Inference Protocol v2 and Cloister's own part. */

import { chunks } from "./archive.js";
import { CloisterError, InvalidAnswer, RequestRefused, ServiceUnavailable } from "./errors.js";
import { Mismatch, object, optional, read, text } from "./shape.js";

const METADATA_LIMIT = 1 << 20;
const CLIENT_LIMIT = 16 << 20;
const REFERENCE_LIMIT = 64 << 20;
const OCTETS = "application/octet-stream";
const CLIENT_DIGEST = "Cloister-Client-Digest";
/** Busy: asking again, later, may help. */
const BUSY = [429, 502, 503, 504];
const PAUSE_SECONDS = 1;
const EVALUATE = /(?:^|,)\s*evaluate\s*;(?:[^,]*;)?\s*dur=([0-9]+(?:\.[0-9]+)?)/;

/**
 * @param {RegExp} pattern
 * @returns {import("./shape.js").Check<string>}
 */
function matching(pattern) {
  return (value, where) => {
    if (typeof value === "string" && pattern.test(value)) return value;
    throw new Mismatch(`${where}: it is malformed`);
  };
}

const metadata = object({
  parameters: object({
    version: matching(/^[1-9][0-9]{0,8}$/),
    client_digest: matching(/^[0-9a-f]{64}$/),
    evaluator: optional(text),
  }, "ignore"),
}, "ignore");

/**
 * @typedef {object} Description What is served.
 * @property {string} version
 * @property {string} clientDigest SHA-256 of its client.zip
 * @property {string | null} evaluator what evaluates, as the service says; null where it does not
 */
/**
 * @typedef {object} Reply
 * @property {Uint8Array<ArrayBuffer>} body
 * @property {number | null} evaluateMs the encrypted evaluation, as the service says
 */

/** The requests about one model. */
export class InferenceService {
  #url;
  #model;
  #apiKey;
  #retrySeconds;
  #fetch;

  /**
   * @param {string} url of the service
   * @param {string} model its name
   * @param {object} [options]
   * @param {string} [options.apiKey] where the service needs one
   * @param {number} [options.retrySeconds] how long a request is repeated while it is busy
   * @param {typeof fetch} [options.fetch] what requests go through
   * @throws {CloisterError} the address is none of http or https
   */
  constructor(url, model, { apiKey = "", retrySeconds = 60, fetch: send = fetch } = {}) {
    if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol)) {
      throw new CloisterError("the service's address must begin with http:// or https://");
    }
    this.#url = url.replace(/\/+$/, "");
    this.#model = `/v2/models/${encodeURIComponent(model)}`;
    this.#apiKey = apiKey;
    this.#retrySeconds = retrySeconds;
    this.#fetch = send;
  }

  /**
   * Describe a version, or the current one.
   *
   * @param {string} [version]
   * @returns {Promise<Description>}
   * @throws {InvalidAnswer} the description is malformed, or of another version
   */
  async describe(version) {
    const path = version ? this.#version(version) : this.#model;
    const { parameters } = read(
      (await this.#exchange("GET", path, METADATA_LIMIT)).body,
      metadata,
      () =>
        new InvalidAnswer(
          `${this.#url}${path} does not describe a model that is served encrypted: see that this ` +
            "is the address of Cloister's inference service",
        ),
    );
    if (version && parameters.version !== version) {
      throw new InvalidAnswer(
        `asked for version ${version}, the service described ${parameters.version}`,
      );
    }
    const { evaluator } = parameters;
    return { version: parameters.version, clientDigest: parameters.client_digest, evaluator };
  }

  /**
   * The client.zip of a version.
   *
   * @param {Description} description
   * @throws {InvalidAnswer} its SHA-256 is not the description's
   */
  async clientZip({ version, clientDigest }) {
    const { body } = await this.#exchange("GET", `${this.#version(version)}/client`, CLIENT_LIMIT);
    const digest = await sha256(body);
    if (digest !== clientDigest) {
      throw new InvalidAnswer(
        `client.zip has the SHA-256 ${digest}, but the service announced ${clientDigest}: it was ` +
          "changed on the way, or the service is broken",
      );
    }
    return body;
  }

  /**
   * The encrypted result of a serialised input.
   *
   * @param {Description} description of the version that it was encrypted for
   * @param {Uint8Array<ArrayBuffer>} input
   * @param {number} limit the most bytes that the result may have
   */
  async infer({ version, clientDigest }, input, limit) {
    const path = `${this.#version(version)}/infer`;
    return await this.#exchange("POST", path, limit, input, clientDigest);
  }

  /**
   * The circuit in the clear; null where it is not published.
   *
   * @param {Description} description
   */
  async reference({ version }) {
    try {
      const path = `${this.#version(version)}/reference`;
      return (await this.#exchange("GET", path, REFERENCE_LIMIT)).body;
    } catch (error) {
      if (error instanceof RequestRefused && error.status === 404) return null;
      throw error;
    }
  }

  /** @param {string} version */
  #version(version) {
    return `${this.#model}/versions/${encodeURIComponent(version)}`;
  }

  /**
   * @param {"GET" | "POST"} method
   * @param {string} path
   * @param {number} limit the most bytes that the answer may have
   * @param {Uint8Array<ArrayBuffer>} [body]
   * @param {string} [clientDigest]
   * @returns {Promise<Reply>}
   */
  async #exchange(method, path, limit, body, clientDigest) {
    const headers = new Headers();
    if (this.#apiKey) headers.set("Authorization", `Bearer ${this.#apiKey}`);
    if (body) headers.set("Content-Type", OCTETS);
    if (clientDigest) headers.set(CLIENT_DIGEST, clientDigest);
    // Neither cookies nor the page's address are the service's business.
    const request = {
      method,
      headers,
      body: body ?? null,
      credentials: /** @type {const} */ ("omit"),
      referrerPolicy: /** @type {const} */ ("no-referrer"),
    };
    const end = performance.now() + 1000 * this.#retrySeconds;
    while (true) {
      const response = await this.#send(path, request);
      if (response.ok) {
        const timing = EVALUATE.exec(response.headers.get("Server-Timing") ?? "")?.[1];
        return {
          body: await bounded(response, limit),
          evaluateMs: timing === undefined ? null : Number(timing),
        };
      }
      const stated = Number(response.headers.get("Retry-After") ?? NaN);
      const pause = 1000 * (stated > 0 ? stated : PAUSE_SECONDS);
      if (!BUSY.includes(response.status)) {
        throw new RequestRefused(response.status, await detail(response));
      }
      if (performance.now() + pause > end) {
        throw new ServiceUnavailable(`${this.#url} is busy: ${await detail(response)}`);
      }
      await response.body?.cancel();
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  /**
   * @param {string} path
   * @param {RequestInit} request
   */
  async #send(path, request) {
    const send = this.#fetch;
    try {
      return await send(this.#url + path, request);
    } catch (error) {
      throw new ServiceUnavailable(
        `${this.#url} does not answer this page (${
          error instanceof Error ? error.message : error
        }): ` +
          "see that the service runs, that its CLOISTER_CORS_ORIGINS names this page's origin, and " +
          "that the page's Content-Security-Policy allows the service's",
      );
    }
  }
}

/**
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @returns {Promise<string>} in hexadecimal digits
 */
export async function sha256(bytes) {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * @param {Response} response
 * @param {number} limit
 */
async function bounded(response, limit) {
  /** @type {Uint8Array<ArrayBuffer>[]} */
  const parts = [];
  let length = 0;
  if (response.body) {
    for await (const chunk of chunks(response.body)) {
      length += chunk.length;
      if (length > limit) throw new InvalidAnswer(`the answer has more than ${limit} bytes`);
      parts.push(chunk);
    }
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/**
 * The service's own explanation, printable and of one line.
 *
 * @param {Response} response
 */
async function detail(response) {
  try {
    const body = await bounded(response, METADATA_LIMIT);
    const problem = JSON.parse(new TextDecoder().decode(body));
    if (typeof problem.detail === "string") {
      return problem.detail.slice(0, 500).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "?");
    }
  } catch {
    // Something in front of the service answers in its own way.
  }
  return response.statusText || "no reason given";
}
