/** Edit the data of a letter, see the difference, and replay it. */
import { Problem, ask } from "../api.js";
import { differences, isObject, mergePatch, parse, write } from "../json.js";
import { Dialog, Failure, note } from "../parts.js";
import { textOf } from "../tree.js";
import { html, useEffect, useMemo, useState } from "../ui.js";
import { Diff } from "./history.js";

/**
 * @param {{letter: import("../types.js").Letter, route: string, check: string, onClose: () => void}} props
 */
export function EditDialog({ letter, route, check, onClose }) {
  const before = letter.payload.value;
  const isEditable = letter.payload.encoding === "json" && isObject(before);
  const [text, setText] = useState(() => textOf(letter.payload));
  const [error, setError] = useState(/** @type {Problem | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  const edit = useMemo(() => understood(text, before), [text]);
  const problems = useCheck(check, edit);
  /** @param {any} event */
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      await ask("POST", route, { body: { ...edit.change, reason: event.target.elements.reason.value } });
      note("Replayed with changed data.");
      onClose();
    } catch (failure) {
      if (!(failure instanceof Problem)) throw failure;
      setError(failure);
      setBusy(false);
    }
  };
  if (!isEditable) {
    return html`<${Dialog} title="Edit and replay" onClose=${onClose}>
      <p>This payload is not shown as a JSON object, so it cannot be edited here. Replay it with changed data from Python.</p>
    <//>`;
  }
  const refused = error?.body["errors"] ?? problems;
  return html`<${Dialog} title="Edit and replay" onClose=${onClose} isWide=${true}>
    <form class="stack" onSubmit=${send}>
      <p class="muted">Fields that you do not change keep their stored values, also hidden ones.</p>
      <label><span>Data of <span class="mono">${letter.event_type}</span></span>
        <textarea class="mono" rows="16" spellcheck=${false} autofocus value=${text} aria-invalid=${!!edit.error}
          onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>
      </label>
      <div aria-live="polite">
        ${edit.error && html`<p class="bad-text">${edit.error}</p>`}
        ${refused?.length > 0 && html`<ul class="problems">
          ${refused.map((/** @type {any} */ one, /** @type {number} */ at) => html`<li key=${at}><span class="mono">${one.pointer || one.where || "the event"}</span> ${one.message}</li>`)}
        </ul>`}
        ${!edit.error && problems?.length === 0 && html`<p class="good-text">Its class accepts this.</p>`}
        ${edit.differences.length > 0 ? html`<p class="label">What changes</p><${Diff} differences=${edit.differences} />` : !edit.error && html`<p class="muted">Nothing is changed yet.</p>`}
      </div>
      <label><span>Reason <span class="muted">(kept in the history)</span></span><input name="reason" maxlength="1000" /></label>
      ${error && !error.body["errors"] && html`<${Failure} error=${error} />`}
      <footer class="dialog-foot">
        <button type="button" onClick=${onClose}>Cancel</button>
        <button class="primary" disabled=${isBusy || !!edit.error || !edit.differences.length}>${isBusy ? "Replaying…" : "Replay with these data"}</button>
      </footer>
    </form>
  <//>`;
}

/**
 * What a text means as an edit.
 * @param {string} text
 * @param {any} before
 * @returns {{error: string, differences: import("../json.js").Difference[], change: Record<string, unknown>}}
 */
function understood(text, before) {
  /** @type {unknown} */ let after;
  try {
    after = parse(text);
  } catch (failure) {
    return { error: `This is not JSON yet: ${/** @type {Error} */ (failure).message}`, differences: [], change: {} };
  }
  if (!isObject(after)) return { error: "The data of an event are a JSON object.", differences: [], change: {} };
  const patch = mergePatch(before, after);
  return { error: "", differences: differences(before, after), change: patch === null ? { data: after } : { patch } };
}

/**
 * What the event's class says about an edit, asked a moment after the last key. Undefined while that is not known.
 * @param {string} url
 * @param {{error: string, differences: unknown[], change: Record<string, unknown>}} edit
 * @returns {any[] | undefined}
 */
function useCheck(url, edit) {
  const [found, setFound] = useState(/** @type {any[] | undefined} */ (undefined));
  const key = edit.error || !edit.differences.length ? "" : write(edit.change);
  useEffect(() => {
    setFound(undefined);
    if (!key) return undefined;
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const answer = await ask("POST", url, { body: edit.change, signal: abort.signal });
        setFound(answer.problems);
      } catch (failure) {
        if (failure instanceof Problem && failure.kind === "data-invalid") setFound(failure.body["errors"]);
      }
    }, 400);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [key]);
  return found;
}
