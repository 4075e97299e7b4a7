/** Edit the data of a letter, see the difference, and replay it. */
import { Problem, ask } from "../api.js";
import { counted } from "../format.js";
import { differences, isObject, mergePatch, parse, write } from "../json.js";
import { Dialog, Failure, note } from "../parts.js";
import { textOf } from "../tree.js";
import { html, useEffect, useMemo, useState } from "../ui.js";
import { JsonEditor, SYNTAX } from "./editor.js";
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
  const { problems, isChecking, failed } = useCheck(check, edit, letter.parse_check.problems);
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
  const sentData = error?.body["errors"];
  const mistakes = edit.error ? [{ pointer: SYNTAX, message: edit.error }] : (sentData ?? problems ?? []).map(placed);
  return html`<${Dialog} title="Edit and replay" onClose=${onClose} isWide=${true}>
    <form class="stack" onSubmit=${send}>
      <p class="muted">Fields that you do not change keep their stored values, also hidden ones. Each change is checked by today's class.</p>
      <${JsonEditor} label=${html`Data of <span class="mono">${letter.event_type}</span>`} text=${text} mistakes=${mistakes} onInput=${(/** @type {string} */ next) => (setText(next), setError(null))} />
      <div class="edit-result">
        <p role="status"><${Verdict} edit=${edit} mistakes=${mistakes.length} isChecking=${isChecking} failed=${failed} /></p>
        ${edit.differences.length > 0 && html`<p class="label">What changes</p><${Diff} differences=${edit.differences} />`}
      </div>
      <label><span>Reason <span class="muted">(kept in the history)</span></span><input name="reason" maxlength="1000" /></label>
      ${error && !error.body["errors"] && html`<${Failure} error=${error} />`}
      <footer class="dialog-foot">
        <button type="button" onClick=${onClose}>Cancel</button>
        <button class="primary" disabled=${isBusy || !!edit.error || !edit.differences.length || isChecking || !!problems?.length}>${isBusy ? "Replaying…" : "Replay with these data"}</button>
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
    return { error: /** @type {Error} */ (failure).message.replace(/ in JSON at position.*/s, ""), differences: [], change: {} };
  }
  if (!isObject(after)) return { error: "the data of an event are a JSON object", differences: [], change: {} };
  const patch = mergePatch(before, after);
  return { error: "", differences: differences(before, after), change: patch === null ? { data: after } : { patch } };
}

/** @param {{edit: {error: string, differences: unknown[]}, mistakes: number, isChecking: boolean, failed: string}} props */
function Verdict({ edit, mistakes, isChecking, failed }) {
  if (edit.error) return html`<span class="bad-text">This is not JSON yet.</span>`;
  if (mistakes) return html`<span class="bad-text">Its class refuses this: ${counted(mistakes, "mistake")}.</span>`;
  if (isChecking) return html`<span class="muted">Checking…</span>`;
  if (failed) return html`<span class="warn-text">Not checked: ${failed}</span>`;
  if (edit.differences.length) return html`<span class="good-text">Its class accepts this.</span>`;
  return html`<span class="muted">Nothing is changed yet.</span>`;
}

/** @param {any} problem */
function placed({ pointer, where, message }) {
  return { pointer: pointer || where || "", message };
}

/**
 * What the event's class says about an edit, asked a moment after the last key. Undefined while that is not known.
 * @param {string} url
 * @param {{error: string, differences: unknown[], change: Record<string, unknown>}} edit
 * @param {any[]} unchanged what it says of the letter as it is
 * @returns {{problems: any[] | undefined, isChecking: boolean, failed: string}}
 */
function useCheck(url, edit, unchanged) {
  const key = edit.error || !edit.differences.length ? "" : write(edit.change);
  const [found, setFound] = useState({ key: "", problems: unchanged, failed: "" });
  useEffect(() => {
    if (!key) return undefined;
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const answer = await ask("POST", url, { body: edit.change, signal: abort.signal });
        setFound({ key, problems: answer.problems, failed: "" });
      } catch (failure) {
        if (abort.signal.aborted) return;
        if (!(failure instanceof Problem)) throw failure;
        setFound({ key, problems: failure.kind === "data-invalid" ? failure.body["errors"] : [], failed: failure.message });
      }
    }, 250);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [key]);
  if (!key) return { problems: edit.error ? [] : unchanged, isChecking: false, failed: "" };
  return found.key === key ? { ...found, isChecking: false } : { problems: undefined, isChecking: true, failed: "" };
}
