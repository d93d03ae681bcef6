/** A canvas to draw on, and the image on it in the model's pixels. */

/** Strokes are drawn in so many dots a pixel, and averaged. */
const DOTS = 8;
/** Of a stroke, in parts of the image's smaller side. */
const STROKE = 1 / 9;
/** Keys that move the pen, and by how many pixels down and across. */
const MOVES = new Map([
  ["ArrowUp", [-1, 0]],
  ["ArrowDown", [1, 0]],
  ["ArrowLeft", [0, -1]],
  ["ArrowRight", [0, 1]],
]);

/**
 * @typedef {object} Pen where the keyboard's pen is
 * @property {number} row of the image's pixels, from 0
 * @property {number} column
 * @property {boolean} isDown whether it draws as it moves
 */

/**
 * An image that a person draws: with a mouse, a finger or a pen, or, while the canvas has the focus,
 * with the arrow keys. The space bar puts the keyboard's pen down and lifts it.
 */
export class Drawing {
  #canvas;
  #context;
  #height;
  #width;
  /** @type {Pen} */
  #pen;
  #changed;
  #moved;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {[number, number]} shape height and width in pixels
   * @param {object} [told]
   * @param {() => void} [told.changed] called after the image has changed by hand
   * @param {(pen: Pen) => void} [told.moved] called when the keyboard's pen has moved
   */
  constructor(canvas, [height, width], { changed = () => {}, moved = () => {} } = {}) {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new Error("this browser does not draw");
    this.#canvas = canvas;
    this.#context = context;
    this.#height = height;
    this.#width = width;
    this.#pen = { row: Math.floor(height / 2), column: Math.floor(width / 2), isDown: false };
    this.#changed = changed;
    this.#moved = moved;
    canvas.height = height * DOTS;
    canvas.width = width * DOTS;
    canvas.onpointerdown = (event) => this.#begin(event);
    canvas.onpointermove = (event) => this.#go(event);
    canvas.onkeydown = (event) => this.#type(event);
    this.clear();
  }

  /** Start anew. */
  clear() {
    const { width, height } = this.#canvas;
    this.#context.fillStyle = "black";
    this.#context.fillRect(0, 0, width, height);
    this.#context.strokeStyle = "white";
    this.#context.lineCap = "round";
    this.#context.lineJoin = "round";
    this.#context.lineWidth = STROKE * Math.min(width, height);
  }

  /**
   * Show an image.
   *
   * @param {readonly number[]} pixels brightness of each, in row-major order, in [0, 1]; drawn in 256
   *   steps
   */
  show(pixels) {
    this.clear();
    pixels.forEach((share, pixel) => {
      const grey = Math.round(255 * Math.min(Math.max(share, 0), 1));
      this.#context.fillStyle = `rgb(${grey} ${grey} ${grey})`;
      const top = Math.floor(pixel / this.#width) * DOTS;
      this.#context.fillRect((pixel % this.#width) * DOTS, top, DOTS, DOTS);
    });
  }

  /**
   * Brightness of each pixel, in row-major order, in [0, 1].
   *
   * @returns {number[]}
   */
  pixels() {
    const stride = this.#width * DOTS;
    const { data } = this.#context.getImageData(0, 0, stride, this.#height * DOTS);
    return Array.from({ length: this.#height * this.#width }, (_, pixel) => {
      const top = Math.floor(pixel / this.#width) * DOTS;
      const left = (pixel % this.#width) * DOTS;
      let sum = 0;
      for (let y = top; y < top + DOTS; y++) {
        for (let x = left; x < left + DOTS; x++) sum += data[4 * (y * stride + x)] ?? 0;
      }
      return sum / (255 * DOTS * DOTS);
    });
  }

  /** @param {PointerEvent} event */
  #begin(event) {
    this.#canvas.setPointerCapture(event.pointerId);
    this.#context.beginPath();
    this.#context.moveTo(...this.#at(event));
    this.#go(event);
  }

  /** @param {PointerEvent} event */
  #go(event) {
    if (!event.buttons) return;
    this.#context.lineTo(...this.#at(event));
    this.#context.stroke();
    this.#changed();
  }

  /**
   * @param {PointerEvent} event
   * @returns {[number, number]}
   */
  #at({ offsetX, offsetY }) {
    const { width, height, clientWidth, clientHeight } = this.#canvas;
    return [offsetX * width / clientWidth, offsetY * height / clientHeight];
  }

  /** @param {KeyboardEvent} event */
  #type(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const before = this.#pen;
    const [down = 0, across = 0] = MOVES.get(event.key) ?? [];
    if (event.key === " ") this.#pen = { ...before, isDown: !before.isDown };
    else if (down || across) {
      this.#pen = {
        row: Math.min(Math.max(before.row + down, 0), this.#height - 1),
        column: Math.min(Math.max(before.column + across, 0), this.#width - 1),
        isDown: before.isDown,
      };
    } else return;
    event.preventDefault();
    if (this.#pen.isDown) {
      this.#context.beginPath();
      this.#context.moveTo(...middle(before));
      this.#context.lineTo(...middle(this.#pen));
      this.#context.stroke();
      this.#changed();
    }
    this.#moved(this.#pen);
  }
}

/**
 * @param {Pen} pen
 * @returns {[number, number]} across and down, in dots
 */
function middle({ row, column }) {
  return [(column + 0.5) * DOTS, (row + 0.5) * DOTS];
}
