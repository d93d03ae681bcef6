/** Elements, made and found. Text is set as text: nothing that comes from elsewhere becomes markup. */

/**
 * Make an element.
 *
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean>} [attributes] true: without a value; false: none
 * @param {...(Node | string | null)} children null: none
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  setAttributes(element, attributes);
  element.append(...children.filter((child) => child !== null));
  return element;
}

/**
 * Make an element of a picture.
 *
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string | number | boolean>} [attributes]
 * @param {...(Node | string)} children
 * @returns {SVGElementTagNameMap[K]}
 */
export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  setAttributes(element, attributes);
  element.append(...children);
  return element;
}

/**
 * @param {Element} element
 * @param {Record<string, string | number | boolean>} attributes
 */
function setAttributes(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) element.setAttribute(name, value === true ? "" : String(value));
  }
}

/**
 * Find an element of a kind.
 *
 * @template {Element} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} type
 * @returns {T}
 */
export function find(root, selector, type) {
  const found = root.querySelector(selector);
  if (!(found instanceof type)) throw new Error(`the page has no ${selector}`);
  return found;
}

/**
 * Make a designed state in the place of content: nothing there yet, or something wrong.
 *
 * @param {"empty" | "loading" | "error"} kind
 * @param {string} title
 * @param {...(Node | string | null)} content what to know, and what to do
 */
export function state(kind, title, ...content) {
  return make(
    "div",
    { class: `state ${kind}`, role: kind === "error" ? "alert" : "status" },
    make("p", { class: "state-title" }, title),
    ...content.map((one) => (typeof one === "string" ? make("p", {}, one) : one)),
  );
}
