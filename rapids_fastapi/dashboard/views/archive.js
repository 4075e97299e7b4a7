/** The archive: letters that were replayed or discarded, by the time of the move, with a way back for discarded ones. */
import { address, ask, may, useQuery } from "../api.js";
import { count } from "../format.js";
import { useKeys } from "../keys.js";
import { Action, Answer, Empty, ErrorType, State, Time, attempt, note } from "../parts.js";
import { link, ofQueue, place, queue, search } from "../route.js";
import { html, useEffect, useState } from "../ui.js";
import { FilterBar, filterOf } from "./filter_bar.js";
import { FIELDS, LetterTabs } from "./letters.js";

export function ArchiveView() {
  const { state = "" } = place.value.query;
  const filter = filterOf(place.value.query, FIELDS);
  const [cursors, setCursors] = useState(/** @type {string[]} */ ([]));
  useEffect(() => setCursors([]), [JSON.stringify([filter, state, queue()])]);
  useKeys({ "/": { does: "Filter", run: () => document.getElementById("filter")?.focus() } });
  const query = useQuery(address("archive", { dlq: queue(), state, ...filter, cursor: cursors.at(-1), limit: 50 }), { every: cursors.length ? 0 : 10 });
  /** @param {any} letter */
  const restore = (letter) =>
    attempt(async () => {
      await ask("POST", address(`dead-letters/${encodeURIComponent(letter.id)}/restore`, { dlq: queue() }), { body: {} });
      note("Restored: it is a dead letter again.", { href: link("letters", { id: letter.id, query: ofQueue() }) });
      query.reload();
    });
  const tabs = /** @type {const} */ ([["", "All"], ["discarded", "Discarded"], ["replayed", "Replayed"]]);
  return html`<div class="page-head"><h1>Dead letters</h1><${LetterTabs} current="archive" />
      <div class="table-head"><p class="summary">Replayed and discarded letters, until retention ends.</p>
        <div class="tabs" role="group" aria-label="State">
          ${tabs.map(([value, title]) => html`<button key=${value} type="button" aria-pressed=${state === value} onClick=${() => search({ ...ofQueue(), ...filter, state: value })}>${title}</button>`)}
        </div></div>
    </div>
    <${FilterBar} filter=${filter} fields=${FIELDS} label="Filter the archive" hint="Filter: handler:, event:, error:, since:2h  ( / )"
      values=${(/** @type {string} */ field) => (query.data?.items ?? []).map((/** @type {any} */ one) => String(one[field] ?? ""))}
      onChange=${(/** @type {any} */ next) => search({ ...ofQueue(), state, ...next })} />
    <div class="below-filter">
    <${Answer} query=${query} rows=${8}>
          ${(/** @type {any} */ { items, next_cursor }) => items.length
            ? html`<table class="rows archive">
                <thead><tr><th>Moved</th><th>State</th><th>Handler</th><th>Event</th><th>Error</th><th>Who and why</th><th></th></tr></thead>
                <tbody>${items.map((/** @type {any} */ one) => html`<tr key=${one.id}>
                  <td class="when"><${Time} at=${one.moved_at} /></td>
                  <td><${State} state=${one.state} /></td>
                  <td class="name"><a href=${link("letters", { id: one.id, query: ofQueue() })}>${one.handler || "no handler"}</a><span class="under">${one.group}</span></td>
                  <td class="name">${one.event_type}</td>
                  <td class="error"><span class="clamp"><${ErrorType} type=${one.error_type} /> ${one.error}</span></td>
                  <td class="name">${one.moved_by || "–"}<span class="under">${one.move_reason}</span></td>
                  <td>${one.state === "discarded" && html`<${Action} has=${may("discard")} permission="discard" onClick=${() => restore(one)}>Restore<//>`}</td>
                </tr>`)}</tbody>
              </table>
              <div class="pager">
                <button type="button" disabled=${!cursors.length} onClick=${() => setCursors(cursors.slice(0, -1))}>← Newer</button>
                <span class="muted">${cursors.length > 0 && `Page ${count(cursors.length + 1)}`}</span>
                <button type="button" disabled=${!next_cursor} onClick=${() => setCursors([...cursors, next_cursor])}>Older →</button>
              </div>`
            : html`<${Nothing} isFiltered=${state !== "" || Object.keys(filter).length > 0} more=${next_cursor && (() => setCursors([...cursors, next_cursor]))} />`}
    <//></div>`;
}

/** @param {{isFiltered: boolean, more: (() => void) | null}} props */
function Nothing({ isFiltered, more }) {
  if (more) return html`<${Empty} title="Nothing on this page"><p>The search read a part of the archive. <button type="button" class="link" onClick=${more}>Read on</button></p><//>`;
  if (isFiltered) return html`<${Empty} title="No letter matches"><p><a href=${link("archive", { query: ofQueue() })}>Remove the filter</a></p><//>`;
  return html`<${Empty} title="The archive is empty"><p>Letters that you replay or discard are kept here for a time.</p><//>`;
}
