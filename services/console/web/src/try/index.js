/** Try it: a row is encrypted, evaluated and decrypted, and what the service saw is shown beside. */

import { make, state } from "../dom.js";
import { failureView, needsKeyholder } from "./failures.js";
import { openAtKeyholder, openInPage } from "./holders.js";
import { Query } from "./query.js";

/** @import { Context, Tab } from "../context.js" */
/** @import { Holder } from "./holders.js" */

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
  /** Version of the model that is open; null: none is. @type {string | null} */
  #version = null;

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

  /** Called when the tab is chosen again: another version may serve by now, or another model. */
  async shown() {
    const turn = this.#turn;
    const version = this.#version;
    if (version === null) return await this.start();
    try {
      const names = await this.#names();
      const { parameters } = await this.#describe(this.#choice.value);
      if (turn !== this.#turn) return;
      if (parameters?.version !== version) await this.start();
      else this.#offer(names);
    } catch {
      // What is wrong is said when something is asked; what was entered and answered stays.
    }
  }

  /** List the models, and open the one that is chosen, or the first. */
  async start() {
    const turn = this.#begin("Looking for models", true);
    try {
      const names = await this.#names();
      if (turn !== this.#turn) return;
      this.#offer(names);
      if (names.length === 0) this.#showNone();
      else await this.#open(this.#choice.value);
    } catch (error) {
      this.#fail(turn, error, () => this.start());
    }
  }

  async #names() {
    return (await this.#context.models())
      .filter(({ versions }) => versions.some(({ state: one }) => one === "READY"))
      .map(({ name }) => name);
  }

  /** @param {string[]} names */
  #offer(names) {
    const chosen = this.#choice.value;
    this.#choice.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(chosen)) this.#choice.value = chosen;
    this.#choice.disabled = names.length === 0;
  }

  /** @param {string} name */
  #describe(name) {
    return this.#context.service.ask("GET", `/v2/models/${encodeURIComponent(name)}`);
  }

  #showNone() {
    const again = make("button", { type: "button" }, "Look again");
    again.addEventListener("click", () => this.start());
    this.#body.replaceChildren(
      state(
        "empty",
        "No model is served yet",
        "As soon as one is trained and compiled, it can be tried here. The tab Training shows how far " +
          "that is.",
        again,
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
      this.#version = version;
      const owner = {
        /** @type {import("./query.js").Owner["failure"]} */
        failure: (error, retry) => this.#failure("asking", error, retry),
        reopen: () => this.#open(name),
      };
      this.#body.replaceChildren(new Query(holder, owner).element);
    } catch (error) {
      this.#fail(turn, error, () => this.#open(name));
    }
  }

  /**
   * @param {string} name
   * @returns {Promise<Holder | null>} null where a key holder is needed, and none is set
   */
  async #holderOf(name) {
    const { serviceUrl, keyholderUrl, session } = this.#context;
    const { parameters } = await this.#describe(name);
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
    this.#version = null;
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
    this.#body.replaceChildren(this.#failure("opening", error, retry));
  }

  /**
   * @param {"opening" | "asking"} doing
   * @param {unknown} error
   * @param {() => void} retry
   */
  #failure(doing, error, retry) {
    return failureView(doing, error, this.#context, {
      retry,
      useKey: (apiKey) => {
        this.#context.session.apiKey = apiKey;
        this.start();
      },
    });
  }
}
