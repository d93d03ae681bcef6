/** The flow as a picture, in a wide and in a narrow arrangement. */

import { draw } from "../dom.js";
import { PARTIES } from "./parties.js";

/**
 * @typedef {[x: number, y: number]} Point
 *
 * @typedef {object} Arrow
 * @property {Point[]} points
 * @property {string} label
 * @property {Point} at where the label is
 * @property {"start" | "middle" | "end"} anchor
 * @property {boolean} [both] it has two heads
 *
 * @typedef {object} Arrangement
 * @property {string} name
 * @property {[width: number, height: number]} size
 * @property {[width: number, height: number]} box
 * @property {Record<string, Point>} places upper left corners, by party
 * @property {Arrow[]} arrows
 */

const TITLE = "Who sees what";
const DESCRIPTION =
  "Sites keep their rows and send updates of weights through the fleet's address to the SuperLink " +
  "and the trainer. The trainer's model goes to the compiler, and the proven circuit to inference. " +
  "The key holder, this page, sends ciphertexts through the gateway to inference and decrypts the " +
  "ciphertexts that come back. The console reads the trainer's events.";

/** @type {Arrangement} */
const WIDE = {
  name: "wide",
  size: [1040, 376],
  box: [168, 84],
  places: {
    client: [16, 8],
    fleet: [304, 8],
    server: [504, 8],
    trainer: [704, 8],
    console: [864, 146],
    compiler: [604, 146],
    inference: [604, 288],
    gateway: [304, 288],
    keyholder: [16, 288],
  },
  arrows: [
    {
      points: [[184, 50], [304, 50]],
      label: "updates",
      at: [244, 40],
      anchor: "middle",
      both: true,
    },
    { points: [[472, 50], [504, 50]], label: "", at: [0, 0], anchor: "middle", both: true },
    { points: [[672, 50], [704, 50]], label: "", at: [0, 0], anchor: "middle", both: true },
    { points: [[740, 92], [740, 146]], label: "model", at: [732, 124], anchor: "end" },
    {
      points: [[788, 92], [788, 118], [948, 118], [948, 146]],
      label: "events",
      at: [868, 112],
      anchor: "middle",
    },
    { points: [[688, 230], [688, 288]], label: "circuit, proven", at: [698, 264], anchor: "start" },
    {
      points: [[184, 330], [304, 330]],
      label: "ciphertexts",
      at: [244, 320],
      anchor: "middle",
      both: true,
    },
    {
      points: [[472, 330], [604, 330]],
      label: "ciphertexts",
      at: [538, 320],
      anchor: "middle",
      both: true,
    },
  ],
};

/** @type {Arrangement} */
const NARROW = narrow();

/** @returns {Arrangement} */
function narrow() {
  const [width, height, gap] = [154, 76, 42];
  const order = [
    "client",
    "fleet",
    "server",
    "trainer",
    "compiler",
    "inference",
    "gateway",
    "keyholder",
  ];
  const labels = ["updates", "", "", "model", "circuit, proven", "ciphertexts", "ciphertexts"];
  /** @type {Record<string, Point>} */
  const places = {};
  order.forEach((id, index) => (places[id] = [8, 8 + index * (height + gap)]));
  const trainer = places["trainer"] ?? [0, 0];
  places["console"] = [190, trainer[1]];
  /** @type {Arrow[]} */
  const arrows = labels.map((label, index) => {
    const from = 8 + index * (height + gap) + height;
    return {
      points: [[80, from], [80, from + gap]],
      label,
      at: [92, from + gap / 2 + 5],
      anchor: "start",
      both: label !== "model" && label !== "circuit, proven",
    };
  });
  arrows.push({
    points: [[162, trainer[1] + height / 2], [190, trainer[1] + height / 2]],
    label: "events",
    at: [176, trainer[1] - 6],
    anchor: "middle",
  });
  return {
    name: "narrow",
    size: [352, 8 + order.length * (height + gap) - gap + 8],
    box: [width, height],
    places,
    arrows,
  };
}

/** Both, of which the style shows one. */
export function pictures() {
  return [WIDE, NARROW].map(picture);
}

/** @param {Arrangement} arrangement */
function picture({ name, size, box, places, arrows }) {
  const head = `head-${name}`;
  return draw(
    "svg",
    {
      class: `flow ${name}`,
      viewBox: `0 0 ${size[0]} ${size[1]}`,
      role: "img",
      "aria-labelledby": `flow-title-${name} flow-description-${name}`,
    },
    draw("title", { id: `flow-title-${name}` }, TITLE),
    draw("desc", { id: `flow-description-${name}` }, DESCRIPTION),
    draw(
      "defs",
      {},
      draw(
        "marker",
        {
          id: head,
          viewBox: "0 0 10 10",
          refX: 9,
          refY: 5,
          markerWidth: 7,
          markerHeight: 7,
          orient: "auto-start-reverse",
        },
        draw("path", { d: "M0 0 10 5 0 10z", class: "flow-head" }),
      ),
    ),
    ...arrows.map((arrow) => drawArrow(arrow, head)),
    ...PARTIES.map((party) => drawParty(party, places[party.id] ?? [0, 0], box)),
  );
}

/**
 * @param {Arrow} arrow
 * @param {string} head
 */
function drawArrow({ points, label, at, anchor, both }, head) {
  return draw(
    "g",
    {},
    draw("polyline", {
      class: "flow-arrow",
      points: points.map((point) => point.join(",")).join(" "),
      "marker-end": `url(#${head})`,
      "marker-start": both ? `url(#${head})` : false,
    }),
    draw("text", { class: "flow-label", x: at[0], y: at[1], "text-anchor": anchor }, label),
  );
}

/**
 * @param {import("./parties.js").Party} party
 * @param {Point} place
 * @param {[number, number]} box
 */
function drawParty({ name, short, kind }, [x, y], [width, height]) {
  return draw(
    "g",
    { class: `flow-party ${kind}` },
    draw("rect", { x, y, width, height, rx: 8 }),
    draw("text", { class: "flow-name", x: x + 10, y: y + 25 }, name.split(":")[0] ?? name),
    ...short.map((line, index) =>
      draw("text", { class: "flow-short", x: x + 10, y: y + 46 + index * 18 }, line)
    ),
  );
}
