/** The course of one training, for people. */

import { make } from "../dom.js";
import { count, counted, duration, fixed, moment, NONE, significant } from "../text.js";
import { Plot } from "./plots.js";

/** @import { Course, Measured } from "./course.js" */
/** @import { Curve } from "./plots.js" */
/** @import { Summary } from "./feed.js" */

/** As many sites have a line each. */
const LINES = 8;
const WARNING = 30;

export class CourseView {
  #facts = make("dl", { class: "facts" });
  #budget = make("div", { class: "budget", hidden: true });
  #quality = new Plot("Accuracy", "by rounds that the model has had", 4);
  #loss = new Plot("Loss", "by rounds that the model has had", 4);
  #seconds = new Plot("Seconds a round", "by round", 1);
  #present = new Plot("Sites in a round", "by round", 0);
  #epsilon = new Plot("Epsilon spent", "by round", 3);
  #sites = make("section", { class: "card" });
  #rounds = make("details", { class: "card" });
  #log = make("details", { class: "card" });
  #isRegression = false;
  #plots = make("div", { class: "grid plots" });
  element = make(
    "div",
    {},
    make("section", { class: "card", "aria-label": "In short" }, this.#facts, this.#budget),
    this.#plots,
    this.#sites,
    this.#rounds,
    this.#log,
  );

  constructor() {
    this.#rounds.append(make("summary", {}, "All rounds in numbers"), make("div"));
    this.#log.append(make("summary", {}, "Log"), make("div"));
    this.#arrange();
  }

  #arrange() {
    this.#plots.replaceChildren(
      this.#quality.element,
      this.#loss.element,
      this.#seconds.element,
      this.#present.element,
      this.#epsilon.element,
    );
  }

  /**
   * Show how far it is.
   *
   * @param {Course} course
   * @param {Summary["state"]} reached
   * @returns {string} the same in a sentence
   */
  show(course, reached) {
    if (course.isRegression !== this.#isRegression) {
      this.#isRegression = course.isRegression;
      this.#quality = new Plot("Mean absolute error", "by rounds that the model has had", 3);
      this.#arrange();
    }
    this.#showFacts(course);
    this.#showBudget(course);
    this.#showPlots(course);
    this.#showSites(course);
    this.#showRounds(course);
    this.#showLog(course);
    return sentence(course, reached);
  }

  /** @param {Course} course */
  #showFacts(course) {
    const { about, rounds } = course;
    const later = rounds.slice(1);
    const timed = later.length ? later : rounds;
    const mean = timed.reduce((sum, { seconds }) => sum + seconds, 0) / timed.length;
    const sites = course.present === null ? NONE : `${course.present} of ${count(course.expected)}`;
    /** @type {[string, string][]} */
    const facts = [
      ["Model", about.model ?? NONE],
      ["Estimator", about.estimator ?? NONE],
      ["Strategy", about.strategy ?? NONE],
      ["Rounds", `${course.done} of ${count(course.total)}`],
      ["Sites present", sites],
      [course.isRegression ? "Mean absolute error" : "Accuracy", quality(course.measured)],
      ["Loss", fixed(course.measured?.loss, 4)],
      ["Seconds a round", timed.length ? duration(mean) : NONE],
      ["Secure aggregation", course.secureAggregation ? "yes" : "no"],
      ["Differential privacy", privacy(course)],
      ["Began", moment(course.began)],
      ["Version", course.version === null ? NONE : String(course.version)],
    ];
    update(
      this.#facts,
      facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))),
    );
  }

  /** @param {Course} course */
  #showBudget({ epsilon, budget, delta }) {
    this.#budget.hidden = delta === null || budget === null;
    if (this.#budget.hidden || budget === null) return;
    const share = Math.min((epsilon ?? 0) / budget, 1);
    const told = `epsilon ${significant(epsilon ?? 0)} of ${significant(budget)} spent`;
    const meter = make("meter", { min: 0, max: 1, high: 0.9, optimum: 0, value: share });
    meter.setAttribute("aria-label", told);
    update(this.#budget, [make("span", {}, "Privacy budget"), meter, make("span", {}, told)]);
  }

  /** @param {Course} course */
  #showPlots(course) {
    const models = course.models;
    const positions = models.map(([done]) => done);
    /** @param {(one: Measured) => number | null} of */
    const curves = (of) => [
      ...siteCurves(course, positions, of),
      { label: "all sites", main: true, values: models.map(([, one]) => of(one)) },
    ];
    /** @type {(one: Measured) => number | null} */
    const ofQuality = (one) => course.isRegression ? one.absoluteError : one.accuracy;
    const none = course.delta === null
      ? "Known after the first round."
      : "Under differential privacy sites report nothing that they measure.";
    this.#quality.show({
      positions,
      none,
      curves: curves(ofQuality),
      summary: `${quality(course.measured)} after ${counted(course.done, "round")}`,
    });
    this.#loss.show({
      positions,
      none,
      curves: curves((one) => one.loss),
      summary: `${fixed(course.measured?.loss, 4)} after ${counted(course.done, "round")}`,
    });
    const rounds = course.rounds.map(({ round }) => round);
    const last = course.rounds.at(-1);
    this.#seconds.show({
      positions: rounds,
      curves: [{
        label: "seconds",
        main: true,
        values: course.rounds.map(({ seconds }) => seconds),
      }],
      summary: last ? `${fixed(last.seconds, 1)} in the last round` : "no round yet",
    });
    this.#present.show({
      positions: rounds,
      curves: [
        { label: "without a valid reply", values: course.rounds.map(({ failures }) => failures) },
        { label: "in it", main: true, values: course.rounds.map(({ sites }) => sites) },
      ],
      summary: last ? `${last.sites} in the last round, ${last.failures} failed` : "no round yet",
    });
    const isPrivate = course.delta !== null;
    this.#epsilon.element.hidden = !isPrivate;
    if (!isPrivate) return;
    const budget = course.budget;
    this.#epsilon.show({
      positions: rounds,
      curves: [
        ...(budget === null ? [] : [{ label: "budget", values: rounds.map(() => budget) }]),
        { label: "epsilon", main: true, values: course.rounds.map(({ epsilon }) => epsilon) },
      ],
      summary: `${significant(course.epsilon)} spent of ${
        budget === null ? "no stated budget" : significant(budget)
      }`,
    });
  }

  /** @param {Course} course */
  #showSites(course) {
    const title = make("h2", {}, "By site");
    if (course.sites.size === 0) {
      update(this.#sites, [title, make("p", { class: "muted" }, whyNoSites(course))]);
      return;
    }
    const rows = named(course).map(([name, site, models]) => {
      const last = [...models.values()].at(-1);
      return [
        make("abbr", { title: `node ${site}` }, name),
        count(last?.fitted),
        count(last?.validated),
        quality(last ?? null),
        fixed(last?.loss, 4),
      ];
    });
    const measured = course.isRegression ? "Mean absolute error" : "Accuracy";
    update(this.#sites, [
      title,
      make(
        "p",
        { class: "muted small" },
        "What each site measured last, on rows that it keeps for that. The trainer knows sites by a " +
          "number, which shows beside a name.",
      ),
      table(["Site", "Rows fitted", "Rows measured on", measured, "Loss"], rows),
    ]);
  }

  /** @param {Course} course */
  #showRounds(course) {
    const measured = course.isRegression ? "Mean absolute error" : "Accuracy";
    const rows = course.rounds.map((one) => [
      String(one.round),
      String(one.sites),
      String(one.failures),
      count(one.examples),
      quality(one.received),
      fixed(one.received.loss, 4),
      significant(one.epsilon),
      fixed(one.seconds, 1),
    ]);
    const { final } = course;
    if (final) rows.push(["final", "", "", "", quality(final), fixed(final.loss, 4), "", ""]);
    const columns = ["Round", "Sites", "Failed", "Rows", measured, "Loss", "Epsilon", "Seconds"];
    const told = make(
      "p",
      { class: "muted small" },
      "A round measures the model that sites received in it: the first one, that before any training.",
    );
    this.#rounds.lastElementChild?.replaceChildren(told, table(columns, rows));
  }

  /** @param {Course} course */
  #showLog({ log }) {
    const warnings = log.filter(({ level }) => level >= WARNING).length;
    const summary = this.#log.querySelector("summary");
    const told = `Log${warnings ? `, ${counted(warnings, "warning")}` : ""}`;
    if (summary && summary.textContent !== told) summary.textContent = told;
    const items = log.toReversed().map(({ time, level, message }) =>
      make(
        "li",
        level >= WARNING ? { class: "warning" } : {},
        make("time", { class: "muted" }, moment(time)),
        make("span", {}, message),
      )
    );
    const said = items.length
      ? make("ol", { class: "log" }, ...items)
      : make("p", { class: "muted" }, "Nothing was logged.");
    this.#log.lastElementChild?.replaceChildren(said);
  }
}

