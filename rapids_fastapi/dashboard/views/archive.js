/** The archive: letters that were replayed or discarded, by the time of the move, with a way back for discarded ones. */
import { address, ask, may, useQuery } from "../api.js";
import { count } from "../format.js";
import { Action, Answer, Empty, ErrorType, State, Time, attempt, note } from "../parts.js";
import { link, ofQueue, place, queue, search } from "../route.js";
import { html, useState } from "../ui.js";
import { LetterTabs } from "./letters.js";

export function ArchiveView() {
  const { state = "" } = place.value.query;
  const [cursors, setCursors] = useState(/** @type {string[]} */ ([]));
  const query = useQuery(address("archive", { dlq: queue(), state, cursor: cursors.at(-1), limit: 50 }), { every: cursors.length ? 0 : 10 });
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
          ${tabs.map(([value, title]) => html`<button key=${value} type="button" aria-pressed=${state === value} onClick=${() => (setCursors([]), search({ ...ofQueue(), state: value }))}>${title}</button>`)}
        </div></div>
    </div>
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
            : html`<${Empty} title="The archive is empty"><p>Letters that you replay or discard are kept here for a time.</p><//>`}
    <//>`;
}
