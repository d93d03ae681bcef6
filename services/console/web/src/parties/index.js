/** The tab of who sees what: the flow as a picture, and each party with what it has. */

import { make } from "../dom.js";
import { PARTIES, SIGHT, THINGS } from "./parties.js";
import { pictures } from "./picture.js";

/** @import { Context } from "../context.js" */

/**
 * @param {HTMLElement} element
 * @param {Context} _context
 */
export function mount(element, _context) {
  element.append(
    make("h1", {}, "Who sees what"),
    make(
      "p",
      { class: "lead" },
      "Rows stay at their sites, and inputs, keys and results with whoever holds the key. Between " +
        "them go updates of weights, a model, and ciphertexts. Boxes with a heavy border have data.",
    ),
    make("div", { class: "card flow-card" }, ...pictures()),
    make(
      "div",
      { class: "grid parties" },
      ...PARTIES.map(({ id, name, kind, has, never, but }) =>
        make(
          "section",
          { class: `card party ${kind}`, "aria-labelledby": `party-${id}` },
          make("h2", { id: `party-${id}` }, name),
          make(
            "dl",
            {},
            make("dt", {}, "Has"),
            make("dd", {}, has),
            make("dt", {}, "Never sees"),
            make("dd", {}, never),
          ),
          but === undefined ? null : make("p", { class: "muted small" }, but),
        )
      ),
    ),
    make(
      "section",
      { class: "card", "aria-labelledby": "sight" },
      make("h2", { id: "sight" }, "In a table"),
      sight(),
      make(
        "p",
        { class: "muted small" },
        "With plain federated averaging. Secure aggregation hides a site's weights from the server, " +
          "trainer and fleet in a sum; differential privacy bounds what the aggregate tells of one site.",
      ),
    ),
    make(
      "section",
      { class: "card", "aria-labelledby": "not" },
      make("h2", { id: "not" }, "What it does not protect"),
      make(
        "ul",
        {},
        make("li", {}, "The model, from the key holder: answers tell its weights."),
        make(
          "li",
          {},
          "The key, from a server that learns decrypted results: so every query of a linear model " +
            "has a fresh key, and neither scores nor failures go back.",
        ),
        make(
          "li",
          {},
          "Integrity: a dishonest server can answer garbage. Encryption hides, it does not authenticate.",
        ),
        make("li", {}, "The model, from a site that lies, unless the strategy survives it."),
      ),
    ),
  );
}

function sight() {
  return make(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Who can see what" },
    make(
      "table",
      { class: "sight" },
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          ...["", ...THINGS].map((thing) => make("th", { scope: "col" }, thing)),
        ),
      ),
      make(
        "tbody",
        {},
        ...SIGHT.map(([who, ...sees]) =>
          make(
            "tr",
            {},
            make("th", { scope: "row" }, who),
            ...sees.map((one) => make("td", one === "-" ? { class: "none" } : {}, one)),
          )
        ),
      ),
    ),
  );
}