/**
 * @param {Course} course
 * @param {Summary["state"]} reached
 */
function sentence(course, reached) {
  const { measured, replies, secondsLeft, total } = course;
  const told = measured?.loss === null || measured === null
    ? ""
    : course.isRegression
    ? `, mean absolute error ${quality(measured)}`
    : `, accuracy ${quality(measured)}`;
  if (reached === "failed") return `The training failed: ${course.reason}`;
  if (reached === "published") return `Version ${course.version} is published${told}.`;
  if (reached === "interrupted") {
    return `Interrupted after round ${course.done}: the trainer ended without a word. The next ` +
      "training of the same settings goes on from there.";
  }
  if (total === null) return `Waiting for ${count(course.expected)} sites.`;
  const waiting = replies ? `, ${replies.replied} of ${replies.asked} sites have replied` : "";
  const left = secondsLeft ? `, about ${duration(secondsLeft)} left` : "";
  if (course.done >= total) {
    return `All rounds are done${told}: measuring the final model${waiting}.`;
  }
  return `Round ${course.done + 1} of ${total} is under way${waiting}${told}${left}.`;
}

/** @param {Measured | null} one */
function quality(one) {
  if (one === null) return NONE;
  return one.accuracy === null ? significant(one.absoluteError) : fixed(one.accuracy, 4);
}

