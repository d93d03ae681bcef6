/** The page: tabs, each made when it is chosen first. */

import { makeContext } from "./context.js";
import { find, state } from "./dom.js";
import { startTabs } from "./tabs.js";
import * as models from "./models/index.js";
import * as parties from "./parties/index.js";
import * as training from "./training/index.js";
import * as trying from "./try/index.js";

/** @import { Context, Tab } from "./context.js" */

/** @type {Record<string, (element: HTMLElement, context: Context) => Tab | void>} */
const MOUNTS = {
  try: trying.mount,
  training: training.mount,
  models: models.mount,
  parties: parties.mount,
};

const context = makeContext();
/** @type {Map<string, Promise<Tab>>} */
const mounted = new Map();

/**
 * @param {string} name
 * @param {HTMLElement} panel
 * @returns {Promise<Tab>}
 */
async function mount(name, panel) {
  try {
    return MOUNTS[name]?.(panel, await context) ?? {};
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    panel.replaceChildren(
      state("error", "This page could not be set up", `${message}. Reload it to try again.`),
    );
    return {};
  }
}

const choices = Object.keys(MOUNTS).map((name) => ({
  name,
  tab: find(document, `#tab-${name}`, HTMLElement),
  panel: find(document, `#panel-${name}`, HTMLElement),
}));
startTabs(choices, async (chosen, before) => {
  document.title = `${chosen.tab.textContent?.trim()} · Cloister`;
  if (before) (await mounted.get(before.name))?.hidden?.();
  const tab = mounted.get(chosen.name);
  if (tab) (await tab).shown?.();
  else mounted.set(chosen.name, mount(chosen.name, chosen.panel));
});
