/** A model's row, and what came of it. */

import { RequestRefused } from "/client/src/index.js";
import { find, make, state } from "../dom.js";
import { rowInput } from "./inputs.js";
import { answerView, comparisonView, headline, receivedView, timesView } from "./results.js";
import { middleOf, parseRow, randomOf } from "./rows.js";

/** @import { Holder, Outcome } from "./holders.js" */
/** @import { RowInput } from "./inputs.js" */

/** Of requests about a version that the service has no more. */
const GONE = [404, 409];

/**
 * @typedef {object} Owner of a query
 * @property {(error: unknown, retry: () => void) => HTMLElement} failure shows what went wrong
 * @property {() => void} reopen opens the model anew, at its current version
 */

/** One model's row, and its last answer. */
export class Query {
  #holder;
  #owner;
  /** @type {RowInput} */
  #input;
  #ask = make("button", { class: "primary", id: "ask" }, "Encrypt and ask");
  #status = make("p", { id: "try-status", class: "small muted", role: "status" });
  #results = make("div", { class: "results" });
  /** Of the row that is entered, as long as it is the same. @type {Outcome["sent"] | null} */
  #before = null;
  /** Whether the row is the one that was asked last. */
  #isSame = false;

  /**
   * @param {Holder} holder
   * @param {Owner} owner
   */
  constructor(holder, owner) {
    this.#holder = holder;
    this.#owner = owner;
    const { card } = holder;
    this.#input = rowInput(card, () => this.#changed());
    const isImage = card.data.imageShape !== null;
    const form = make(
      "form",
      { class: "card enter", novalidate: true },
      make("h2", {}, isImage ? "Draw" : "Enter a row"),
      this.#input.element,
      make(
        "div",
        { class: "row buttons" },
        this.#ask,
        this.#button("Clear", () => this.#input.clear()),
      ),
      this.#status,
      this.#examples(isImage),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#run();
    });
    this.#results.append(
      state(
        "empty",
        "Nothing asked yet",
        "The answer appears here, and what the service saw of it.",
      ),
    );
    this.element = make("div", { class: "try" }, form, this.#results);
  }

  /** @param {boolean} isImage */
  #examples(isImage) {
    const { card } = this.#holder;
    const names = card.data.features.map(({ name }) => name);
    const area = make("textarea", {
      id: "pasted",
      rows: 3,
      spellcheck: "false",
      placeholder: names.slice(0, 4).join(",") + (names.length > 4 ? ",…" : ""),
    });
    const problem = make("p", { class: "wrong small", role: "alert" });
    const use = this.#button("Use this row", () => {
      problem.textContent = "";
      try {
        this.#input.fill(parseRow(area.value, names));
      } catch (error) {
        problem.textContent = error instanceof Error ? error.message : String(error);
      }
    });
    return make(
      "details",
      {},
      make("summary", {}, isImage ? "Other images" : "Example rows, or one of your own table"),
      make(
        "div",
        { class: "row buttons" },
        isImage
          ? null
          : this.#button("Middle of the bounds", () => this.#input.fill(middleOf(card))),
        this.#button(
          isImage ? "Random pixels" : "Random within the bounds",
          () => this.#input.fill(randomOf(card)),
        ),
      ),
      make(
        "p",
        { class: "small muted" },
        "These are made from the bounds that the model's card declares: no row of anybody's data is " +
          "here. Where they lie far from real rows, answers mean little.",
      ),
      make("label", { for: "pasted" }, "A row of a CSV file or spreadsheet", area),
      problem,
      make("div", { class: "row buttons" }, use),
    );
  }

  /**
   * A button that changes the row.
   *
   * @param {string} text
   * @param {() => void} action
   */
  #button(text, action) {
    const button = make("button", { type: "button" }, text);
    button.addEventListener("click", () => {
      this.#changed();
      this.#input.mark(null);
      action();
    });
    return button;
  }

  #changed() {
    this.#before = null;
    this.#isSame = false;
  }

  async #run() {
    const { card } = this.#holder;
    const row = this.#input.row();
    const buttons = this.element.querySelectorAll("button");
    const wasFocused = document.activeElement;
    buttons.forEach((button) => (button.disabled = true));
    this.#input.mark(null);
    this.#say("Encrypting and asking…");
    this.#isSame = true;
    this.#results.setAttribute("aria-busy", "true");
    try {
      const outcome = await this.#holder.ask(row, (text) => this.#say(text));
      this.#show(outcome);
      this.#reveal();
      this.#say(`Answered: ${headline(outcome.answer, card)}`);
      this.#before = this.#isSame ? outcome.sent : null;
    } catch (error) {
      this.#say("");
      this.#before = null;
      const isGone = error instanceof RequestRefused && GONE.includes(error.status);
      const retry = () => isGone ? this.#owner.reopen() : this.#run();
      this.#results.replaceChildren(this.#owner.failure(error, retry));
      this.#reveal();
      this.#input.mark(refusedFeature(error, card.data.features.map(({ name }) => name)));
    } finally {
      this.#results.removeAttribute("aria-busy");
      buttons.forEach((button) => (button.disabled = false));
      const isLost = document.activeElement === document.body;
      if (isLost && wasFocused instanceof HTMLElement) {
        (wasFocused.isConnected ? wasFocused : this.#ask).focus();
      }
    }
  }

  /** Bring the answer into sight where it is below the row, as on a phone. */
  #reveal() {
    const first = this.#results.firstElementChild;
    if (first && first.getBoundingClientRect().top > 0.7 * innerHeight) {
      first.scrollIntoView({ block: "center" });
    }
  }

  /** @param {Outcome} outcome */
  #show({ answer, sent, times, clear }) {
    const { card, where } = this.#holder;
    const again = make("button", { type: "button", id: "again" }, "Send the same row again");
    again.addEventListener("click", async () => {
      await this.#run();
      find(document, "#again", HTMLButtonElement).focus();
    });
    this.#results.replaceChildren(
      section("The answer, decrypted", answerView(answer, card)),
      section(
        "What the server received",
        receivedView(sent, this.#before),
        make(
          "p",
          {},
          this.#before
            ? "Every query is encrypted anew. "
            : "Another query of the same row looks different. ",
        ),
        again,
      ),
      section("Where the time went", timesView(times, where)),
      section("The clear model’s answer", comparisonView(answer, clear, card, where)),
    );
  }

  /** @param {string} text */
  #say(text) {
    this.#status.textContent = text;
  }
}

/**
 * @param {string} title
 * @param {...Node} content
 */
function section(title, ...content) {
  return make("section", { class: "card" }, make("h2", {}, title), ...content);
}

/**
 * The feature that a refusal names.
 *
 * @param {unknown} error
 * @param {string[]} names
 */
function refusedFeature(error, names) {
  const message = error instanceof Error ? error.message : "";
  return names.find((name) => message.includes(`feature ${name}: `)) ?? null;
}
