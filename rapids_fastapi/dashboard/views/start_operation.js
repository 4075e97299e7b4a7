/** The dialog before many letters are moved: a dry run first, with the number in the button. */
import { Problem, address, ask } from "../api.js";
import { count, counted } from "../format.js";
import { Dialog, ErrorType, Failure, Loading, note } from "../parts.js";
import { go, link, ofQueue, queue } from "../route.js";
import { html, useEffect, useState } from "../ui.js";

const VERBS = { replay: "Replay", discard: "Discard", restore: "Restore" };
const MEANING = {
  replay: "Each event goes back to the handler that failed. No other handler and no other group sees it.",
  discard: "Discarded letters can be restored until retention ends.",
  restore: "Restored letters are dead letters again.",
};
const RATES = [
  ["", "as fast as possible"],
  ["10", "10 a second"],
  ["50", "50 a second"],
  ["200", "200 a second"],
  ["1000", "1,000 a second"],
];

/**
 * @param {{kind: "replay" | "discard" | "restore", count: number, selector: Record<string, unknown>,
 *   onClose: () => void}} props
 */
export function StartDialog({ kind, count: expected, selector, onClose }) {
  const [preview, setPreview] = useState(/** @type {any} */ (null));
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const [isBusy, setBusy] = useState(false);
  /** @param {Record<string, unknown>} more */
  const send = (more) => ask("POST", address("operations", { dlq: queue() }), { body: { kind, selector, ...more } });
  /** @param {unknown} failure */
  const fail = (failure) => {
    if (!(failure instanceof Problem)) throw failure;
    setError(failure);
    setBusy(false);
  };
  useEffect(() => {
    send({ dry_run: true }).then(setPreview, fail);
  }, []);
  /** @param {any} event */
  const start = async (event) => {
    event.preventDefault();
    const fields = event.target.elements;
    setBusy(true);
    setError(null);
    try {
      const begun = await send({
        reason: fields.reason.value,
        ...(fields.rate.value ? { rate: Number(fields.rate.value) } : {}),
        ...(fields.canary?.checked ? { canary: {} } : {}),
        ...(fields.most.value ? { max_items: Number(fields.most.value) } : {}),
      });
      onClose();
      note(`${VERBS[kind]} of ${counted(begun.total, "letter")} has begun.`);
      go(link("operations", { id: begun.id, query: ofQueue() }));
    } catch (failure) {
      fail(failure);
    }
  };
  const total = preview?.total ?? expected;
  const running = error instanceof Problem && error.kind === "operation-running" ? error.body["operation"] : null;
  return html`<${Dialog} title=${`${VERBS[kind]} ${counted(total, "letter")}`} onClose=${onClose} isWide=${true}>
    <form onSubmit=${start} class="stack">
      <p>${MEANING[kind]}</p>
      ${!preview && !error && html`<${Loading} rows=${3} />`}
      ${preview && html`<${Preview} preview=${preview} kind=${kind} />`}
      <div class="fields">
        <label><span>Reason <span class="muted">(kept in the history)</span></span><input name="reason" maxlength="1000" autofocus /></label>
        <label>Rate
          <select name="rate">${RATES.map(([value, name]) => html`<option key=${value} value=${value}>${name}</option>`)}</select>
        </label>
        <label>At most<input name="most" type="number" min="1" placeholder="all of them" /></label>
      </div>
      ${kind === "replay" &&
      html`<label class="check-line"><input name="canary" type="checkbox" />
        <span>Canary: replay 1, 5, 25, … letters, wait each time for what becomes of them, and stop if more than 10 % fail again</span></label>`}
      ${error && html`<${Failure} error=${error} />`}
      ${running && html`<p><a href=${link("operations", { id: running, query: ofQueue() })} onClick=${onClose}>Show the operation that runs</a></p>`}
      <footer class="dialog-foot">
        <button type="button" onClick=${onClose}>Cancel</button>
        <button class=${kind === "discard" ? "danger" : "primary"} disabled=${isBusy || !preview || !total}>
          ${isBusy ? "Starting…" : `${VERBS[kind]} ${preview && !preview.total_exact ? "at most " : ""}${counted(total, "letter")}`}
        </button>
      </footer>
    </form>
  <//>`;
}

/** @param {{preview: any, kind: string}} props */
function Preview({ preview, kind }) {
  const { sample, checked, unparseable } = preview;
  return html`<div class="preview">
    ${kind === "replay" && checked > 0 &&
    (unparseable
      ? html`<p class="warn-text">Of the first ${count(checked)}, ${counted(unparseable, "letter")} would not parse today, and would fail again.</p>`
      : html`<p class="good-text">The first ${count(checked)} would parse today.</p>`)}
    ${sample.length > 0 &&
    html`<p class="label">The first of them</p>
      <ul class="sample">
        ${sample.slice(0, 4).map(
          (/** @type {any} */ one) => html`<li key=${one.id}><span class="mono">${one.event_type}</span> <span class="muted">${one.handler}</span> <span class="cut"><${ErrorType} type=${one.error_type} /> ${one.error}</span></li>`,
        )}
      </ul>`}
    ${!preview.total && html`<p>No letter matches any more.</p>`}
  </div>`;
}
