/** A canvas to draw on, and the image on it in the model's pixels. */

/** Strokes are drawn in so many dots a pixel, and averaged. */
const DOTS = 8;
/** Of a stroke, in parts of the image's smaller side. */
const STROKE = 1 / 9;

/** An image that a person draws. */
export class Drawing {
  #canvas;
  #context;
  #height;
  #width;

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {[number, number]} shape height and width in pixels
   */
  constructor(canvas, [height, width]) {
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new Error("this browser does not draw");
    this.#canvas = canvas;
    this.#context = context;
    this.#height = height;
    this.#width = width;
    canvas.height = height * DOTS;
    canvas.width = width * DOTS;
    canvas.onpointerdown = (event) => this.#begin(event);
    canvas.onpointermove = (event) => this.#go(event);
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
  }

  /**
   * @param {PointerEvent} event
   * @returns {[number, number]}
   */
  #at({ offsetX, offsetY }) {
    const { width, height, clientWidth, clientHeight } = this.#canvas;
    return [offsetX * width / clientWidth, offsetY * height / clientHeight];
  }
}
