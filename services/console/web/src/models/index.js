/** The tab of models: which there are, what each costs, and which version serves. */

import { make, state } from "../dom.js";
import { ServiceError } from "../service.js";
import { bytes, count, counted, fixed, moment, NONE, significant } from "../text.js";

/** @import { Context, Tab } from "../context.js" */
/** @import { Cost, ModelVersions, Training, VersionDetails } from "../service.js" */

/** Between two questions to a service that does not answer. */
const RETRY_MS = 5000;

/**
 * @param {HTMLElement} element
 * @param {Context} context
 * @returns {Tab}
 */
export function mount(element, context) {
  const tab = new ModelsTab(element, context);
  tab.load();
  return { shown: () => tab.load(), hidden: () => tab.rest() };
}

class ModelsTab {
  #context;
  #key = make("input", {
    type: "password",
    id: "models-key",
    name: "api-key",
    autocomplete: "off",
    spellcheck: false,
  });
  #said = make("p", { class: "said", role: "status" });
  #list = make("div");
  #loading = 0;
  #retry = 0;

  /**
   * @param {HTMLElement} element
   * @param {Context} context
   */
  constructor(element, context) {
    this.#context = context;
    const form = make(
      "form",
      { class: "row key-form" },
      make("label", {}, "API key", this.#key),
      make("button", {}, "Use and reload"),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#take();
      this.load();
    });
    this.#key.addEventListener("change", () => this.#take());
    context.session.addEventListener("change", () => {
      this.#key.value = context.session.apiKey;
    });
    element.append(
      make("h1", {}, "Models"),
      make(
        "p",
        { class: "lead" },
        "What the inference service at ",
        make("code", {}, context.serviceUrl),
        " serves, as it says so itself: this page asks it directly.",
      ),
      make(
        "section",
        { class: "card" },
        form,
        make(
          "p",
          { class: "muted small" },
          "Needed where the service has API keys, and an operator's to put a version into use. It " +
            "stays in this page until it is closed: it is not stored, and not sent to the console.",
        ),
      ),
      this.#said,
      this.#list,
    );
    this.#list.append(state("loading", "Asking the service"));
  }

  #take() {
    this.#context.session.apiKey = this.#key.value.trim();
  }

  /** Ask for everything anew, and leave what is shown until it is there. */
  async load() {
    this.rest();
    // An answer that is overtaken by another one is dropped.
    const loading = ++this.#loading;
    let content, isAway = false;
    try {
      const { service } = this.#context;
      const models = await service.models();
      const found = await Promise.all(models.map(({ name }) => service.versions(name)));
      content = found.length ? found.map((model) => this.#model(model)) : [none()];
    } catch (error) {
      content = [wrong(error)];
      isAway = error instanceof ServiceError && error.status === null;
    }
    if (loading !== this.#loading) return;
    // What is said again would be read out again.
    const isSame = isAway && this.#list.textContent === content[0]?.textContent;
    if (!isSame) this.#list.replaceChildren(...content);
    if (isAway) this.#retry = setTimeout(() => this.load(), RETRY_MS);
  }

  /** Ask no more by itself. */
  rest() {
    clearTimeout(this.#retry);
    // Nor what is on its way.
    this.#loading++;
  }

  /** @param {ModelVersions} model */
  #model(model) {
    const { name, serving, registered, versions } = model;
    const title = make("h2", { id: `model-${name}` }, name);
    const chosen = serving !== null && registered !== null && serving !== registered;
    return make(
      "section",
      { class: "card model", "aria-labelledby": `model-${name}` },
      title,
      serving === null
        ? make("p", { class: "muted" }, "None of its versions serves now.")
        : make("p", {}, `Version ${serving} serves requests that name none.`),
      chosen
        ? make(
          "p",
          { class: "notice" },
          `The registry puts version ${registered} into use. Version ${serving} serves instead: it ` +
            `was put into use here, or version ${registered} cannot be served.`,
        )
        : null,
      ...versions.map((version) => this.#version(model, version)),
    );
  }

  /**
   * @param {ModelVersions} model
   * @param {VersionDetails} one
   */
  #version(model, one) {
    const serves = one.version === model.serving;
    const isRefused = one.state === "UNAVAILABLE" && !one.reason.startsWith("not loaded yet");
    const head = make(
      "summary",
      {},
      make("span", { class: "version-name" }, `Version ${one.version}`),
      serves ? make("span", { class: "tag good" }, "serves") : null,
      one.evaluator ? make("span", { class: "tag" }, one.evaluator) : null,
      isRefused ? make("span", { class: "tag bad" }, "cannot be served") : null,
      make("span", { class: "muted version-short" }, inShort(one.training)),
    );
    return make(
      "details",
      { class: "version", open: serves },
      head,
      isRefused ? make("p", { class: "notice bad" }, one.reason) : null,
      one.training && one.cost
        ? make("dl", { class: "facts" }, ...facts(one, one.training, one.cost))
        : make("p", { class: "muted" }, "Its files do not tell more: they are damaged."),
      serves || isRefused ? null : this.#promotion(model, one),
    );
  }

  /**
   * @param {ModelVersions} model
   * @param {VersionDetails} one
   */
  #promotion({ name, serving }, { version }) {
    const back = serving !== null && Number(version) < Number(serving);
    const what = back ? `Roll back to version ${version}` : `Promote version ${version}`;
    const button = make("button", { type: "button" }, what);
    const confirm = make("button", { type: "button", class: "primary", hidden: true });
    confirm.textContent = `Yes: let version ${version} of ${name} serve`;
    button.addEventListener("click", () => {
      confirm.hidden = !confirm.hidden;
      button.textContent = confirm.hidden ? what : "No, leave it";
      if (!confirm.hidden) confirm.focus();
    });
    confirm.addEventListener("click", async () => {
      button.disabled = confirm.disabled = true;
      await this.#promote(name, version);
      button.disabled = confirm.disabled = false;
    });
    return make(
      "div",
      { class: "promotion" },
      make("div", { class: "row" }, button, confirm),
      make(
        "p",
        { class: "muted small" },
        "Has this version serve requests that name none, at all replicas and through restarts, until " +
          "another version is published, promoted or rolled back in the registry. The registry itself " +
          "is not changed: the service only reads it.",
      ),
    );
  }

  /**
   * @param {string} name
   * @param {string} version
   */
  async #promote(name, version) {
    this.#take();
    this.#say(`Loading version ${version} of ${name}…`);
    try {
      await this.#context.service.promote(name, version);
    } catch (error) {
      this.#say(`Version ${version} of ${name} was not put into use. ${told(error)}`, true);
      return;
    }
    await this.load();
    this.#say(`Version ${version} of ${name} serves now.`);
  }

  /**
   * @param {string} text
   * @param {boolean} [isBad]
   */
  #say(text, isBad = false) {
    this.#said.className = isBad ? "said notice bad" : "said";
    this.#said.textContent = text;
    if (isBad) this.#said.scrollIntoView({ block: "nearest" });
  }
}

