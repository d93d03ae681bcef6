/** Curves by round. */

// @ts-types="/uplot/uPlot.d.ts"
import uPlot from "/uplot/uPlot.esm.js";
import { make } from "../dom.js";

const HEIGHT = 220;
const STEPS = [1, 2, 5].flatMap((step) => [1, 10, 100, 1000].map((times) => step * times)).sort(
  (one, other) => one - other,
);
/** Of sites' lines, told apart in light and dark. */
const COLOURS = ["#b8612f", "#3f8f6b", "#8a63c9", "#b0508a", "#7d8420", "#3b8ea5"];

/**
 * @typedef {object} Curve
 * @property {string} label
 * @property {boolean} [main]
 * @property {"step" | "line"} [form] a line by default
 * @property {(number | null)[]} values one a position
 *
 * @typedef {object} PlotData
 * @property {number[]} positions ascending
 * @property {Curve[]} curves
 * @property {string} [none] why there are no values
 * @property {string} summary in words, for those who do not see it
 */

/** A plot that follows its element's width and the colours of the page. */
export class Plot {
  /** @type {uPlot | null} */
  #plot = null;
  /** @type {PlotData | null} */
  #data = null;
  #made = "";
  #title;
  #digits;
  #box = make("div", { class: "plot-box", role: "group" });
  #none = make("p", { class: "muted plot-none" });

  /**
   * @param {string} title
   * @param {string} positions what they count
   * @param {number} digits of values
   */
  constructor(title, positions, digits) {
    this.#title = title;
    this.#digits = digits;
    this.element = make(
      "figure",
      { class: "card plot" },
      make(
        "figcaption",
        {},
        make("span", { class: "plot-title" }, title),
        make("span", { class: "muted small" }, positions),
      ),
      this.#box,
    );
    this.#box.append(this.#none);
    new ResizeObserver(() => this.#resize()).observe(this.#box);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#renew());
  }

  /** @param {PlotData} data */
  show(data) {
    this.#data = data;
    // An empty frame would look like a defect.
    const hasAny = data.curves.some(({ values }) => values.some((value) => value !== null));
    this.#none.hidden = hasAny;
    this.#none.textContent = hasAny ? "" : data.none ?? "Known after the first round.";
    this.#box.classList.toggle("no-values", !hasAny);
    this.#box.setAttribute("aria-label", `${this.#title}: ${data.summary}`);
    // What is drawn is made anew only where there are other curves.
    if (this.#made !== this.#form(data)) this.#renew();
    else this.#plot?.setData(columns(data));
  }

  /** @param {PlotData} data */
  #form({ curves }) {
    return JSON.stringify(curves.map(({ label, form }) => [label, form]));
  }

  #resize() {
    const width = this.#box.clientWidth;
    if (width && this.#plot && this.#plot.width !== width) {
      this.#plot.setSize({ width, height: HEIGHT });
    } else if (width && !this.#plot) this.#renew();
  }

  #renew() {
    this.#plot?.destroy();
    this.#plot = null;
    const width = this.#box.clientWidth;
    if (!this.#data || !width) return;
    this.#made = this.#form(this.#data);
    this.#plot = new uPlot(this.#options(this.#data, width), columns(this.#data), this.#box);
  }

  /**
   * @param {PlotData} data
   * @param {number} width
   * @returns {uPlot.Options}
   */
  #options({ curves }, width) {
    const style = getComputedStyle(document.documentElement);
    /** @param {string} name */
    const colour = (name) => style.getPropertyValue(name).trim();
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = {
      stroke: colour("--muted"),
      font,
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1, size: 4 },
    };
    return {
      width,
      height: HEIGHT,
      cursor: { drag: { x: false, y: false, setScale: false } },
      legend: { live: true },
      // A single round has a range too.
      scales: {
        x: { time: false, range: (_, low, high) => [low, Math.max(high, low + 1)] },
        y: { range: { min: { pad: 0.1, soft: 0, mode: 1 }, max: { pad: 0.1 } } },
      },
      axes: [
        { ...axis, incrs: STEPS, size: 32 },
        { ...axis, size: 56 },
      ],
      series: [
        { label: "at", value: (_, value) => (value === null ? "–" : String(value)) },
        ...curves.map(({ label, main, form }, index) => ({
          label,
          stroke: main ? colour("--accent") : COLOURS[index % COLOURS.length] ?? "gray",
          width: main ? 3 : 1.25,
          spanGaps: true,
          points: { show: true, size: main ? 7 : 5 },
          ...(form === "step" && uPlot.paths.stepped
            ? { paths: uPlot.paths.stepped({ align: 1 }) }
            : {}),
          value: (/** @type {uPlot} */ _, /** @type {number | null} */ value) =>
            value === null || value === undefined ? "–" : value.toFixed(this.#digits),
        })),
      ],
    };
  }
}

/**
 * @param {PlotData} data
 * @returns {uPlot.AlignedData}
 */
function columns({ positions, curves }) {
  return [positions, ...curves.map(({ values }) => values)];
}
