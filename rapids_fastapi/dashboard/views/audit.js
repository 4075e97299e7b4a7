/** Who did what, when and why. */
import { address, useQuery } from "../api.js";
import { Answer, Empty, Time } from "../parts.js";
import { link, place, search } from "../route.js";
import { html, useState } from "../ui.js";

const FIELDS = ["actor", "action", "target"];

export function AuditView() {
  const { query } = place.value;
  const filter = Object.fromEntries(FIELDS.map((name) => [name, query[name]]).filter(([, value]) => value));
  const [cursors, setCursors] = useState(/** @type {string[]} */ ([]));
  const found = useQuery(address("audit", { ...filter, cursor: cursors.at(-1), limit: 100 }), { every: cursors.length ? 0 : 10 });
  return html`<div class="page-head"><h1>Audit</h1><p class="summary">Changes of letters, operations and groups, newest first.</p></div>
    ${Object.keys(filter).length > 0 && html`<p>${Object.entries(filter).map(([name, value]) => html`<span class="chip" key=${name}><span class="chip-name">${name}</span> ${value}</span> `)}
      <button type="button" class="link" onClick=${() => (setCursors([]), search({}))}>Show all</button></p>`}
    <${Answer} query=${found}>
      ${(/** @type {any} */ { items, next_cursor }) => items.length ? html`<table class="rows audit">
          <thead><tr><th>When</th><th>Who</th><th>What</th><th>Of</th><th>Why and how</th></tr></thead>
          <tbody>${items.map((/** @type {any} */ one) => html`<${Row} key=${`${one.stream}/${one.id}`} change=${one} />`)}</tbody>
        </table>
        <div class="pager">
          <button type="button" disabled=${!cursors.length} onClick=${() => setCursors(cursors.slice(0, -1))}>← Newer</button><span></span>
          <button type="button" disabled=${!next_cursor} onClick=${() => setCursors([...cursors, next_cursor])}>Older →</button>
        </div>` : html`<${Empty} title="Nothing was changed yet"><p>Replays, discards, operations and pauses are kept here for 90 days.</p><//>`}
    <//>`;
}

/** @param {{change: any}} props */
function Row({ change }) {
  const { action, target, stream, operation, details } = change;
  const isLetter = action.startsWith("letter") && target;
  const of = isLetter
    ? link("letters", { id: target, query: { dlq: stream } })
    : operation || action.startsWith("operation")
      ? link("operations", { id: operation || target, query: { dlq: stream } })
      : action.startsWith("group") && target
        ? link("groups", { query: { stream, group: target } })
        : "";
  return html`<tr>
    <td class="when"><${Time} at=${change.at} /></td>
    <td class="name">${change.actor || "–"}</td>
    <td class="name">${action.replaceAll("_", " ")}</td>
    <td class="name mono">${of ? html`<a href=${of}>${target || operation}</a>` : target}<span class="under">${stream}</span></td>
    <td class="error">${change.reason}${details && Object.keys(details).length > 0 && html`<span class="details muted">${Object.entries(details).map(([name, value]) => `${name.replaceAll("_", " ")}: ${value}`).join(" · ")}</span>`}</td>
  </tr>`;
}
