/** How far a training is, folded from its events. Nothing of an event is taken at its word. */

/**
 * @typedef {object} Measured of one model, by all sites or by one
 * @property {number | null} accuracy 0 to 1; of a classification
 * @property {number | null} absoluteError mean, in the target's unit; of a regression
 * @property {number | null} loss
 *
 * @typedef {Measured & { fitted: number | null, validated: number | null }} SiteMeasured
 *   rows it fitted and measured on
 *
 * @typedef {object} Round
 * @property {number} round from 1
 * @property {number} sites whose update is in it
 * @property {number} failures
 * @property {number | null} examples rows fitted
 * @property {number | null} epsilon spent so far
 * @property {number} seconds
 * @property {Measured} received of the model that sites received in this round
 *
 * @typedef {object} Line of the log
 * @property {string} time
 * @property {number} level as in Python's logging
 * @property {string} message
 */

/** Lines of the log that are kept. */
const LINES = 200;

export class Course {
  /** @type {Record<"model" | "dataset" | "estimator" | "strategy", string | null>} */
  about = { model: null, dataset: null, estimator: null, strategy: null };
  isRegression = false;
  secureAggregation = false;
  /** @type {number | null} of differential privacy; null: without */
  delta = null;
  /** @type {number | null} epsilon that may be spent */
  budget = null;
  /** @type {number | null} sites */
  expected = null;
  /** @type {number | null} sites that are there */
  present = null;
  /** @type {number | null} rounds in all */
  total = null;
  /** Rounds that an interrupted training had done before. */
  resumedAfter = 0;
  /** @type {number | null} */
  secondsLeft = null;
  /** @type {Round[]} ascending */
  rounds = [];
  /** @type {Measured | null} */
  final = null;
  /** @type {Map<string, Map<number, SiteMeasured>>} by site, by rounds that the model has had */
  sites = new Map();
  /** @type {{ round: number | null, replied: number, asked: number } | null} awaited now */
  replies = null;
  /** @type {number | null} */
  version = null;
  /** @type {string | null} why it failed */
  reason = null;
  /** @type {string | null} */
  began = null;
  /** @type {string | null} */
  lastTime = null;
  /** @type {Line[]} */
  log = [];

  get hasEnded() {
    return this.version !== null || this.reason !== null;
  }

  get done() {
    return this.rounds.at(-1)?.round ?? this.resumedAfter;
  }

  get epsilon() {
    return this.rounds.at(-1)?.epsilon ?? null;
  }

  /** Of the last model that was measured. */
  get measured() {
    return this.final ?? this.rounds.at(-1)?.received ?? null;
  }

  /**
   * Of every model that was measured, by the rounds that it has had.
   *
   * @returns {[number, Measured][]}
   */
  get models() {
    /** @type {[number, Measured][]} */
    const found = this.rounds.map(({ round, received }) => [round - 1, received]);
    if (this.final) found.push([this.done, this.final]);
    return found;
  }

  /**
   * Take over what an event tells.
   *
   * @param {Record<string, unknown>} event
   */
  take(event) {
    const time = text(event["time"]);
    this.began ??= time;
    this.lastTime = time ?? this.lastTime;
    switch (event["event"]) {
      case "waiting":
        this.expected = number(event["expected"]);
        this.about = {
          model: text(event["model"]),
          dataset: text(event["dataset"]),
          estimator: text(event["estimator"]),
          strategy: text(event["strategy"]),
        };
        this.isRegression = event["task"] === "regression";
        this.secureAggregation = event["secure_aggregation"] === true;
        this.delta = number(event["delta"]);
        this.budget = number(event["epsilon_budget"]);
        break;
      case "started":
        this.present = number(event["sites"]);
        this.expected = number(event["expected"]) ?? this.expected;
        this.total = number(event["rounds"]);
        break;
      case "resumed":
        this.resumedAfter = number(event["after"]) ?? 0;
        this.total = number(event["rounds"]) ?? this.total;
        break;
      case "replies":
        this.replies = {
          round: number(event["round"]),
          replied: number(event["replied"]) ?? 0,
          asked: number(event["asked"]) ?? 0,
        };
        break;
      case "sites":
        this.#takeSites(event);
        break;
      case "round":
        this.#takeRound(event);
        break;
      case "final":
        this.replies = null;
        this.present = number(event["sites"]) ?? this.present;
        this.final = measured(event);
        break;
      case "published":
        this.version = number(event["version"]);
        break;
      case "failed":
        this.reason = text(event["reason"]) ?? "";
        break;
      case "log":
        this.log.push({
          time: time ?? "",
          level: number(event["level"]) ?? 0,
          message: text(event["message"]) ?? "",
        });
        if (this.log.length > LINES) this.log.shift();
        break;
    }
  }

  /** @param {Record<string, unknown>} event */
  #takeRound(event) {
    const round = number(event["round"]);
    // Plots want them to ascend.
    if (round === null || round <= (this.rounds.at(-1)?.round ?? 0)) return;
    this.replies = null;
    this.total = number(event["rounds"]) ?? this.total;
    this.secondsLeft = number(event["seconds_left"]);
    this.present = number(event["sites"]) ?? this.present;
    this.rounds.push({
      round,
      sites: number(event["sites"]) ?? 0,
      failures: number(event["failures"]) ?? 0,
      examples: number(event["examples"]),
      epsilon: number(event["epsilon"]),
      seconds: number(event["seconds"]) ?? 0,
      received: measured(event),
    });
  }

  /** @param {Record<string, unknown>} event */
  #takeSites({ round, sites }) {
    const done = round === null ? this.done : (number(round) ?? 0) - 1;
    for (const one of Array.isArray(sites) ? sites : []) {
      const site = text(one?.["site"]);
      if (site === null) continue;
      const models = this.sites.get(site) ?? new Map();
      this.sites.set(site, models);
      models.set(done, {
        ...measured(one),
        fitted: number(one["num-examples"]),
        validated: number(one["validation-examples"]),
      });
    }
  }
}

/**
 * @param {Record<string, unknown>} event
 * @returns {Measured}
 */
function measured(event) {
  return {
    accuracy: number(event["accuracy"]),
    absoluteError: number(event["absolute_error"]),
    loss: number(event["loss"]),
  };
}

/** @param {unknown} value */
function number(value) {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** @param {unknown} value */
function text(value) {
  return typeof value === "string" ? value : null;
}
