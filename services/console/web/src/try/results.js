/** The answer to a query, and what it took: as elements. */

import { draw, make } from "../dom.js";

/** @import { Answer, Card } from "/client/index.d.ts" */
/** @import { Comparison, Outcome, Times } from "./holders.js" */

/** Bytes in a row of a ciphertext's picture. */
const PICTURE_WIDTH = 64;

const whole = new Intl.NumberFormat("en");
const exact = new Intl.NumberFormat("en", {
  maximumSignificantDigits: 6,
  signDisplay: "negative",
});

/** @param {number} value */
export function shown(value) {
  return Number.isFinite(value) ? exact.format(value) : "more than a number holds";
}

/**
 * @param {Answer} answer
 * @param {Card} card
 */
export function headline({ label, value }, { data: { task } }) {
  return task === "regression" ? shown(value ?? NaN) : String(label);
}

/**
 * The decrypted answer: bars of the classes, or a value within its range.
 *
 * @param {Answer} answer
 * @param {Card} card
 */
export function answerView(answer, card) {
  const isRegression = card.data.task === "regression";
  return make(
    "div",
    { class: "answer" },
    make(
      "p",
      { class: "predicted" },
      make("span", { class: "muted small" }, isRegression ? "Predicted value" : "Predicted class"),
      make("output", { id: "predicted" }, headline(answer, card)),
    ),
    isRegression ? range(answer, card) : bars(answer, card),
  );
}

/**
 * @param {Answer} answer
 * @param {Card} card
 */
function bars({ label, probabilities, scores }, { data: { classes } }) {
  const each = probabilities ??
    (scores.length === 1 ? scores.flatMap((one) => [-one, one]) : scores);
  const largest = probabilities ? 1 : Math.max(...each.map(Math.abs), Number.MIN_VALUE);
  return make(
    "figure",
    { class: "bars" },
    make(
      "figcaption",
      { class: "small muted" },
      probabilities
        ? "Probabilities, decrypted here"
        : "Scores, decrypted here; this estimator has no probabilities",
    ),
    make(
      "ol",
      {},
      ...classes.map((name, index) => {
        const one = each[index] ?? NaN;
        const bar = make("span", { class: one < 0 ? "bar-fill below" : "bar-fill" });
        bar.style.width = `${100 * Math.abs(one) / largest}%`;
        return make(
          "li",
          name === label ? { class: "chosen" } : {},
          make("span", { class: "bar-name" }, String(name)),
          make("span", { class: "bar-track", "aria-hidden": "true" }, bar),
          make(
            "span",
            { class: "number" },
            probabilities ? `${(100 * one).toFixed(1)} %` : one.toFixed(2),
          ),
        );
      }),
    ),
  );
}

/**
 * @param {Answer} answer
 * @param {Card} card
 */
function range({ value }, { data: { target } }) {
  if (!target) return make("p", { class: "muted small" }, "The model's card has no range for it.");
  const { low, high } = target;
  const share = ((value ?? NaN) - low) / (high - low);
  const isInside = share >= 0 && share <= 1;
  const mark = make("span", { class: "range-mark" });
  mark.style.left = `${100 * Math.min(Math.max(share || 0, 0), 1)}%`;
  return make(
    "div",
    { class: "range" },
    make("div", { class: "range-track", "aria-hidden": "true" }, mark),
    make(
      "p",
      { class: "range-ends small muted" },
      make("span", {}, shown(low)),
      make("span", {}, isInside ? "the declared range" : "outside of the declared range"),
      make("span", {}, shown(high)),
    ),
  );
}

/**
 * What the server received of the row.
 *
 * @param {Outcome["sent"]} sent
 * @param {Outcome["sent"] | null} before of the same row, where it was asked before
 */
export function receivedView(sent, before) {
  return make(
    "div",
    {},
    make(
      "dl",
      { class: "facts" },
      make("div", {}, make("dt", {}, "Received"), make("dd", {}, bytes(sent.bytesUp))),
      make("div", {}, make("dt", {}, "Sent back"), make("dd", {}, bytes(sent.bytesDown))),
    ),
    make(
      "div",
      { class: "pictures" },
      picture(sent, before ? "This query" : "The ciphertext's bytes", "ciphertext"),
      before && picture(before, "The query before, of the same row", "ciphertext-before"),
    ),
    before && make(
      "p",
      { id: "differing" },
      `${whole.format(differing(sent.head, before.head))} of ${
        whole.format(sent.head.length)
      } bytes differ between the two: the same row, encrypted anew.`,
    ),
    make(
      "p",
      { class: "small muted" },
      "Each byte is a pixel, from black to white. At the picture's ends is the message's outer form, " +
        "the same for every query; between them is ciphertext, which tells nothing of the row " +
        "without the key.",
    ),
  );
}

/**
 * @param {Outcome["sent"]} sent
 * @param {string} caption
 * @param {string} id
 */
function picture({ head, sha256, bytesUp }, caption, id) {
  const height = Math.ceil(head.length / PICTURE_WIDTH);
  const canvas = make("canvas", {
    id,
    class: "bytes",
    width: PICTURE_WIDTH,
    height,
    role: "img",
    "aria-label": `${caption}: ${whole.format(head.length)} bytes as grey pixels`,
  });
  const context = canvas.getContext("2d");
  if (context) {
    const image = context.createImageData(PICTURE_WIDTH, height);
    head.forEach((byte, index) => {
      image.data.fill(byte, 4 * index, 4 * index + 3);
      image.data[4 * index + 3] = 255;
    });
    context.putImageData(image, 0, 0);
  }
  const shown = head.length < bytesUp ? `, its first ${whole.format(head.length)} bytes` : "";
  return make(
    "figure",
    {},
    make("figcaption", { class: "small muted" }, `${caption}${shown}`),
    canvas,
    make("p", { class: "digest small" }, "SHA-256 ", make("code", {}, sha256)),
  );
}