/** @param {Training | null} training */
function inShort(training) {
  if (!training) return "";
  const { accuracy, absolute_error: error } = training;
  if (accuracy !== null) return `accuracy ${fixed(accuracy, 4)}`;
  return error === null ? "" : `mean absolute error ${significant(error)}`;
}

/**
 * @param {VersionDetails} version
 * @param {Training} training
 * @param {Cost} cost
 */
function facts(version, training, cost) {
  const measured = training.task === "regression"
    ? `error ${significant(training.absolute_error)}`
    : `accuracy ${fixed(training.accuracy, 4)}`;
  const { proof } = version;
  const compact = cost.compact_input_bytes !== null && cost.compact_output_bytes !== null
    ? `${bytes(cost.compact_input_bytes)} up, ${bytes(cost.compact_output_bytes)} down`
    : "not taken";
  /** @type {[string, string][]} */
  const told = [
    ["Estimator", training.estimator],
    ["Data", `${training.dataset}, ${training.task}`],
    [
      "Measured by sites",
      training.sites ? `${measured}, ${counted(training.sites, "site")}` : "not reported",
    ],
    ["Loss", significant(training.loss)],
    [
      "Trained",
      training.strategy === null
        ? "in one place"
        : `${training.strategy}, ${counted(training.rounds, "round")}`,
    ],
    ["Secure aggregation", training.secure_aggregation ? "yes" : "no"],
    [
      "Differential privacy",
      training.epsilon === null
        ? "no"
        : `ε ${significant(training.epsilon)} at δ ${training.delta}`,
    ],
    ["A query", `${bytes(cost.input_bytes)} up, ${bytes(cost.output_bytes)} down`],
    ["Compact query", compact],
    ["Evaluation keys", cost.evaluation_key_bytes ? bytes(cost.evaluation_key_bytes) : "none"],
    [
      "Evaluation, at least",
      cost.floor_ms === null ? "not known" : `${significant(cost.floor_ms)} ms`,
    ],
    ["Bits", `${cost.bits_inputs} of inputs, ${cost.bits_weights} of weights`],
    ["Circuit", `${counted(cost.features, "input")}, ${counted(cost.outputs, "score")}`],
    ["LWE dimension", String(cost.lwe_dimension)],
    [
      "Proven before",
      proof ? `${counted(proof.verified, "encrypted input")} equal to the clear` : NONE,
    ],
    ["As the float model", agreement(proof)],
    ["Evaluator", version.evaluator ?? "chosen when it is loaded"],
    ["Why this one", version.evaluator_reason ?? NONE],
    ["Published", version.created === null ? NONE : moment(version.created)],
    [
      "Of trained model",
      version.model_version === null ? NONE : `version ${version.model_version}`,
    ],
  ];
  return told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
}

/** @param {VersionDetails["proof"]} proof */
function agreement(proof) {
  if (!proof || proof.probes === null || proof.differing === null) return NONE;
  return `${count(proof.probes - proof.differing)} of ${counted(proof.probes, "synthetic row")}`;
}

function none() {
  return state(
    "empty",
    "The service serves no model yet",
    "A model appears here once it is trained and compiled: make demo, docker compose up, or cloister " +
      "train and cloister compile.",
  );
}

/** @param {unknown} error */
function wrong(error) {
  const status = error instanceof ServiceError ? error.status : null;
  if (status === 401) {
    return state("error", "The service wants an API key", `${told(error)}`);
  }
  return state(
    "error",
    status === null ? "The service cannot be reached" : "The service refuses to tell",
    told(error),
    status === null ? "It is asked again by itself." : null,
  );
}

/** @param {unknown} error */
function told(error) {
  const detail = error instanceof Error ? error.message : String(error);
  const status = error instanceof ServiceError && error.status !== null ? ` (${error.status})` : "";
  switch (status) {
    case " (401)":
      return `No valid API key was sent (401): ${detail}.`;
    case " (403)":
      return `This API key may not do that (403): ${detail}.`;
    default:
      return status ? `It answers${status}: ${detail}.` : detail;
  }
}
