/** The filter bar: `handler:ship_order since:2h some text`, completed from the causes. */
import { className } from "../format.js";
import { html, useMemo, useRef, useState } from "../ui.js";

/** The fields of the API's filter. */
export const FIELDS = ["handler", "group", "event_type", "error_type", "reason", "fingerprint", "since", "until", "q"];

const NAMES = /** @type {Record<string, string>} */ ({
  handler: "handler",
  group: "group",
  event: "event_type",
  event_type: "event_type",
  error: "error_type",
  error_type: "error_type",
  reason: "reason",
  cause: "fingerprint",
  fingerprint: "fingerprint",
  since: "since",
  until: "until",
});
const TYPED = ["handler", "event", "error", "group", "reason", "since", "until"];
const SHOWN = /** @type {Record<string, string>} */ ({ event_type: "event", error_type: "error", fingerprint: "cause", q: "text" });
const TIMES = ["15min", "1h", "6h", "1d", "7d"];
const UNITS = /** @type {Record<string, number>} */ ({ min: 60, h: 3600, d: 86_400 });

/**
 * @param {{filter: Record<string, string>, causes: import("../types.js").Cause[],
 *   onChange: (filter: Record<string, string>) => void}} props
 */
export function FilterBar({ filter, causes, onChange }) {
  const [text, setText] = useState("");
  const [isOpen, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const options = useMemo(() => completions(text, causes), [text, causes]);
  /** @param {string} typed */
  const apply = (typed) => {
    const parsed = understood(typed);
    setText("");
    setAt(-1);
    setOpen(false);
    if (Object.keys(parsed).length) onChange({ ...filter, ...parsed });
  };
  /** @param {string} option */
  const choose = (option) => {
    const words = text.split(/\s+/).slice(0, -1);
    const next = [...words, option].join(" ");
    if (!option.endsWith(":")) return apply(next);
    setText(next);
    setAt(-1);
    input.current?.focus();
  };
  /** @param {KeyboardEvent} event */
  const press = (event) => {
    const chosen = options[at];
    if (event.key === "ArrowDown") setAt(Math.min(options.length - 1, at + 1));
    else if (event.key === "ArrowUp") setAt(Math.max(-1, at - 1));
    else if (event.key === "Enter") chosen && isOpen ? choose(chosen) : apply(text);
    else if (event.key === "Tab" && chosen && isOpen) choose(chosen);
    else if (event.key === "Escape") isOpen ? setOpen(false) : input.current?.blur();
    else if (event.key === "Backspace" && !text) onChange(without(filter, Object.keys(filter).at(-1)));
    else return;
    event.preventDefault();
  };
  return html`<div class="filter" onClick=${() => input.current?.focus()}>
    ${Object.entries(filter).map(
      ([name, value]) => html`<span class="chip" key=${name}>
        <span class="chip-name">${SHOWN[name] ?? name}</span> ${name === "fingerprint" ? causeName(value, causes) : shortened(name, value)}
        <button type="button" aria-label=${`Remove ${SHOWN[name] ?? name}`} onClick=${() => onChange(without(filter, name))}>✕</button>
      </span>`,
    )}
    <div class="filter-field">
      <input id="filter" ref=${input} type="text" role="combobox" aria-label="Filter letters" aria-expanded=${isOpen && options.length > 0}
        aria-controls="filter-options" aria-autocomplete="list" autocomplete="off" spellcheck=${false} maxlength="200"
        aria-activedescendant=${at >= 0 ? `filter-option-${at}` : undefined}
        placeholder=${Object.keys(filter).length ? "and…" : "Filter: handler:, event:, error:, since:2h, or any text  ( / )"} value=${text}
        onInput=${(/** @type {any} */ event) => (setText(event.target.value), setAt(-1), setOpen(true))}
        onFocus=${() => setOpen(true)} onBlur=${() => setOpen(false)} onKeyDown=${press} />
      ${isOpen && options.length > 0 &&
      html`<ul id="filter-options" role="listbox" aria-label="Completions">
        ${options.map(
          (one, index) => html`<li key=${one} id=${`filter-option-${index}`} role="option" aria-selected=${index === at}
            onMouseDown=${(/** @type {Event} */ event) => (event.preventDefault(), choose(one))}>${one}</li>`,
        )}
      </ul>`}
    </div>
  </div>`;
}

/** @param {string} fingerprint @param {import("../types.js").Cause[]} causes */
function causeName(fingerprint, causes) {
  const cause = causes.find((one) => one.fingerprint === fingerprint);
  return cause ? [className(cause.error_type) || cause.reason, cause.handler && `in ${cause.handler}`].filter(Boolean).join(" ") : fingerprint;
}

/** @param {string} name @param {string} value */
function shortened(name, value) {
  return name === "since" || name === "until" ? value.replace("T", " ").replace(/(:\d\d)(\.\d+)?Z$/, " UTC") : value;
}

/** @param {Record<string, string>} filter @param {string | undefined} name */
function without(filter, name) {
  return Object.fromEntries(Object.entries(filter).filter(([one]) => one !== name));
}

/**
 * The filter that a text means.
 * @param {string} typed
 * @returns {Record<string, string>}
 */
function understood(typed) {
  /** @type {Record<string, string>} */ const found = {};
  /** @type {string[]} */ const words = [];
  for (const part of typed.match(/\w+:"[^"]*"|\S+/g) ?? []) {
    const [, name = "", value = ""] = /^(\w+):(.*)$/s.exec(part) ?? [];
    const field = NAMES[name];
    if (!field || !value) words.push(part);
    else found[field] = field === "since" || field === "until" ? moment(value) : value.replaceAll('"', "");
  }
  if (words.length) found["q"] = words.join(" ");
  return found;
}

/** A time of the API, of `2h` or of a date. @param {string} value */
function moment(value) {
  const [, number, unit] = /^(\d+)\s*(min|h|d)$/.exec(value) ?? [];
  if (!number || !unit) return value;
  return new Date(Date.now() - Number(number) * (UNITS[unit] ?? 0) * 1000).toISOString().replace(/\.\d+Z/, "Z");
}

/**
 * How the last word can go on.
 * @param {string} text
 * @param {import("../types.js").Cause[]} causes
 */
function completions(text, causes) {
  const last = text.split(/\s+/).at(-1) ?? "";
  const [, name, begun = ""] = /^(\w+):(.*)$/s.exec(last) ?? [];
  if (!name) return TYPED.filter((one) => one.startsWith(last)).map((one) => `${one}:`);
  const field = NAMES[name];
  if (!field) return [];
  const values = field === "since" || field === "until" ? TIMES : [...new Set(causes.map((one) => String(/** @type {any} */ (one)[field] ?? "")))];
  return values
    .filter((one) => one && one.toLowerCase().includes(begun.toLowerCase()))
    .slice(0, 8)
    .map((one) => `${name}:${/\s/.test(one) ? `"${one}"` : one}`);
}
