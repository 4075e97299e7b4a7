/** The filter bar: `handler:ship_order since:2h some text`, completed from what is known. */
import { html, useRef, useState } from "../ui.js";

/**
 * What can be typed. `names` has the API's field for each name that is understood, `typed` the names that are offered,
 * `words` the field of words without a name.
 * @typedef {{names: Record<string, string>, typed: string[], words: string}} Fields
 */

const TIMES = ["15min", "1h", "6h", "1d", "7d"];
const UNITS = /** @type {Record<string, number>} */ ({ min: 60, h: 3600, d: 86_400 });

/**
 * The part of a place's query that is a filter.
 * @param {Record<string, string>} query
 * @param {Fields} fields
 * @returns {Record<string, string>}
 */
export function filterOf(query, { names, words }) {
  const known = new Set([...Object.values(names), words]);
  return Object.fromEntries(Object.entries(query).filter(([name, value]) => known.has(name) && value));
}

/**
 * `values` are the known ones of a field of the API; `describe` may show a value otherwise.
 * @param {{filter: Record<string, string>, fields: Fields, label: string, hint: string,
 *   values: (field: string) => string[], describe?: (field: string, value: string) => string | undefined,
 *   onChange: (filter: Record<string, string>) => void}} props
 */
export function FilterBar({ filter, fields, label, hint, values, describe, onChange }) {
  const [text, setText] = useState("");
  const [isOpen, setOpen] = useState(false);
  const [at, setAt] = useState(-1);
  const input = useRef(/** @type {HTMLInputElement | null} */ (null));
  const options = completions(text, fields, values);
  /** @param {string} typed */
  const apply = (typed) => {
    const parsed = understood(typed, fields);
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
        <span class="chip-name">${shownName(name, fields)}</span> ${describe?.(name, value) ?? shortened(name, value)}
        <button type="button" aria-label=${`Remove ${shownName(name, fields)}`} onClick=${() => onChange(without(filter, name))}>✕</button>
      </span>`,
    )}
    <div class="filter-field">
      <input id="filter" ref=${input} type="text" role="combobox" aria-label=${label} aria-expanded=${isOpen && options.length > 0}
        aria-controls="filter-options" aria-autocomplete="list" autocomplete="off" spellcheck=${false} maxlength="200"
        aria-activedescendant=${at >= 0 ? `filter-option-${at}` : undefined}
        placeholder=${Object.keys(filter).length ? "and…" : hint} value=${text}
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

/** @param {string} field @param {Fields} fields */
function shownName(field, { names, typed }) {
  return typed.find((one) => names[one] === field) ?? (field === "q" ? "text" : Object.keys(names).find((one) => names[one] === field)) ?? field;
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
 * @param {Fields} fields
 * @returns {Record<string, string>}
 */
function understood(typed, fields) {
  /** @type {Record<string, string>} */ const found = {};
  /** @type {string[]} */ const words = [];
  for (const part of typed.match(/\w+:"[^"]*"|\S+/g) ?? []) {
    const [, name = "", value = ""] = /^(\w+):(.*)$/s.exec(part) ?? [];
    const field = fields.names[name];
    if (!field || !value) words.push(part);
    else found[field] = field === "since" || field === "until" ? moment(value) : value.replaceAll('"', "");
  }
  if (words.length) found[fields.words] = words.join(" ");
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
 * @param {Fields} fields
 * @param {(field: string) => string[]} values
 */
function completions(text, { names, typed }, values) {
  const last = text.split(/\s+/).at(-1) ?? "";
  const [, name, begun = ""] = /^(\w+):(.*)$/s.exec(last) ?? [];
  if (!name) return typed.filter((one) => one.startsWith(last)).map((one) => `${one}:`);
  const field = names[name];
  if (!field) return [];
  const known = field === "since" || field === "until" ? TIMES : [...new Set(values(field))];
  return known
    .filter((one) => one && one.toLowerCase().includes(begun.toLowerCase()))
    .slice(0, 8)
    .map((one) => `${name}:${/\s/.test(one) ? `"${one}"` : one}`);
}
