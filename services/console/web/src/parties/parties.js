/** Who takes part, what each has, and what it never has. As the README's table says. */

/** What there is to see. */
export const THINGS = [
  "rows of a site",
  "a site's weights",
  "aggregate",
  "query in the clear",
  "keys",
  "result in the clear",
];

/**
 * Who can see what: "-" is nothing.
 *
 * @type {[who: string, ...sees: string[]][]}
 */
export const SIGHT = [
  ["dealer (simulation only)", "yes", "-", "-", "samples it holds out", "-", "-"],
  ["client", "its own", "its own", "yes", "-", "-", "-"],
  ["server, trainer, fleet", "-", "yes", "yes", "-", "-", "-"],
  ["enrolment, provision", "-", "-", "-", "-", "-", "-"],
  ["compiler", "-", "-", "yes", "-", "-", "-"],
  ["inference", "-", "-", "yes", "-", "-", "-"],
  ["gateway", "-", "-", "yes", "-", "-", "-"],
  ["key holder", "its samples", "-", "yes", "yes", "yes", "yes"],
  ["console", "-", "-", "-", "-", "-", "-"],
  ["observer of the federation's network", "-", "-", "-", "-", "-", "-"],
  ["observer of the serving or backend network", "-", "-", "yes", "-", "-", "-"],
];

/**
 * @typedef {object} Party
 * @property {string} id
 * @property {string} name
 * @property {[string, string]} short two lines of what it has
 * @property {"data" | "plain"} kind data: it has rows, inputs or keys
 * @property {string} has
 * @property {string} never
 * @property {string} [but] what to know beside that
 */

/** @type {Party[]} */
export const PARTIES = [
  {
    id: "client",
    name: "Site",
    short: ["its own rows, which", "never leave it"],
    kind: "data",
    has: "Its own rows, its own updates, a key with which it is known, and the model so far.",
    never: "Another site's rows or updates, and anybody's queries.",
    but: "It runs the code of its own image alone, whatever the server submits.",
  },
  {
    id: "fleet",
    name: "Fleet's address",
    short: ["updates that pass,", "on exact paths"],
    kind: "plain",
    has: "What passes between sites and SuperLink, decrypted and encrypted again.",
    never: "Rows, queries, keys of key holders.",
  },
  {
    id: "server",
    name: "SuperLink",
    short: ["updates of weights,", "for a while"],
    kind: "plain",
    has:
      "The messages of a run: the model out, updates back. Sites are let in by their public keys.",
    never: "Rows, queries, keys of key holders.",
    but: "Under secure aggregation it sees masked updates, of which the sum alone can be read.",
  },
  {
    id: "trainer",
    name: "Trainer",
    short: ["updates, and what", "becomes of them"],
    kind: "plain",
    has: "Updates and what sites measured, or sums alone under secure aggregation; the aggregate.",
    never: "Rows, queries, keys of key holders.",
    but: "It writes the model, its public card, and the events that the console shows.",
  },
  {
    id: "console",
    name: "Console",
    short: ["events of trainings,", "this page's files"],
    kind: "plain",
    has: "The events of trainings: counts, metrics, log lines. Files of this page.",
    never: "Rows, weights, ciphertexts, API keys: this page talks to the service by itself.",
    but: "Who serves a page's files decides what it does with what is entered: serve it yourself.",
  },
  {
    id: "compiler",
    name: "Compiler",
    short: ["the model; no data", "and no network"],
    kind: "plain",
    has: "The aggregate, which it makes a circuit on ciphertexts of.",
    never: "Any data: it calibrates from declared bounds. It is on no network.",
    but: "It publishes what real encrypted execution has proven equal to the clear alone.",
  },
  {
    id: "inference",
    name: "Inference",
    short: ["the circuit, and", "ciphertexts alone"],
    kind: "plain",
    has: "Circuits, ciphertexts while it evaluates them, evaluation keys, digests of API keys.",
    never: "Inputs, secret keys, scores, results.",
    but: "It could answer garbage: encryption hides, it does not authenticate.",
  },
  {
    id: "gateway",
    name: "Gateway",
    short: ["ciphertexts that", "pass, API keys"],
    kind: "plain",
    has: "What passes: ciphertexts, downloads, API keys in headers. It ends TLS.",
    never: "Inputs, secret keys, results.",
  },
  {
    id: "keyholder",
    name: "Key holder: this page",
    short: ["inputs, secret keys", "and results"],
    kind: "data",
    has: "What you enter, a fresh key for every query of a linear model, scores and results.",
    never: "Rows of any site.",
    but: "It can learn the model: one answer of a linear model gives its exact weights.",
  },
];
