/** What was tried with a letter, and what was done to it. */
import { clock, duration } from "../format.js";
import { write } from "../json.js";
import { ErrorType, State, Time } from "../parts.js";
import { link, ofQueue } from "../route.js";
import { html } from "../ui.js";

/** @param {{letter: import("../types.js").Letter}} props */
export function Attempts({ letter }) {
  const { attempts } = letter;
  if (!attempts.length) return html`<p class="muted">They were not recorded.</p>`;
  const times = attempts.map((one) => (one.at ? Date.parse(one.at) : NaN));
  const known = times.filter((one) => !Number.isNaN(one));
  const [first, last] = [Math.min(...known), Math.max(...known)];
  const span = Math.max(1, last - first);
  return html`<div class="timeline" aria-hidden="true">
      ${times.map((time, at) => !Number.isNaN(time) && html`<span key=${at} class="timeline-dot" style=${{ left: `${known.length > 1 ? (100 * (time - first)) / span : 0}%` }}></span>`)}
    </div>
    ${known.length > 1 && html`<p class="muted timeline-span">${counted(attempts.length)} in ${duration(span / 1000)}</p>`}
    <ol class="attempts">
      ${attempts.map((one, at) => {
        const gap = at > 0 && !Number.isNaN((times[at] ?? NaN) - (times[at - 1] ?? NaN)) ? (Number(times[at]) - Number(times[at - 1])) / 1000 : null;
        return html`<li key=${at}>
          <span class="mono when" title=${one.at ?? ""}>${one.at ? clock(one.at) : "–"}</span>
          <span class="muted gap">${gap === null ? "" : `+${duration(gap)}`}</span>
          <span class="what">${one.recorded === false ? html`<span class="muted">its end was never reported</span>` : html`<${ErrorType} type=${one.error_type} /> ${one.error}`}</span>
          <span class="muted mono who">${one.consumer}</span>
        </li>
        ${at === 4 && letter.attempts_left_out > 0 && html`<li class="muted">… ${letter.attempts_left_out} more …</li>`}`;
      })}
    </ol>`;
}

/** @param {number} number */
function counted(number) {
  return number === 1 ? "1 attempt" : `${number} attempts`;
}

const OUTCOMES = /** @type {Record<string, string>} */ ({
  undelivered: "the group has not read it yet",
  pending: "it runs, or waits for its next attempt",
  failed_again: "it failed again",
  handled: "it was handled, as its acknowledgement shows",
  sent: "it was sent to everyone",
  unknown: "unknown: the stream of replays was deleted",
});

/** @param {{letter: import("../types.js").Letter}} props */
export function History({ letter }) {
  const outcomes = new Map(letter.replays.map((one) => [one.entry_id, one]));
  return html`<ol class="history">
    ${letter.history.map((one, at) => {
      const outcome = outcomes.get(one.entry_id);
      return html`<li key=${at}>
        <p><strong>${one.action}</strong> by ${one.actor || "somebody"} · <${Time} at=${one.at} /></p>
        ${one.reason && html`<p class="quote">${one.reason}</p>`}
        ${one.operation && html`<p><a href=${link("operations", { id: one.operation, query: ofQueue() })}>in an operation</a></p>`}
        ${one.diff.length > 0 && html`<${Diff} differences=${one.diff} />`}
        ${outcome && html`<p><${State} state=${outcome.outcome} /> ${OUTCOMES[outcome.outcome]}
          ${outcome.letters.map((/** @type {string} */ id) => html` <a key=${id} class="mono" href=${link("letters", { id, query: ofQueue() })}>${id}</a>`)}</p>`}
      </li>`;
    })}
  </ol>`;
}

/**
 * Differences between two data, one below the other.
 * @param {{differences: {pointer: string, before: unknown, after: unknown}[]}} props
 */
export function Diff({ differences }) {
  return html`<table class="diff">
    <tbody>
      ${differences.map(
        (one) => html`<tr key=${one.pointer}>
          <th class="mono" scope="row">${one.pointer || "all"}</th>
          <td>${one.before !== undefined && html`<del>${short(one.before)}</del>`} ${one.after !== undefined && html`<ins>${short(one.after)}</ins>`}</td>
        </tr>`,
      )}
    </tbody>
  </table>`;
}

/** @param {unknown} value */
function short(value) {
  const text = write(value);
  return text.length > 300 ? `${text.slice(0, 300)}…` : text;
}
