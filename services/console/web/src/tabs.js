/** Tabs by the address' hash, with one stop of the tab key and arrows between them. */

/**
 * @typedef {object} Choice
 * @property {string} name in the hash
 * @property {HTMLElement} tab
 * @property {HTMLElement} panel
 */

/**
 * Show the panel of the tab that the hash names, now and whenever it changes.
 *
 * @param {Choice[]} choices
 * @param {(chosen: Choice, before: Choice | null) => void} onChoice
 */
export function startTabs(choices, onChoice) {
  /** @type {Choice | null} */
  let current = null;

  function follow() {
    const named = choices.find(({ name }) => location.hash === `#${name}`);
    // Other hashes, such as the skip link's, lead elsewhere on the page.
    const chosen = named ?? current ?? choices[0];
    if (!chosen || chosen === current) return;
    for (const { tab, panel } of choices) {
      tab.setAttribute("aria-selected", String(tab === chosen.tab));
      tab.tabIndex = tab === chosen.tab ? 0 : -1;
      panel.hidden = panel !== chosen.panel;
    }
    const before = current;
    current = chosen;
    onChoice(chosen, before);
  }

  /**
   * @param {number} index
   */
  function choose(index) {
    const choice = choices.at(index % choices.length);
    if (!choice) return;
    location.hash = choice.name;
    choice.tab.focus();
  }

  choices.forEach(({ tab }, index) => {
    tab.addEventListener("click", () => choose(index));
    tab.addEventListener("keydown", (event) => {
      const to = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      choose(to);
    });
  });
  addEventListener("hashchange", follow);
  follow();
}
