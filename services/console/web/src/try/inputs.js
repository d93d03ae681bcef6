/** What a row is entered with: a canvas for images, a field for each feature of a table. */

import { described } from "/client/src/index.js";
import { Drawing } from "/client/src/inputs/drawing.js";
import { fieldFor, ofBounds } from "/client/src/inputs/fields.js";
import { make } from "../dom.js";

/** @import { Card, Cell } from "/client/index.d.ts" */

/**
 * @typedef {object} RowInput
 * @property {HTMLElement} element
 * @property {() => Cell[]} row what is entered, in the features' order
 * @property {(row: Cell[]) => void} fill shows a row
 * @property {() => void} clear
 * @property {(name: string | null) => void} mark says which feature's value was refused; null: none
 */

/**
 * @param {Card} card
 * @param {() => void} changed called when the row is another by hand
 * @returns {RowInput}
 */
export function rowInput(card, changed) {
  return card.data.imageShape
    ? imageInput(card, card.data.imageShape, changed)
    : tableInput(card, changed);
}

/**
 * @param {Card} card
 * @param {[number, number]} shape
 * @param {() => void} changed
 * @returns {RowInput}
 */
function imageInput({ data: { features, pool } }, shape, changed) {
  const [height, width] = shape;
  const canvas = make("canvas", {
    id: "drawing",
    tabindex: 0,
    role: "application",
    "aria-label": "Drawing area",
    "aria-describedby": "drawing-help",
  });
  const cursor = make("span", { class: "pen", hidden: true });
  const spoken = make("p", { class: "visually-hidden", role: "status" });
  const preview = make("canvas", {
    class: "preview",
    width: width / pool,
    height: height / pool,
    role: "img",
    "aria-label": "The image in the model's pixels",
  });
  // What was pasted goes as it is, not in the 256 steps of a canvas, until something is drawn.
  /** @type {Cell[] | null} */
  let given = null;
  const drawing = new Drawing(canvas, shape, {
    changed: () => {
      given = null;
      show();
      changed();
    },
    moved: ({ row, column, isDown }) => {
      cursor.hidden = false;
      cursor.style.width = `${100 / width}%`;
      cursor.style.height = `${100 / height}%`;
      cursor.style.left = `${100 * column / width}%`;
      cursor.style.top = `${100 * row / height}%`;
      cursor.classList.toggle("down", isDown);
      spoken.textContent = `Row ${row + 1}, column ${column + 1}, pen ${isDown ? "down" : "up"}`;
    },
  });
  canvas.addEventListener("blur", () => (cursor.hidden = true));

  function show() {
    pooled(drawing.pixels(), shape, pool, preview);
  }
  show();
  return {
    element: make(
      "div",
      { class: "image" },
      make("div", { class: "sheet" }, canvas, cursor),
      make(
        "div",
        { class: "beside" },
        preview,
        make(
          "p",
          { class: "small muted" },
          `${height / pool} × ${width / pool}: what is encrypted`,
        ),
        make(
          "p",
          { id: "drawing-help", class: "small muted" },
          "Draw with a mouse or a finger. By keyboard: arrow keys move the pen, the space bar puts " +
            "it down and lifts it.",
        ),
      ),
      spoken,
    ),
    row: () => given ?? drawing.pixels().map((share, index) => ofBounds(share, features[index])),
    fill: (row) => {
      given = row;
      drawing.show(row.map((cell, index) => shareOf(Number(cell), features[index])));
      show();
    },
    clear: () => {
      given = null;
      drawing.clear();
      show();
    },
    mark: () => {},
  };
}

/**
 * @param {number} value
 * @param {Card["data"]["features"][number] | undefined} feature
 */
function shareOf(value, feature) {
  if (!feature || "categories" in feature || !Number.isFinite(value)) return 0;
  return (value - feature.low) / (feature.high - feature.low);
}

/**
 * Show what becomes of an image: means of square blocks of pixels.
 *
 * @param {number[]} pixels in [0, 1]
 * @param {[number, number]} shape
 * @param {number} pool pixels of a block's side
 * @param {HTMLCanvasElement} canvas
 */
function pooled(pixels, [, width], pool, canvas) {
  const context = canvas.getContext("2d");
  if (!context) return;
  const means = new Float64Array(canvas.width * canvas.height);
  pixels.forEach((share, pixel) => {
    const row = Math.floor(Math.floor(pixel / width) / pool);
    const block = row * canvas.width + Math.floor((pixel % width) / pool);
    means[block] = (means[block] ?? 0) + share / pool ** 2;
  });
  const image = context.createImageData(canvas.width, canvas.height);
  means.forEach((mean, block) => {
    image.data.fill(Math.round(255 * mean), 4 * block, 4 * block + 3);
    image.data[4 * block + 3] = 255;
  });
  context.putImageData(image, 0, 0);
}

/**
 * @param {Card} card
 * @param {() => void} changed
 * @returns {RowInput}
 */
function tableInput({ data: { features }, outOfBounds }, changed) {
  const inputs = features.map(fieldFor);
  const labels = features.map((feature, index) => {
    const input = /** @type {HTMLElement} */ (inputs[index]);
    const hint = `hint-${index}`;
    input.removeAttribute("title");
    input.setAttribute("aria-describedby", hint);
    return make(
      "label",
      {},
      make("span", { class: "field-name" }, feature.name),
      input,
      make("span", { id: hint, class: "hint" }, hintOf(feature)),
    );
  });
  const element = make("div", { class: "fields" }, ...labels);
  element.addEventListener("input", (event) => {
    if (event.target instanceof Element) event.target.removeAttribute("aria-invalid");
    changed();
  });
  return {
    element: make(
      "div",
      {},
      element,
      make(
        "p",
        { class: "small muted" },
        outOfBounds === "clip"
          ? "This model moves numbers outside of their bounds to the nearer bound."
          : "This model refuses numbers outside of their bounds.",
      ),
    ),
    row: () => inputs.map((input) => input.value),
    fill: (row) => {
      inputs.forEach((input, index) => {
        const feature = features[index];
        const cell = row[index] ?? "";
        input.value = String(cell);
        // A select shows nothing for what it does not offer: the value goes as the service names it.
        if (feature && "categories" in feature && input.value !== String(cell)) {
          input.value = feature.categories.map(String).find((one) =>
            Number(one) === Number(cell)
          ) ??
            (feature.unknown === "ignore" ? "(none of these)" : "");
        }
        input.removeAttribute("aria-invalid");
      });
    },
    clear: () => {
      inputs.forEach((input) => {
        if (input instanceof HTMLSelectElement) input.selectedIndex = 0;
        else input.value = "";
        input.removeAttribute("aria-invalid");
      });
    },
    mark: (name) => {
      inputs.forEach((input) => input.removeAttribute("aria-invalid"));
      const refused = inputs.find((input) => input.name === name);
      refused?.setAttribute("aria-invalid", "true");
      refused?.focus();
    },
  };
}

/** @param {Card["data"]["features"][number]} feature */
function hintOf(feature) {
  const missing = feature.missing === null ? "" : `; left empty, it counts as ${feature.missing}`;
  if ("categories" in feature) return `one of ${feature.categories.length}${missing}`;
  return `${described(feature)}${missing}`;
}
