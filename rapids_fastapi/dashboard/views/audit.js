/** Who did what, when and why. */
import { address, capabilities, useQuery } from "../api.js";
import { useKeys } from "../keys.js";
import { Answer, Empty, Time } from "../parts.js";
import { link, place, search } from "../route.js";
import { html, useEffect, useState } from "../ui.js";
import { FilterBar, filterOf } from "./filter_bar.js";

/** @type {import("./filter_bar.js").Fields} */
const FIELDS = {
  names: { actor: "actor", action: "action", target: "target", operation: "operation", stream: "stream", since: "since", until: "until" },
  typed: ["actor", "action", "target", "stream", "since", "until"],
  words: "target",
};

const ACTIONS = [
  "letter_replayed", "letter_discarded", "letter_restored", "operation_started", "operation_paused", "operation_resumed",
  "operation_cancelled", "operation_completed", "group_paused", "group_resumed", "export_started", "letters_reindexed",
];

export function AuditView() {
  const filter = filterOf(place.value.query, FIELDS);
  const [cursors, setCursors] = useState(/** @type {string[]} */ ([]));
  const found = useQuery(address("audit", { ...filter, cursor: cursors.at(-1), limit: 100 }), { every: cursors.length ? 0 : 10 });
  useEffect(() => setCursors([]), [JSON.stringify(filter)]);
  useKeys({ "/": { does: "Filter", run: () => document.getElementById("filter")?.focus() } });
  const user = /** @type {import("../types.js").Capabilities} */ (capabilities.value);
  /** @param {string} field @returns {string[]} */
  const values = (field) => {
    if (field === "action") return ACTIONS;
    if (field === "stream") return [...user.streams, ...user.dead_letter_queues.map((one) => one.name)];
    const seen = (found.data?.items ?? []).map((/** @type {any} */ one) => one[field]);
    return field === "actor" ? [user.user.name, ...seen] : seen;
  };
  return html`<div class="page-head"><h1>Audit</h1><p class="summary">Changes of letters, operations and groups, newest first.</p></div>
    <${FilterBar} filter=${filter} fields=${FIELDS} label="Filter changes" hint="Filter: actor:, action:, stream:, since:2h, or what was changed  ( / )" values=${values} onChange=${search} />
    <div class="below-filter"><${Answer} query=${found}>
      ${(/** @type {any} */ { items, next_cursor }) => items.length ? html`<table class="rows audit">
          <thead><tr><th>When</th><th>Who</th><th>What</th><th>Of</th><th>Why and how</th></tr></thead>
          <tbody>${items.map((/** @type {any} */ one) => html`<${Row} key=${`${one.stream}/${one.id}`} change=${one} />`)}</tbody>
        </table>
        <div class="pager">
          <button type="button" disabled=${!cursors.length} onClick=${() => setCursors(cursors.slice(0, -1))}>← Newer</button><span></span>
          <button type="button" disabled=${!next_cursor} onClick=${() => setCursors([...cursors, next_cursor])}>Older →</button>
        </div>` : html`<${Nothing} isFiltered=${Object.keys(filter).length > 0} hasMore=${!!next_cursor} more=${() => setCursors([...cursors, next_cursor])} />`}
    <//></div>`;
}

/** @param {{isFiltered: boolean, hasMore: boolean, more: () => void}} props */
function Nothing({ isFiltered, hasMore, more }) {
  if (hasMore) return html`<${Empty} title="Nothing on this page"><p>The search read a part of the log. <button type="button" class="link" onClick=${more}>Read on</button></p><//>`;
  if (isFiltered) return html`<${Empty} title="No change matches"><p><a href=${link("audit")}>Remove the filter</a></p><//>`;
  return html`<${Empty} title="Nothing was changed yet"><p>Replays, discards, operations and pauses are kept here for 90 days.</p><//>`;
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
