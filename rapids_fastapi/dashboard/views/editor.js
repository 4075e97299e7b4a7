/** A text of JSON, with what is wrong beside the lines it is about. */
import { linesOf, parse } from "../json.js";
import { html, useMemo, useRef, useState } from "../ui.js";

const LINE = 18; // the height of a line and the space above the first one: as in `views.css`
const ABOVE = 5;
const NOTE = 40;

/**
 * @typedef {{pointer: string, message: string}} Mistake where in the event, and what is wrong there
 */

/**
 * @param {{label: any, text: string, mistakes: Mistake[], onInput: (text: string) => void}} props
 */
export function JsonEditor({ label, text, mistakes, onInput }) {
  const area = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  const [top, setTop] = useState(0);
  const lines = useMemo(() => placesIn(text), [text]);
  const notes = mistakes
    .map((one) => ({ ...one, line: one.pointer === SYNTAX ? syntaxLine(text) : lineOf(one.pointer, lines) }))
    .sort((one, other) => one.line - other.line);
  let free = 0; // notes do not cover each other
  const placed = notes.map((one) => {
    const at = Math.max(free, ABOVE + (one.line - 1) * LINE - top);
    free = at + NOTE;
    return { ...one, at };
  });
  /** @param {number} line */
  const show = (line) => {
    const at = text.split("\n").slice(0, line - 1).reduce((all, one) => all + one.length + 1, 0);
    area.current?.focus();
    area.current?.setSelectionRange(at, at + (text.split("\n")[line - 1]?.length ?? 0));
    area.current?.scrollTo({ top: Math.max(0, (line - 3) * LINE) });
  };
  return html`<div class=${`editor ${notes.length ? "has-notes" : ""}`}>
    <label><span>${label}</span>
      <span class="editor-text">
        ${notes.map((one, at) => html`<span key=${at} class="editor-line" style=${{ top: `${ABOVE + (one.line - 1) * LINE - top}px` }}></span>`)}
        <textarea class="mono" ref=${area} rows="18" wrap="off" spellcheck=${false} autofocus value=${text} aria-invalid=${notes.length > 0} aria-describedby="mistakes"
          onScroll=${(/** @type {any} */ event) => setTop(event.target.scrollTop)} onInput=${(/** @type {any} */ event) => onInput(event.target.value)}></textarea>
      </span>
    </label>
    <div class="editor-notes" id="mistakes">
      ${placed.map((one, at) => html`<button key=${at} type="button" class="editor-note" style=${{ top: `${one.at}px` }} title=${one.message} onClick=${() => show(one.line)}>
        <span class="mono">${one.pointer === SYNTAX ? `line ${one.line}` : one.pointer || "the event"}</span> ${one.message}</button>`)}
    </div>
  </div>`;
}

/** The pointer of a mistake that is about the text, since it is no JSON. */
export const SYNTAX = "#";

/** @param {string} text */
function placesIn(text) {
  try {
    parse(text);
    return linesOf(text);
  } catch {
    return new Map([["", 1]]);
  }
}

/** The line of a value, or of what should have it. @param {string} pointer @param {Map<string, number>} lines */
function lineOf(pointer, lines) {
  let place = pointer;
  while (place && !lines.has(place)) place = place.slice(0, place.lastIndexOf("/"));
  return lines.get(place) ?? 1;
}

/** Where a text ceases to be JSON, as far as the browser says it. @param {string} text */
function syntaxLine(text) {
  try {
    parse(text);
    return 1;
  } catch (error) {
    const message = /** @type {Error} */ (error).message;
    const [, line] = /line (\d+)/.exec(message) ?? [];
    const [, position] = /position (\d+)/.exec(message) ?? [];
    if (line) return Number(line);
    return text.slice(0, position ? Number(position) : text.length).split("\n").length;
  }
}