/**
 * @param {Uint8Array} one
 * @param {Uint8Array} other
 */
function differing(one, other) {
  return one.reduce((count, byte, index) => count + (byte === other[index] ? 0 : 1), 0);
}

/** @param {number} count */
function bytes(count) {
  return `${whole.format(count)} bytes`;
}

/**
 * Where the time went, as one bar and its parts.
 *
 * @param {Times} times
 * @param {"page" | "keyholder"} where the key is
 */
export function timesView(times, where) {
  const holder = where === "page" ? "this page" : "the key holder";
  const network = times.evaluate === null ? "network and evaluation" : "network and queue";
  const parts = [
    { name: "keys and waiting", note: "once", kind: "prepare", time: times.preparing },
    {
      name: "encrypt",
      note: where === "page" ? `${holder}, under a new key` : holder,
      kind: "encrypt",
      time: times.encrypt,
    },
    { name: network, note: "ciphertexts there and back", kind: "network", time: times.network },
    { name: "evaluate", note: "the service, encrypted", kind: "evaluate", time: times.evaluate },
    { name: "decrypt", note: holder, kind: "decrypt", time: times.decrypt },
  ].filter(({ kind, time }) => time !== null && (kind !== "prepare" || time >= 100));
  const total = parts.reduce((sum, { time }) => sum + (time ?? 0), 0);
  const bar = draw("svg", {
    class: "times",
    viewBox: "0 0 1000 24",
    preserveAspectRatio: "none",
    "aria-hidden": "true",
  });
  let start = 0;
  for (const { kind, time } of parts) {
    const width = 1000 * (time ?? 0) / (total || 1);
    bar.append(draw("rect", { class: `time-${kind}`, x: start, y: 0, width, height: 24 }));
    start += width;
  }
  return make(
    "div",
    {},
    bar,
    make(
      "table",
      { id: "times" },
      make("caption", { class: "visually-hidden" }, "Milliseconds of the query"),
      make(
        "tbody",
        {},
        ...parts.map(({ name, note, kind, time }) =>
          make(
            "tr",
            { class: kind },
            make("th", { scope: "row" }, make("span", { class: `key time-${kind}` }), name),
            make("td", { class: "muted small" }, note),
            make("td", { class: "number" }, `${milliseconds(time ?? 0)} ms`),
          )
        ),
        make(
          "tr",
          { class: "total" },
          make("th", { scope: "row" }, make("span", { class: "key" }), "together"),
          make("td", {}),
          make("td", { class: "number" }, `${milliseconds(total)} ms`),
        ),
      ),
    ),
  );
}

/** @param {number} value */
function milliseconds(value) {
  if (value < 10) return value.toFixed(2);
  return value < 100 ? value.toFixed(1) : whole.format(Math.round(value));
}

/**
 * The same row in the clear, by the published reference.
 *
 * @param {Answer} answer
 * @param {Comparison | null} clear
 * @param {Card} card
 * @param {"page" | "keyholder"} where it was computed
 */
export function comparisonView(answer, clear, card, where) {
  if (!clear) {
    return make(
      "p",
      { class: "muted" },
      "The service publishes no reference for this version (the compiler's setting ",
      make("code", {}, "CLOISTER_PUBLISH_REFERENCE"),
      "), so there is nothing to compare the encrypted answer with.",
    );
  }
  const rows = /** @type {[string, Answer][]} */ ([
    ["encrypted", answer],
    ["quantised, in the clear", clear.quantised],
    ["as it was trained (float)", clear.float],
  ]);
  return make(
    "div",
    {},
    make(
      "p",
      { id: "equal" },
      "Encrypted and clear integers equal, bit by bit: ",
      make("span", { class: clear.equal ? "tag good" : "tag bad" }, clear.equal ? "yes" : "no"),
    ),
    clear.equal ? null : make(
      "p",
      { class: "notice bad", role: "alert" },
      "The service did not compute what it published. Encryption hides a row; it does not prove who " +
        "computed an answer.",
    ),
    make(
      "div",
      { class: "scroll" },
      make(
        "table",
        { id: "comparison" },
        make(
          "thead",
          {},
          make(
            "tr",
            {},
            make("th", { scope: "col" }, "execution"),
            make("th", { scope: "col", class: "number" }, "answer"),
            make("th", { scope: "col", class: "number" }, measure(answer, card)),
          ),
        ),
        make(
          "tbody",
          {},
          ...rows.map(([name, one]) =>
            make(
              "tr",
              {},
              make("th", { scope: "row" }, name),
              make("td", { class: "number" }, headline(one, card)),
              make("td", { class: "number" }, certainty(one, answer, card)),
            )
          ),
        ),
      ),
    ),
    make(
      "p",
      { class: "small muted" },
      `Computed by ${
        where === "page" ? "this page" : "the key holder"
      } from the reference that the service publishes: the row was not sent in the clear.`,
    ),
  );
}

/**
 * @param {Answer} answer
 * @param {Card} card
 */
function measure({ label, probabilities }, { data: { task } }) {
  if (task === "regression") return "score";
  return probabilities ? `probability of ${label}` : `score of ${label}`;
}

/**
 * @param {Answer} one
 * @param {Answer} asked whose class is compared
 * @param {Card} card
 */
function certainty({ probabilities, scores }, { label }, { data: { classes } }) {
  const index = classes.findIndex((name) => name === label);
  if (probabilities) return `${(100 * (probabilities[index] ?? NaN)).toFixed(3)} %`;
  return shown(scores[scores.length === 1 ? 0 : index] ?? NaN);
}
