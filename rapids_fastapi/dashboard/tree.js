/** A JSON value as a tree that folds. */
import { count, counted, size } from "./format.js";
import { Exact, isObject, write } from "./json.js";
import { html, useState } from "./ui.js";

const FOLDED_FROM = 30;
const SHOWN = 200;
const MASK = "[redacted]";

/**
 * @param {{name?: string, value: unknown, depth?: number, open?: boolean}} props
 */
export function Tree({ name, value, depth = 0, open }) {
  const entries = Array.isArray(value)
    ? value.map((one, at) => /** @type {[string, unknown]} */ ([String(at), one]))
    : isObject(value)
      ? Object.entries(value)
      : null;
  const [isOpen, setOpen] = useState(open ?? (depth < 3 && (entries?.length ?? 0) < FOLDED_FROM));
  const [shown, setShown] = useState(SHOWN);
  const label = name === undefined ? null : html`<span class="tree-name">${name}</span><span class="tree-mark">: </span>`;
  if (!entries) return html`<div class="tree-line">${label}<${Leaf} value=${value} /></div>`;
  const [begin, end] = Array.isArray(value) ? ["[", "]"] : ["{", "}"];
  if (!entries.length) return html`<div class="tree-line">${label}<span class="tree-mark">${begin}${end}</span></div>`;
  const what = counted(entries.length, Array.isArray(value) ? "item" : "field");
  return html`<div class="tree-part">
    <button type="button" class="tree-fold" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>
      <span class="tree-arrow" aria-hidden="true">${isOpen ? "▾" : "▸"}</span>${label}<span class="tree-mark">${begin}</span>
      ${!isOpen && html`<span class="muted"> ${what} </span><span class="tree-mark">${end}</span>`}
    </button>
    ${isOpen &&
    html`<div class="tree-inner">
        ${entries.slice(0, shown).map(([key, one]) => html`<${Tree} key=${key} name=${key} value=${one} depth=${depth + 1} />`)}
        ${entries.length > shown &&
        html`<button type="button" class="link" onClick=${() => setShown(shown + 1000)}>
          ${count(entries.length - shown)} more
        </button>`}
      </div>
      <div class="tree-line tree-mark">${end}</div>`}
  </div>`;
}

/** @param {{value: unknown}} props */
function Leaf({ value }) {
  if (value === MASK) return html`<span class="tree-hidden" title="Hidden by redaction">${MASK}</span>`;
  if (value instanceof Exact) return html`<span class="tree-number">${value.source}</span>`;
  if (typeof value === "string") return html`<span class="tree-text">"${value}"</span>`;
  return html`<span class=${typeof value === "number" ? "tree-number" : "tree-word"}>${String(value)}</span>`;
}

/**
 * The text of a payload, for copying and editing.
 * @param {import("./types.js").Payload} payload
 */
export function textOf(payload) {
  return payload.encoding === "json" ? write(payload.value, 2) : String(payload.value ?? "");
}

/**
 * Data of an event, however they are shown.
 * @param {{payload: import("./types.js").Payload}} props
 */
export function PayloadView({ payload }) {
  switch (payload.encoding) {
    case "json":
      return html`<div class="tree"><${Tree} value=${payload.value} open=${true} /></div>`;
    case "omitted":
      return html`<p class="muted">Too large to show: ${size(payload.size)}. An export has it.</p>`;
    case "withheld":
      return html`<p class="muted">
        Withheld: ${size(payload.size)} that are not JSON, so that it is not known what to hide in them.
      </p>`;
    default:
      return html`<pre class="text">${payload.value}</pre>
        ${payload.truncated && html`<p class="muted">The beginning of ${size(payload.size)}.</p>`}
        ${payload.encoding === "base64" && html`<p class="muted">Bytes that are no text, as Base64.</p>`}`;
  }
}
