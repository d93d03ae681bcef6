/** The tab of trainings: which there are, and the course of one, live. */

import { make, state } from "../dom.js";
import { counted, moment } from "../text.js";
import { Course } from "./course.js";
import { events, Gone, list, repeat } from "./feed.js";
import { CourseView } from "./view.js";

/** @import { Context, Tab } from "../context.js" */
/** @import { Next, Summary } from "./feed.js" */

/** @typedef {Summary["state"]} State */

/** @type {Record<State, [kind: string, word: string]>} */
const STATES = {
  running: ["accent", "running"],
  published: ["good", "published"],
  failed: ["bad", "failed"],
  interrupted: ["warn", "interrupted"],
};

/**
 * @param {HTMLElement} element
 * @param {Context} _context
 * @returns {Tab}
 */
export function mount(element, _context) {
  const tab = new TrainingTab(element);
  tab.start();
  return { shown: () => tab.start(), hidden: () => tab.stop() };
}

class TrainingTab {
  #select = make("select", { id: "training-run" });
  #tag = make("span", { class: "tag" });
  #said = make("p", { class: "said", role: "status" });
  #body = make("div");
  #toolbar = make(
    "div",
    { class: "row toolbar", hidden: true },
    make("label", {}, "Training", this.#select),
    this.#tag,
  );
  /** @type {AbortController | null} of all that is asked for */
  #asking = null;
  /** @type {AbortController | null} of the events of the training that is shown */
  #following = null;
  /** @type {string | null} */
  #run = null;
  /** Whether the user has chosen it; otherwise one that begins is shown in its place. */
  #chosen = false;
  /** @type {Set<string>} trainings that have been listed */
  #seen = new Set();
  #offset = 0;
  #course = new Course();
  /** @type {CourseView | null} */
  #view = null;

  /** @param {HTMLElement} element */
  constructor(element) {
    element.append(
      make("h1", {}, "Training"),
      make(
        "p",
        { class: "lead" },
        "What the trainer tells of each training, round by round. It never has a row: sites send it " +
          "updates, and how the model does on rows that each keeps for that.",
      ),
      this.#toolbar,
      this.#said,
      this.#body,
    );
    this.#body.append(state("loading", "Looking for trainings"));
    this.#select.addEventListener("change", () => {
      this.#chosen = true;
      this.#show(this.#select.value);
    });
  }

  start() {
    if (this.#asking) return;
    this.#asking = new AbortController();
    repeat(this.#asking.signal, (signal) => this.#look(signal), (error) => this.#fail(error));
    if (this.#run !== null) this.#follow(this.#run);
  }

  stop() {
    this.#asking?.abort();
    this.#following?.abort();
    this.#asking = null;
  }

  /**
   * @param {AbortSignal} signal
   * @returns {Promise<Next>}
   */
  async #look(signal) {
    const found = await list(signal);
    const newest = found[0];
    if (!newest) {
      this.#showNone();
      return "soon";
    }
    if (this.#run === null) this.#body.replaceChildren();
    this.#toolbar.hidden = false;
    this.#offer(found);
    const hasBegun = !this.#seen.has(newest.id);
    found.forEach(({ id }) => this.#seen.add(id));
    if (this.#run === null || !this.#chosen && hasBegun) this.#show(newest.id);
    else this.#select.value = this.#run;
    return found.some((one) => one.state === "running") ? "soon" : "later";
  }

  #showNone() {
    if (this.#run !== null) return;
    this.#said.textContent = "";
    this.#body.replaceChildren(
      state(
        "empty",
        "No training yet",
        "It appears here by itself once one begins: make demo, docker compose up, or cloister train.",
        "A console that runs by hand reads the folder that CLOISTER_EVENTS_DIR names.",
      ),
    );
  }

  /** @param {Summary[]} found */
  #offer(found) {
    const options = new Map([...this.#select.options].map((option) => [option.value, option]));
    found.forEach((one, index) => {
      const option = options.get(one.id) ?? new Option("", one.id);
      options.delete(one.id);
      const rounds = one.rounds ? `, ${one.round} of ${counted(one.rounds, "round")}` : "";
      const told = `${one.model ?? `run ${one.id}`} · ${moment(one.began)} · ${one.state}${rounds}`;
      if (option.textContent !== told) option.textContent = told;
      // Moving an option that stays where it is would close an open list.
      if (this.#select.options[index] !== option) this.#select.add(option, index);
    });
    // That which is shown stays, though its events were deleted.
    for (const option of options.values()) if (option.value !== this.#run) option.remove();
  }

  /** @param {string} run */
  #show(run) {
    this.#run = run;
    this.#select.value = run;
    this.#offset = 0;
    this.#course = new Course();
    this.#view = null;
    this.#said.textContent = "";
    this.#tag.textContent = "";
    this.#body.replaceChildren(state("loading", "Reading its events"));
    this.#follow(run);
  }

  /** @param {string} run */
  #follow(run) {
    this.#following?.abort();
    this.#following = new AbortController();
    repeat(
      this.#following.signal,
      (signal) => this.#read(run, signal),
      (error) => this.#fail(error),
    );
  }

  /**
   * @param {string} run
   * @param {AbortSignal} signal
   * @returns {Promise<Next>}
   */
  async #read(run, signal) {
    let batch;
    try {
      batch = await events(run, this.#offset, signal);
    } catch (error) {
      if (!(error instanceof Gone)) throw error;
      this.#said.textContent = "Its events were deleted: what is shown is all that was read.";
      if (!this.#view) this.#body.replaceChildren(state("empty", "Its events were deleted"));
      return "done";
    }
    if (batch.restarted) this.#course = new Course();
    this.#offset = batch.offset;
    batch.events.forEach((event) => this.#course.take(event));
    if (batch.more) return "at once";
    if (!this.#view) {
      this.#view = new CourseView();
      this.#body.replaceChildren(this.#view.element);
    }
    const reached = this.#reached(batch.writing);
    const [kind, word] = STATES[reached];
    this.#tag.className = `tag ${kind}`;
    this.#tag.textContent = word;
    this.#said.textContent = this.#view.show(this.#course, reached);
    if (this.#course.hasEnded) return "done";
    return batch.writing ? "soon" : "later";
  }

  /**
   * @param {boolean} writing
   * @returns {State}
   */
  #reached(writing) {
    if (this.#course.version !== null) return "published";
    if (this.#course.reason !== null) return "failed";
    return writing ? "running" : "interrupted";
  }

  /** @param {unknown} error */
  #fail(error) {
    const why = error instanceof Error ? error.message : String(error);
    if (!this.#view) {
      this.#body.replaceChildren(
        state("error", "The console does not answer", `${why}. It is asked again by itself.`),
      );
    } else {
      this.#said.textContent =
        `The console does not answer (${why}): this is what it told before. It is asked again.`;
    }
  }
}
