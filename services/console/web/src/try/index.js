/** A tab that is yet to come. */

import { state } from "../dom.js";

/** @import { Context } from "../context.js" */

/**
 * @param {HTMLElement} element
 * @param {Context} _context
 */
export function mount(element, _context) {
  element.append(state("empty", "Nothing here yet"));
}