/** @param {Course} course */
function privacy({ delta, epsilon }) {
  if (delta === null) return "no";
  return `ε ${significant(epsilon)} at δ ${delta}`;
}

/** @param {Course} course */
function whyNoSites({ secureAggregation, delta, rounds }) {
  if (secureAggregation) {
    return "Under secure aggregation the trainer sees sums alone: it does not know what one site measured.";
  }
  if (delta !== null) return "Under differential privacy sites report nothing that they measure.";
  return rounds.length
    ? "The trainer has not told what single sites measured."
    : "Known after the first round.";
}

/**
 * Sites in an order that stays, with a short name each.
 *
 * @param {Course} course
 */
function named({ sites }) {
  return [...sites]
    .sort(([one], [other]) => one.length - other.length || (one < other ? -1 : 1))
    .map(([site, models], index) => /** @type {const} */ ([`site ${index + 1}`, site, models]));
}

/**
 * @param {Course} course
 * @param {number[]} positions
 * @param {(one: Measured) => number | null} of
 * @returns {Curve[]}
 */
function siteCurves(course, positions, of) {
  const lines = named(course).map(([label, , models]) => ({
    label,
    values: positions.map((done) => {
      const one = models.get(done);
      return one ? of(one) : null;
    }),
  }));
  if (lines.length <= LINES) return lines;
  /** @param {(...values: number[]) => number} pick */
  const over = (pick) =>
    positions.map((_, index) => {
      const known = lines.map(({ values }) => values[index] ?? null).filter((one) => one !== null);
      return known.length ? pick(...known) : null;
    });
  return [
    { label: "lowest site", values: over(Math.min) },
    { label: "highest site", values: over(Math.max) },
  ];
}

/**
 * @param {string[]} columns the first of text, the others of numbers
 * @param {(string | Node)[][]} rows
 */
function table(columns, rows) {
  /** @param {number} index */
  const kind = (index) => (index ? { class: "number" } : {});
  return make(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `Table by ${columns[0]}` },
    make(
      "table",
      {},
      make(
        "thead",
        {},
        make(
          "tr",
          {},
          ...columns.map((one, index) => make("th", { scope: "col", ...kind(index) }, one)),
        ),
      ),
      make(
        "tbody",
        {},
        ...rows.map((row) =>
          make("tr", {}, ...row.map((cell, index) => make("td", kind(index), cell)))
        ),
      ),
    ),
  );
}

/**
 * Replace content where it is another one: selected text stays selected.
 *
 * @param {Element} element
 * @param {Element[]} content
 */
function update(element, content) {
  const before = [...element.children].map((child) => child.outerHTML).join("");
  if (before !== content.map((child) => child.outerHTML).join("")) {
    element.replaceChildren(...content);
  }
}
