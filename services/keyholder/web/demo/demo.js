/** The page: a model is opened, a row drawn or entered, and its answer shown. */

import { EncryptedModel } from "../src/index.js";
import { Drawing } from "../src/inputs/drawing.js";
import { fieldFor, ofBounds } from "../src/inputs/fields.js";

/** @import { Card, Feature } from "../src/card.js" */
/** @import { Answer } from "../src/model.js" */

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`the page has no ${id}`);
  return found;
}

const service = element("service", HTMLFormElement);
const query = element("query", HTMLFormElement);
const canvas = element("drawing", HTMLCanvasElement);
const fields = element("fields", HTMLDivElement);
const status = element("status", HTMLOutputElement);
const answered = element("answer", HTMLOutputElement);
const shares = element("probabilities", HTMLOListElement);

/** @type {EncryptedModel | null} */
let model = null;
/** @type {() => string[] | number[]} */
let readRow = () => [];
/** @type {() => void} */
let clear = () => {};

service.addEventListener("submit", (event) => {
  event.preventDefault();
  run(open);
});
query.addEventListener("submit", (event) => {
  event.preventDefault();
  run(predict);
});
query.addEventListener("reset", () => {
  clear();
  show(null);
});

/**
 * Do one thing at a time, and say what went wrong.
 *
 * @param {() => Promise<string>} action returns what to say
 */
async function run(action) {
  const buttons = document.querySelectorAll("button");
  buttons.forEach((button) => (button.disabled = true));
  status.className = "";
  status.textContent = "…";
  show(null);
  try {
    status.textContent = await action();
  } catch (error) {
    status.className = "error";
    status.textContent = error instanceof Error ? error.message : String(error);
  } finally {
    buttons.forEach((button) => (button.disabled = false));
  }
}

async function open() {
  query.hidden = true;
  model = await EncryptedModel.open(
    element("url", HTMLInputElement).value,
    element("model", HTMLInputElement).value,
    { apiKey: element("api-key", HTMLInputElement).value },
  );
  const { card, description } = model;
  offer(card);
  query.hidden = false;
  return `${card.name}, version ${description.version}: ${card.estimator} on ${card.data.dataset}`;
}

async function predict() {
  if (!model) return "Open a model first";
  const start = performance.now();
  const answer = await model.predict(readRow());
  const milliseconds = performance.now() - start;
  show(answer, model.card);
  return `Answered in ${milliseconds.toFixed(0)} ms, encryption and decryption included`;
}

/**
 * Offer what a row is entered with: a canvas for images, fields for tables.
 *
 * @param {Card} card
 */
function offer({ data: { features, imageShape } }) {
  canvas.hidden = !imageShape;
  fields.hidden = imageShape !== null;
  fields.replaceChildren();
  if (imageShape) {
    const drawing = new Drawing(canvas, imageShape);
    readRow = () => drawing.pixels().map((share, index) => ofBounds(share, features[index]));
    clear = () => drawing.clear();
  } else {
    const inputs = features.map(field);
    readRow = () => inputs.map((input) => input.value);
    clear = () => {};
  }
}

/** @param {Feature} feature */
function field(feature) {
  const label = document.createElement("label");
  const input = fieldFor(feature);
  label.append(feature.name, input);
  fields.append(label);
  return input;
}

/**
 * @param {Answer | null} answer
 * @param {Card} [card]
 */
function show(answer, card) {
  shares.replaceChildren();
  answered.textContent = answer ? String(answer.label ?? answer.value) : "";
  answer?.probabilities?.forEach((share, index) => {
    const item = document.createElement("li");
    const meter = document.createElement("meter");
    meter.value = share;
    item.append(String(card?.data.classes[index]), meter, `${(100 * share).toFixed(1)} %`);
    shares.append(item);
  });
}
