/** Events of trainings from the console, asked for again and again while somebody looks. */

const LIVE_MS = 1000;
const IDLE_MS = 5000;

/**
 * @typedef {object} Summary
 * @property {string} id
 * @property {"running" | "interrupted" | "published" | "failed"} state
 * @property {string | null} began
 * @property {string | null} model
 * @property {string | null} estimator
 * @property {number} round
 * @property {number | null} rounds
 *
 * @typedef {object} Batch
 * @property {Record<string, unknown>[]} events
 * @property {number} offset
 * @property {boolean} more
 * @property {boolean} restarted these are the first ones, of a new file
 * @property {boolean} writing
 * @property {number} skipped
 */

/** There is no such training any more. */
export class Gone extends Error {}

/**
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {Promise<any>}
 */
async function get(path, signal) {
  const answer = await fetch(path, { signal });
  if (answer.status === 404) throw new Gone((await answer.json()).detail);
  if (!answer.ok) throw new Error(`the console answers ${answer.status}`);
  return await answer.json();
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<Summary[]>} that written last first
 */
export function list(signal) {
  return get("/api/trainings", signal);
}

/**
 * @param {string} run
 * @param {number} offset
 * @param {AbortSignal} signal
 * @returns {Promise<Batch>}
 */
export function events(run, offset, signal) {
  return get(`/api/trainings/${encodeURIComponent(run)}/events?offset=${offset}`, signal);
}

/** @typedef {"at once" | "soon" | "later" | "done"} Next when to do something again */

/**
 * Do something again and again until it says that it is done, or the signal comes. While the window
 * is hidden it waits.
 *
 * @param {AbortSignal} signal
 * @param {(signal: AbortSignal) => Promise<Next>} step
 * @param {(error: unknown) => void} onFailure called when a step throws; it is repeated later
 */
export async function repeat(signal, step, onFailure) {
  while (!signal.aborted) {
    /** @type {Next} */
    let next = "later";
    try {
      next = await step(signal);
    } catch (error) {
      if (signal.aborted) return;
      onFailure(error);
    }
    if (next === "done") return;
    if (next !== "at once") await pause(next === "soon" ? LIVE_MS : IDLE_MS, signal);
  }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
async function pause(milliseconds, signal) {
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve(null);
    }, { once: true });
  });
  while (document.hidden && !signal.aborted) {
    await new Promise((resolve) => {
      document.addEventListener("visibilitychange", resolve, { once: true });
      signal.addEventListener("abort", resolve, { once: true });
    });
  }
}
