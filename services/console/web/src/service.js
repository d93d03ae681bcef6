/** The inference service's public interface, as far as the console uses it. */

/**
 * @typedef {object} VersionEntry
 * @property {string} version
 * @property {"READY" | "UNAVAILABLE"} state
 * @property {string} reason why it is not ready
 *
 * @typedef {object} ModelEntry
 * @property {string} name
 * @property {VersionEntry[]} versions the newest first
 */

/**
 * @typedef {object} Training what a version was trained as
 * @property {string} estimator
 * @property {string} dataset
 * @property {string} task
 * @property {number | null} accuracy 0 to 1
 * @property {number | null} absolute_error in the target's unit
 * @property {number | null} loss
 * @property {number | null} sites that measured it
 * @property {number} rounds
 * @property {string | null} strategy null: trained in one place
 * @property {boolean} secure_aggregation
 * @property {number | null} epsilon
 * @property {number | null} delta
 *
 * @typedef {object} Cost of one encrypted prediction
 * @property {number} input_bytes
 * @property {number} output_bytes
 * @property {number | null} compact_input_bytes
 * @property {number | null} compact_output_bytes
 * @property {number} evaluation_key_bytes
 * @property {number | null} floor_ms
 * @property {number} features
 * @property {number} outputs
 * @property {number} bits_inputs
 * @property {number} bits_weights
 * @property {number} lwe_dimension
 *
 * @typedef {object} VersionDetails what is not known is null
 * @property {string} version
 * @property {"READY" | "UNAVAILABLE"} state
 * @property {string} reason why it is not ready
 * @property {string | null} evaluator
 * @property {string | null} evaluator_reason
 * @property {string | null} created ISO 8601
 * @property {number | null} model_version
 * @property {Training | null} training
 * @property {Cost | null} cost
 * @property {{ verified: number, probes: number | null, differing: number | null } | null} proof
 *
 * @typedef {object} ModelVersions
 * @property {string} name
 * @property {string | null} serving the version that serves requests which name none
 * @property {string | null} registered the version that the registry puts into use
 * @property {VersionDetails[]} versions the newest first
 */

/** The service did not do what it was asked for. */
export class ServiceError extends Error {
  /**
   * @param {number | null} status of its answer; null: there was none
   * @param {string} detail what it says, or what is wrong
   */
  constructor(status, detail) {
    super(detail);
    this.name = "ServiceError";
    this.status = status;
  }
}

export class Service {
  #url;
  #session;

  /**
   * @param {string} url its origin
   * @param {{ apiKey: string }} session
   */
  constructor(url, session) {
    this.#url = url;
    this.#session = session;
  }

  /**
   * @returns {Promise<ModelEntry[]>} by name
   */
  async models() {
    /** @type {Map<string, VersionEntry[]>} */
    const found = new Map();
    for (const { name, version, state, reason } of await this.ask("POST", "/v2/repository/index")) {
      found.set(name, [...(found.get(name) ?? []), { version, state, reason }]);
    }
    return [...found]
      .map(([name, versions]) => ({
        name,
        versions: versions.sort((one, other) => Number(other.version) - Number(one.version)),
      }))
      .sort((one, other) => one.name.localeCompare(other.name));
  }

  /**
   * @param {string} name
   * @returns {Promise<ModelVersions>}
   */
  versions(name) {
    return this.ask("GET", `/v2/models/${encodeURIComponent(name)}/versions`);
  }

  /**
   * Have a version serve requests that name none.
   *
   * @param {string} name
   * @param {string} version
   */
  async promote(name, version) {
    const path = `/v2/repository/models/${encodeURIComponent(name)}/promote`;
    await this.ask("POST", path, { parameters: { version } });
  }

  /**
   * Send a request and return the JSON of its answer, or null where that has none.
   *
   * @param {"GET" | "POST"} method
   * @param {string} path
   * @param {unknown} [body] sent as JSON
   * @returns {Promise<any>}
   */
  async ask(method, path, body) {
    /** @type {Record<string, string>} */
    const headers = {};
    if (this.#session.apiKey) headers["Authorization"] = `Bearer ${this.#session.apiKey}`;
    if (body !== undefined) headers["Content-Type"] = "application/json";
    /** @type {RequestInit} */
    const request = { method, headers, credentials: "omit", redirect: "error" };
    if (body !== undefined) request.body = JSON.stringify(body);
    let answer, text;
    try {
      answer = await fetch(this.#url + path, request);
      text = await answer.text();
    } catch {
      throw new ServiceError(
        null,
        `${this.#url} does not answer this page. Does the inference service run, and does ` +
          `CLOISTER_CORS_ORIGINS name ${location.origin}?`,
      );
    }
    const content = parsed(text);
    if (!answer.ok) throw new ServiceError(answer.status, content?.detail ?? answer.statusText);
    return content;
  }
}

/**
 * @param {string} text
 */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
