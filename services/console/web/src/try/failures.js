/** What went wrong, in words and with what to do. */

import { CloisterError, RequestRefused, ServiceUnavailable } from "/client/src/index.js";
import { make, state } from "../dom.js";
import { ServiceError } from "../service.js";
import { KeyholderError } from "./holders.js";

/**
 * @typedef {object} Remedies
 * @property {() => void} retry
 * @property {(apiKey: string) => void} useKey takes the API key that is typed
 */

/**
 * @param {"opening" | "asking"} doing what was done with the model
 * @param {unknown} error
 * @param {{ serviceUrl: string, keyholderUrl: string | null }} where
 * @param {Remedies} remedies
 * @returns {HTMLElement}
 */
export function failureView(doing, error, { serviceUrl, keyholderUrl }, { retry, useKey }) {
  const again = make("button", { type: "button" }, "Try again");
  again.addEventListener("click", retry);
  const message = error instanceof Error ? error.message : String(error);
  if (statusOf(error) === 401 && !(error instanceof KeyholderError)) {
    return state("error", "The service needs an API key", message, keyForm(useKey));
  }
  if (error instanceof KeyholderError && error.status === null) {
    return needsKeyholder(keyholderUrl, again);
  }
  if (error instanceof ServiceUnavailable || statusOf(error) === null) {
    return state(
      "error",
      "The inference service is not available",
      message,
      make(
        "p",
        {},
        `It is expected at ${serviceUrl}. Where it does not run, `,
        make("code", {}, "docker compose up -d"),
        " starts it.",
      ),
      again,
    );
  }
  if (statusOf(error) === 404) {
    return state("error", "There is no such model", message, again);
  }
  if (isOfRow(error)) {
    return state("error", "This row does not fit the model", message, "Nothing was sent.");
  }
  const title = doing === "opening" ? "This model cannot be opened" : "The row was not answered";
  return state("error", title, message, again);
}

/**
 * @param {string | null} keyholderUrl
 * @param {HTMLElement | null} again
 */
export function needsKeyholder(keyholderUrl, again) {
  return state(
    "error",
    "This model needs the key holder on this machine",
    "It is a tree or a forest: it needs evaluation keys of tens of megabytes and a key that is kept, " +
      "which a page does not do.",
    make("p", {}, "In a terminal on this machine:"),
    make("pre", {}, make("code", {}, "keyholder serve")),
    make(
      "p",
      {},
      keyholderUrl
        ? `It is expected at ${keyholderUrl}, and sends ciphertexts alone. Where it runs already, its ` +
          `setting CLOISTER_CONSOLE_ORIGINS must name ${location.origin}.`
        : "and the console's setting CLOISTER_KEYHOLDER_URL must name its address.",
    ),
    again,
  );
}

/**
 * Whether the row was refused before it was encrypted.
 *
 * @param {unknown} error
 */
function isOfRow(error) {
  if (error instanceof KeyholderError) return error.status === 422;
  return error instanceof Error && error.constructor === CloisterError;
}

/**
 * The HTTP status of a refusal; null: there was no answer; undefined: it is something else.
 *
 * @param {unknown} error
 */
function statusOf(error) {
  if (error instanceof RequestRefused) return error.status;
  if (error instanceof ServiceError || error instanceof KeyholderError) return error.status;
  return undefined;
}

/** @param {(apiKey: string) => void} useKey */
function keyForm(useKey) {
  const input = make("input", {
    type: "password",
    autocomplete: "off",
    required: true,
    spellcheck: "false",
  });
  const form = make(
    "form",
    { class: "row key-form" },
    make("label", {}, "API key", input),
    make("button", { class: "primary" }, "Use it"),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(input.value.trim());
    input.value = "";
  });
  return make(
    "div",
    {},
    form,
    make(
      "p",
      { class: "small" },
      "It is kept in this page until it is closed, and goes to the service alone.",
    ),
  );
}
