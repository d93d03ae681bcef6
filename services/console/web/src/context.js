/** What all tabs are given. */

import { Service } from "./service.js";

/** @import { ModelEntry } from "./service.js" */

/**
 * An API key that the user has typed. It is kept here alone, until the page is left.
 */
export class Session extends EventTarget {
  #apiKey = "";

  get apiKey() {
    return this.#apiKey;
  }

  set apiKey(key) {
    this.#apiKey = key;
    this.dispatchEvent(new Event("change"));
  }
}

/**
 * @typedef {object} Context
 * @property {string} serviceUrl origin of the inference service
 * @property {string | null} keyholderUrl origin of the key holder's loopback interface
 * @property {Session} session with the API key that the user has typed, in any tab
 * @property {Service} service the inference service's public interface
 * @property {() => Promise<ModelEntry[]>} models all models and their versions; throws a
 *   `ServiceError`
 */

/**
 * @typedef {object} Tab what a tab's `mount` may return
 * @property {() => void} [shown] called when it is chosen, but for the first time
 * @property {() => void} [hidden] called when another is
 */

/**
 * @returns {Promise<Context>}
 */
export async function makeContext() {
  const answer = await fetch("/api/configuration");
  if (!answer.ok) throw new Error(`the console answers ${answer.status}`);
  const { service_url: serviceUrl, keyholder_url: keyholderUrl } = await answer.json();
  const session = new Session();
  const service = new Service(serviceUrl, session);
  return { serviceUrl, keyholderUrl, session, service, models: () => service.models() };
}
