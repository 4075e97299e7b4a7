/** The parts that every view is made of. */
import { Problem, staleSince } from "./api.js";
import { ago, className, count, exactly, now } from "./format.js";
import { html, signal, useEffect, useRef, useState } from "./ui.js";

/**
 * A time: how long ago, and exactly when the pointer is over it.
 * @param {{at: string | null | undefined}} props
 */
export function Time({ at }) {
  if (!at) return html`<span class="muted">–</span>`;
  void now.value;
  return html`<time datetime=${at} title=${exactly(at)}>${ago(at)}</time>`;
}

/**
 * The class of an error by its name alone, with its module when the pointer is over it.
 * @param {{type: string}} props
 */
export function ErrorType({ type }) {
  return html`<span class="error-type" title=${type}>${className(type)}</span>`;
}

const TONES = /** @type {Record<string, string>} */ ({
  dead: "bad",
  failed: "bad",
  failed_again: "bad",
  invalid: "bad",
  unreadable: "bad",
  danger: "bad",
  parked: "bad",
  group_unknown: "bad",
  waiting: "warn",
  warning: "warn",
  paused: "warn",
  pending: "warn",
  newer_version: "warn",
  unknown_type: "warn",
  too_large: "warn",
  running: "info",
  held: "info",
  replayed: "info",
  sent: "info",
  handled: "good",
  completed: "good",
  parses: "good",
  alive: "good",
});

/**
 * A state as a word with a colour that means something.
 * @param {{state: string, title?: string}} props
 */
export function State({ state, title }) {
  return html`<span class=${`state ${TONES[state] ?? "plain"}`} title=${title}>${state.replaceAll("_", " ")}</span>`;
}

/**
 * Nothing to show: what that means, and what to do.
 * @param {{title: string, children?: any}} props
 */
export function Empty({ title, children }) {
  return html`<div class="empty"><p class="empty-title">${title}</p>${children}</div>`;
}

/** Rows that are on their way. @param {{rows?: number}} props */
export function Loading({ rows = 5 }) {
  return html`<div class="loading" role="status" aria-label="Loading">
    ${Array.from({ length: rows }, (_, n) => html`<div class="bone" key=${n}></div>`)}
  </div>`;
}

/**
 * What went wrong, and a way to try again.
 * @param {{error: Error, retry?: () => void}} props
 */
export function Failure({ error, retry }) {
  const title = error instanceof Problem ? (error.body["title"] ?? "The request failed") : "Something went wrong";
  return html`<div class="failure" role="alert">
    <p><strong>${title}.</strong> ${error.message}</p>
    ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}
  </div>`;
}

/**
 * The content of a query: loading, failed, stale or there.
 * @param {{query: import("./api.js").Query<any>, rows?: number, children: (data: any) => any}} props
 */
export function Answer({ query, rows, children }) {
  if (query.data) return children(query.data);
  if (query.error) return html`<${Failure} error=${query.error} retry=${query.reload} />`;
  return html`<${Loading} rows=${rows} />`;
}

/** @param {{text: string, label?: string}} props */
export function Copy({ text, label = "Copy" }) {
  const [isDone, setDone] = useState(false);
  const copy = async () => {
    if (!(await copied(text))) return;
    setDone(true);
    setTimeout(() => setDone(false), 1500);
  };
  return html`<button type="button" class="quiet" onClick=${copy}>${isDone ? "Copied" : label}</button>`;
}

/**
 * Copy a text. Browsers have the clipboard only where the page came by https or from this machine; the older way works
 * everywhere.
 * @param {string} text
 */
async function copied(text) {
  if (navigator.clipboard && isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // as without a clipboard
    }
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "offscreen";
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  return isCopied;
}

/**
 * A dialog over the page. Escape closes it.
 * @param {{title: string, onClose: () => void, children: any, isWide?: boolean}} props
 */
export function Dialog({ title, onClose, children, isWide = false }) {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return html`<dialog ref=${ref} class=${isWide ? "wide" : ""} aria-label=${title} onCancel=${onClose} onClose=${onClose}>
    <header class="dialog-head">
      <h2>${title}</h2>
      <button type="button" class="quiet" aria-label="Close" onClick=${onClose}>✕</button>
    </header>
    ${children}
  </dialog>`;
}

/**
 * @typedef {{id: number, text: string, undo?: () => Promise<void>, href?: string, isBad?: boolean}} Note
 */
/** @type {import("./vendor/signals.js").Signal<Note[]>} */
const notes = signal([]);
let lastNote = 0;

/**
 * Say what happened, for some seconds, perhaps with a way back.
 * @param {string} text
 * @param {{undo?: () => Promise<void>, href?: string, isBad?: boolean}} [more]
 */
export function note(text, more = {}) {
  const id = ++lastNote;
  notes.value = [...notes.value.slice(-2), { id, text, ...more }];
  setTimeout(() => forget(id), more.undo || more.isBad ? 12_000 : 6000);
}

/** @param {number} id */
function forget(id) {
  notes.value = notes.value.filter((one) => one.id !== id);
}

/** What happened lately. */
export function Notes() {
  return html`<div class="notes" role="status" aria-live="polite">
    ${notes.value.map(
      (one) => html`<div key=${one.id} class=${one.isBad ? "note bad" : "note"}>
        <span>${one.text}</span>
        ${one.href && html`<a href=${one.href}>Show</a>`}
        ${one.undo &&
        html`<button type="button" class="link" onClick=${() => (forget(one.id), attempt(one.undo))}>Undo</button>`}
        <button type="button" class="quiet" aria-label="Dismiss" onClick=${() => forget(one.id)}>✕</button>
      </div>`,
    )}
  </div>`;
}

/**
 * Do something, and say so if it fails.
 * @template T
 * @param {(() => Promise<T>) | undefined} action
 * @returns {Promise<T | undefined>}
 */
export async function attempt(action) {
  try {
    return await action?.();
  } catch (error) {
    if (!(error instanceof Problem)) throw error;
    note(error.message, { isBad: true });
    return undefined;
  }
}

/** Whether what the page shows is true. */
export function Liveness() {
  void now.value;
  if (!staleSince.value) return html`<span class="live" title="Changes are shown within seconds">Live</span>`;
  return html`<span class="live stale" role="status">
    Not up to date for ${Math.max(1, Math.round((now.value - staleSince.value) / 1000))} s
  </span>`;
}

/**
 * A figure with its name.
 * @param {{name: string, value: any, tone?: string, title?: string}} props
 */
export function Figure({ name, value, tone = "", title }) {
  return html`<div class=${`figure ${tone}`} title=${title}>
    <span class="figure-value">${typeof value === "number" ? count(value) : value}</span>
    <span class="figure-name">${name}</span>
  </div>`;
}

/**
 * Names and values, one below the other.
 * @param {{rows: [string, any][]}} props
 */
export function Facts({ rows }) {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return html`<dl class="facts">
    ${shown.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}

/**
 * A button that needs a permission. Without it, it says why it does nothing.
 * @param {{has: boolean, permission: string, onClick: () => void, children: any, class?: string, disabled?: boolean,
 *   why?: string, keys?: string}} props
 */
export function Action({ has, permission, onClick, children, class: name = "", disabled = false, why = "", keys }) {
  const reason = has ? why : `You do not have the permission “${permission}”.`;
  return html`<button
    type="button"
    class=${name}
    disabled=${!has || disabled}
    title=${reason || undefined}
    aria-keyshortcuts=${keys}
    onClick=${onClick}
  >${children}</button>`;
}
