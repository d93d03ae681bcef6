/** Who holds the key of a query: this page, or the key holder on the same machine. */

import { readCard } from "/client/src/card.js";
import { EncryptedModel, ServiceUnavailable } from "/client/src/index.js";

/** @import { Answer, Card, Cell } from "/client/index.d.ts" */

/** What is shown of a ciphertext. */
export const HEAD_BYTES = 4096;
/** How often the key holder is asked how far it is. */
const POLL_MILLISECONDS = 700;

/**
 * @typedef {object} Outcome
 * @property {Answer} answer
 * @property {object} sent
 * @property {number} sent.bytesUp
 * @property {number} sent.bytesDown
 * @property {string} sent.sha256
 * @property {Uint8Array} sent.head the ciphertext's first bytes, at most `HEAD_BYTES`
 * @property {Times} times
 * @property {Comparison | null} clear null where no reference is published
 */
/**
 * @typedef {object} Times in milliseconds
 * @property {number} preparing keys and waiting, where there was any
 * @property {number} encrypt
 * @property {number} network
 * @property {number | null} evaluate null where the service does not say; it is in `network` then
 * @property {number} decrypt
 */
/**
 * @typedef {object} Comparison
 * @property {Answer} quantised
 * @property {Answer} float
 * @property {boolean} equal whether the encrypted integers are the clear ones
 */
/**
 * @typedef {object} Holder A model that is open, where the key is.
 * @property {"page" | "keyholder"} where
 * @property {Card} card
 * @property {{ version: string, evaluator: string | null }} description
 * @property {(row: Cell[], progress: (text: string) => void) => Promise<Outcome>} ask
 */

/** The key holder on this machine did not do what it was asked for. */
export class KeyholderError extends Error {
  /**
   * @param {number | null} status of its answer; null: there was none
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.name = "KeyholderError";
    this.status = status;
  }
}

/**
 * Open a linear model: the page makes a key for every query.
 *
 * @param {string} serviceUrl
 * @param {string} name
 * @param {string} apiKey
 * @returns {Promise<Holder>}
 */
export async function openInPage(serviceUrl, name, apiKey) {
  const model = await EncryptedModel.open(serviceUrl, name, { apiKey, retrySeconds: 5 });
  return {
    where: "page",
    card: model.card,
    description: model.description,
    async ask(row) {
      const { answer, integers, sent, milliseconds } = await model.query(row);
      const clear = await model.clear(row);
      const { ciphertext, sha256, bytesDown } = sent;
      return {
        answer,
        sent: {
          bytesUp: ciphertext.length,
          bytesDown,
          sha256,
          head: ciphertext.subarray(0, HEAD_BYTES),
        },
        times: { preparing: 0, ...milliseconds },
        clear: clear && {
          quantised: clear.quantised,
          float: clear.float,
          equal: `${clear.integers}` === `${integers}`,
        },
      };
    },
  };
}

/**
 * Open any model at the key holder, which keeps its key.
 *
 * @param {string} keyholderUrl
 * @param {string} name
 * @returns {Promise<Holder>}
 */
export async function openAtKeyholder(keyholderUrl, name) {
  const path = `${keyholderUrl}/v1/models/${encodeURIComponent(name)}`;
  const { card, version, evaluator } = await exchange(path);
  return {
    where: "keyholder",
    card: readCard(new TextEncoder().encode(JSON.stringify(card))),
    description: { version: String(version), evaluator },
    async ask(row, progress) {
      const stop = watch(path, progress);
      try {
        const { predictions: [found] } = await exchange(`${path}/predict`, { rows: [row] });
        const { sent, milliseconds, clear } = found;
        return {
          answer: answerOf(found),
          sent: {
            bytesUp: sent.bytes_up,
            bytesDown: sent.bytes_down,
            sha256: sent.sha256,
            head: Uint8Array.from(atob(sent.head), (byte) => byte.charCodeAt(0)),
          },
          times: milliseconds,
          clear: clear && {
            quantised: answerOf(clear.quantised),
            float: answerOf(clear.float_model),
            equal: clear.equal,
          },
        };
      } finally {
        stop();
      }
    },
  };
}

/**
 * @param {{ label: string | number | null, value: number | null, probabilities: number[] | null,
 *   scores: (number | null)[] }} given
 * @returns {Answer}
 */
function answerOf({ label, value, probabilities, scores }) {
  return { label, value, probabilities, scores: scores.map((one) => one ?? NaN) };
}

/**
 * Tell what the key holder does, until told to stop.
 *
 * @param {string} path
 * @param {(text: string) => void} progress
 * @returns {() => void} stops
 */
function watch(path, progress) {
  let stopped = false;
  const look = async () => {
    const { key_state: state } = await exchange(path).catch(() => ({ key_state: null }));
    if (stopped) return;
    if (state === "making") {
      progress("Keys are being made: this takes some seconds, and once.");
    } else if (state === "uploading") {
      progress("The evaluation keys go to the service, once: tens of megabytes.");
    } else if (state === "ready") {
      progress("The service evaluates the encrypted row: trees take seconds.");
    }
    setTimeout(() => stopped || look(), POLL_MILLISECONDS);
  };
  setTimeout(() => stopped || look(), POLL_MILLISECONDS / 2);
  return () => {
    stopped = true;
  };
}

/**
 * @param {string} url
 * @param {unknown} [body] posted as JSON
 * @returns {Promise<any>}
 */
async function exchange(url, body) {
  /** @type {RequestInit} */
  const request = { credentials: "omit", redirect: "error" };
  if (body !== undefined) {
    request.method = "POST";
    request.headers = { "Content-Type": "application/json" };
    request.body = JSON.stringify(body);
  }
  let answer, content;
  try {
    answer = await fetch(url, request);
    content = await answer.json();
  } catch {
    throw new KeyholderError(null, `no key holder answers at ${new URL(url).origin}`);
  }
  if (!answer.ok) {
    const detail = content?.detail ?? answer.statusText;
    // What it could not reach is the inference service, as for a page.
    if (answer.status === 503) throw new ServiceUnavailable(detail);
    throw new KeyholderError(answer.status, detail);
  }
  return content;
}
