/** Operations: what was done to many letters, by whom and why. */
import { address, useQuery } from "../api.js";
import { count } from "../format.js";
import { Answer, Empty, State, Time } from "../parts.js";
import { go, link, ofQueue, queue } from "../route.js";
import { html } from "../ui.js";

export function OperationsView() {
  const query = useQuery(address("operations", { dlq: queue(), limit: 100 }), { every: 3 });
  return html`<div class="page-head"><h1>Operations</h1><p class="summary">Replays, discards and restores of many letters. The last 100 are kept.</p></div>
    <${Answer} query=${query}>
      ${(/** @type {{items: import("../types.js").Operation[]}} */ { items }) =>
        items.length
          ? html`<table class="rows operations">
              <thead><tr><th>Started</th><th>What</th><th>State</th><th class="progress-column">Progress</th><th>Who</th><th>Why</th></tr></thead>
              <tbody>${items.map((one) => html`<${Row} key=${one.id} operation=${one} />`)}</tbody>
            </table>`
          : html`<${Empty} title="No operations yet"><p>Select letters or a cause in <a href=${link("letters", { query: ofQueue() })}>Dead letters</a>, and replay or discard them.</p><//>`}
    <//>`;
}

/** @param {{operation: import("../types.js").Operation}} props */
function Row({ operation }) {
  const to = link("operations", { id: operation.id, query: ofQueue() });
  return html`<tr onClick=${(/** @type {any} */ event) => !event.target.closest("a") && go(to)}>
    <td class="when"><${Time} at=${operation.created_at} /></td>
    <td class="name"><a href=${to}>${operation.kind}</a><span class="under">${selected(operation.selector)}</span></td>
    <td><${State} state=${operation.state} /></td>
    <td><${Bar} operation=${operation} /></td>
    <td class="name">${operation.actor || "–"}</td>
    <td class="error">${operation.reason}</td>
  </tr>`;
}

/** How far an operation is. @param {{operation: import("../types.js").Operation, isLarge?: boolean}} props */
export function Bar({ operation, isLarge = false }) {
  const { done, skipped, failed, total } = operation;
  const share = (/** @type {number} */ part) => ({ width: `${total ? (100 * part) / total : 0}%` });
  return html`<div class=${isLarge ? "progress large" : "progress"}>
    <div class="progress-bar" role="progressbar" aria-label="Progress" aria-valuemin="0" aria-valuemax=${total} aria-valuenow=${done + skipped + failed}>
      <span class="done" style=${share(done)}></span><span class="skipped" style=${share(skipped)}></span><span class="failed" style=${share(failed)}></span>
    </div>
    ${!isLarge && html`<span class="under number">${count(done)} of ${count(total)}${failed > 0 ? `, ${count(failed)} failed` : ""}</span>`}
  </div>`;
}

/**
 * A selector in words.
 * @param {any} selector
 */
export function selected(selector) {
  if (selector.ids) return `${count(selector.ids.length)} selected`;
  if (selector.fingerprint) return `one cause, ${selector.fingerprint}`;
  const filter = Object.entries(selector.filter ?? {}).map(([name, value]) => `${name}: ${value}`);
  return filter.join(", ") || "all letters";
}
