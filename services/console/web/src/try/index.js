/** Try it: a row is encrypted, evaluated and decrypted, and what the service saw is shown beside. */

import { find, make, state } from "../dom.js";
import { failureView, needsKeyholder } from "./failures.js";
import { openAtKeyholder, openInPage } from "./holders.js";
import { rowInput } from "./inputs.js";
import { answerView, comparisonView, headline, receivedView, timesView } from "./results.js";
import { middleOf, parseRow, randomOf } from "./rows.js";

/** @import { Context, Tab } from "../context.js" */
/** @import { Holder, Outcome } from "./holders.js" */
/** @import { RowInput } from "./inputs.js" */

/**
 * @param {HTMLElement} element
 * @param {Context} context
 * @returns {Tab}
 */
export function mount(element, context) {
  const style = make("link", { rel: "stylesheet", href: new URL("try.css", import.meta.url).href });
  document.head.append(style);
  const tab = new TryTab(element, context);
  tab.start();
  return { shown: () => tab.shown() };
}

class TryTab {
  #context;
  #choice = make("select", { id: "try-model" });
  #about = make("p", { class: "about small muted" });
  #body = make("div", {});
  /** Asks that were overtaken by others do not show what they found. */
  #turn = 0;
  #hasFailed = false;

  /**
   * @param {HTMLElement} element
   * @param {Context} context
   */
  constructor(element, context) {
    this.#context = context;
    this.#choice.addEventListener("change", () => this.#open(this.#choice.value));
    element.replaceChildren(
      make("h1", {}, "Try an encrypted prediction"),
      make(
        "p",
        { class: "lead" },
        "What you enter is encrypted before it leaves, evaluated as it is, and decrypted here. The " +
          "service sees neither the row, nor the answer, nor the key.",
      ),
      make(
        "div",
        { class: "row choice" },
        make("label", { for: "try-model" }, "Model", this.#choice),
        this.#about,
      ),
      this.#body,
    );
  }

  /** Called when the tab is chosen again. */
  shown() {
    if (this.#hasFailed) this.start();
  }

  /** List the models, and open the first. */
  async start() {
    const turn = this.#begin("Looking for models", true);
    try {
      const names = (await this.#context.models())
        .filter(({ versions }) => versions.some(({ state: one }) => one === "READY"))
        .map(({ name }) => name);
      if (turn !== this.#turn) return;
      const chosen = names.includes(this.#choice.value) ? this.#choice.value : names[0];
      this.#choice.replaceChildren(...names.map((name) => new Option(name, name)));
      this.#choice.disabled = names.length === 0;
      if (chosen === undefined) this.#showNone();
      else {
        this.#choice.value = chosen;
        await this.#open(chosen);
      }
    } catch (error) {
      this.#fail(turn, error, () => this.start());
    }
  }

  #showNone() {
    this.#hasFailed = true;
    this.#body.replaceChildren(
      state(
        "empty",
        "No model is served yet",
        "As soon as one is trained and compiled, it can be tried here. The tab Training shows how far " +
          "that is.",
      ),
    );
  }

  /** @param {string} name */
  async #open(name) {
    const turn = this.#begin(`Opening ${name}`, false);
    try {
      const holder = await this.#holderOf(name);
      if (turn !== this.#turn) return;
      if (!holder) {
        const again = make("button", { type: "button" }, "Try again");
        again.addEventListener("click", () => this.#open(name));
        this.#body.replaceChildren(needsKeyholder(this.#context.keyholderUrl, again));
        return;
      }
      const { card, description: { version, evaluator }, where } = holder;
      const by = evaluator ? `, evaluated by the ${evaluator} evaluator` : "";
      this.#about.textContent =
        `Version ${version}: ${card.estimator} on ${card.data.dataset}${by}. ` +
        (where === "page"
          ? "This page makes a key for every query."
          : "The key holder on this machine keeps the key.");
      this.#body.replaceChildren(new Query(holder, this).element);
    } catch (error) {
      this.#fail(turn, error, () => this.#open(name));
    }
  }

  /**
   * @param {string} name
   * @returns {Promise<Holder | null>} null where a key holder is needed, and none is set
   */
  async #holderOf(name) {
    const { service, serviceUrl, keyholderUrl, session } = this.#context;
    const { parameters } = await service.ask("GET", `/v2/models/${encodeURIComponent(name)}`);
    if (!(parameters?.evaluation_key_bytes > 0)) {
      return await openInPage(serviceUrl, name, session.apiKey);
    }
    return keyholderUrl ? await openAtKeyholder(keyholderUrl, name) : null;
  }

  /**
   * @param {string} what
   * @param {boolean} isAll whether the list of models is not known
   */
  #begin(what, isAll) {
    this.#hasFailed = false;
    this.#about.textContent = "";
    if (isAll) this.#choice.disabled = true;
    this.#body.replaceChildren(state("loading", `${what}…`));
    return ++this.#turn;
  }

  /**
   * @param {number} turn
   * @param {unknown} error
   * @param {() => void} retry
   */
  #fail(turn, error, retry) {
    if (turn !== this.#turn) return;
    this.#hasFailed = true;
    this.#body.replaceChildren(this.failure(error, retry));
  }

  /**
   * @param {unknown} error
   * @param {() => void} retry
   */
  failure(error, retry) {
    return failureView(error, this.#context, {
      retry,
      useKey: (apiKey) => {
        this.#context.session.apiKey = apiKey;
        this.start();
      },
    });
  }
}

/** One model's row, and its last answer. */
class Query {
  #holder;
  #tab;
  /** @type {RowInput} */
  #input;
  #ask = make("button", { class: "primary", id: "ask" }, "Encrypt and ask");
  #status = make("p", { id: "try-status", class: "small muted", role: "status" });
  #results = make("div", { class: "results" });
  /** Of the row that is entered, as long as it is the same. @type {Outcome["sent"] | null} */
  #before = null;

  /**
   * @param {Holder} holder
   * @param {TryTab} tab
   */
  constructor(holder, tab) {
    this.#holder = holder;
    this.#tab = tab;
    const { card } = holder;
    this.#input = rowInput(card, () => (this.#before = null));
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
      this.#before = null;
      this.#input.mark(null);
      action();
    });
    return button;
  }

  async #run() {
    const { card } = this.#holder;
    const row = this.#input.row();
    const buttons = this.element.querySelectorAll("button");
    const wasFocused = document.activeElement;
    buttons.forEach((button) => (button.disabled = true));
    this.#input.mark(null);
    this.#say("Encrypting and asking…");
    this.#results.setAttribute("aria-busy", "true");
    try {
      const outcome = await this.#holder.ask(row, (text) => this.#say(text));
      this.#show(outcome);
      this.#reveal();
      this.#say(`Answered: ${headline(outcome.answer, card)}`);
      this.#before = outcome.sent;
    } catch (error) {
      this.#say("");
      this.#before = null;
      this.#results.replaceChildren(this.#tab.failure(error, () => this.#run()));
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
