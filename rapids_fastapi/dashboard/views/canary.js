/** The canary of a replay: its steps, what became of them, and why it has stopped. */
import { count } from "../format.js";
import { ErrorType } from "../parts.js";
import { link, ofQueue } from "../route.js";
import { html } from "../ui.js";

/** @param {{canary: import("../types.js").Canary}} props */
export function CanaryPanel({ canary }) {
  return html`<section class="panel">
    <div class="panel-head"><h2>Canary</h2>
      <span class="muted">stops if more than ${Math.round(100 * canary.share)} % of a step fail again</span></div>
    ${canary.why && html`<p class=${canary.stopped ? "bad-text" : "muted"}>${canary.stopped && html`<strong>It has stopped: </strong>`}${canary.why}</p>`}
    <table class="rows" tabindex="0">
      <thead><tr><th class="number">Step</th><th class="number">Letters</th><th class="number">Sent</th><th class="number">Handled</th><th class="number">Failed again</th><th class="number">Waiting</th></tr></thead>
      <tbody>${canary.steps.map((one) => html`<tr key=${one.step}>
        <td class="number">${count(one.step)}</td><td class="number">${count(one.size)}</td><td class="number">${count(one.sent)}</td>
        <td class="number good-text">${count(one.handled)}</td>
        <td class=${`number ${one.failed_again ? "bad-text" : ""}`}>${count(one.failed_again)}</td><td class="number">${count(one.waiting)}</td>
      </tr>`)}</tbody>
    </table>
    ${canary.failures.length > 0 &&
    html`<h3>What failed again: the old error, and the new one</h3>
      <ul class="plain-list">${canary.failures.map((one) => html`<li key=${one.letter_id}>
        <a class="mono" href=${link("letters", { id: one.new_letter_id || one.letter_id, query: ofQueue() })}>${one.new_letter_id || one.letter_id}</a>
        <div class="muted"><${ErrorType} type=${one.error_type} /> ${one.error}</div>
        <div><${ErrorType} type=${one.new_error_type || one.outcome} /> ${one.new_error}</div></li>`)}</ul>`}
  </section>`;
}
