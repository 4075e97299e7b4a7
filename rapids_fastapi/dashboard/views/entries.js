/** The entries of a stream, by time or id, and one of them. */
import { address, capabilities, useQuery } from "../api.js";
import { exactly, size } from "../format.js";
import { write } from "../json.js";
import { useKeys } from "../keys.js";
import { Answer, Copy, Empty, Facts, Time } from "../parts.js";
import { link, place, search, stream } from "../route.js";
import { PayloadView, textOf } from "../tree.js";
import { html, useEffect, useState } from "../ui.js";
import { FilterBar, filterOf } from "./filter_bar.js";

/** @type {import("./filter_bar.js").Fields} */
const FIELDS = { names: { id: "start", since: "since", until: "until" }, typed: ["id", "since", "until"], words: "start" };

/** The tabs of a stream. @param {{current: "groups" | "entries"}} props */
export function StreamTabs({ current }) {
  const tabs = /** @type {const} */ ([["groups", "Groups"], ["entries", "Entries"]]);
  return html`<nav class="subnav" aria-label="What a stream has">
    ${tabs.map(([view, title]) => html`<a key=${view} href=${link(view, { query: { stream: place.value.query["stream"] } })} aria-current=${view === current ? "page" : undefined}>${title}</a>`)}
  </nav>`;
}

/** The stream that is shown, and a choice where there are several. */
export function StreamChoice() {
  const streams = capabilities.value?.streams ?? [];
  if (streams.length < 2) return html`<span class="mono">${stream()}</span>`;
  return html`<label class="inline">Stream <select value=${stream()} onChange=${(/** @type {any} */ event) => search({ stream: event.target.value })}>
    ${streams.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>`;
}

export function EntriesView() {
  const { order = "" } = place.value.query;
  const filter = filterOf(place.value.query, FIELDS);
  const [cursors, setCursors] = useState(/** @type {string[]} */ ([]));
  useEffect(() => setCursors([]), [JSON.stringify([filter, order, stream()])]);
  useKeys({ "/": { does: "Filter", run: () => document.getElementById("filter")?.focus() } });
  const query = useQuery(address("entries", { stream: stream(), order, ...filter, cursor: cursors.at(-1), limit: 50 }), { every: cursors.length || order ? 0 : 5 });
  const orders = /** @type {const} */ ([["", "Newest first"], ["oldest", "Oldest first"]]);
  const more = (/** @type {string} */ cursor) => () => setCursors([...cursors, cursor]);
  return html`<div class="page-head"><h1>Entries</h1><${StreamTabs} current="entries" />
      <div class="table-head"><${StreamChoice} />
        <div class="tabs" role="group" aria-label="Order">
          ${orders.map(([value, title]) => html`<button key=${title} type="button" aria-pressed=${order === value} onClick=${() => search({ stream: stream(), ...filter, order: value })}>${title}</button>`)}
        </div></div>
    </div>
    <${FilterBar} filter=${filter} fields=${FIELDS} label="Filter entries" hint="From an id, or since:2h until:1h  ( / )" values=${() => []}
      onChange=${(/** @type {any} */ next) => search({ stream: stream(), order, ...next })} />
    <div class="below-filter"><${Answer} query=${query} rows=${8}>
      ${(/** @type {any} */ { items, next_cursor }) => html`
        ${items.length
          ? html`<table class="rows entries">
              <thead><tr><th>Appended</th><th>Event</th><th>Data</th><th>Correlation</th></tr></thead>
              <tbody>${items.map((/** @type {any} */ one) => html`<${Row} key=${one.entry_id} entry=${one} />`)}</tbody>
            </table>`
          : html`<${Nothing} isFiltered=${Object.keys(filter).length > 0} more=${next_cursor && more(next_cursor)} />`}
        ${(cursors.length > 0 || (items.length > 0 && next_cursor)) && html`<div class="pager">
          <button type="button" disabled=${!cursors.length} onClick=${() => setCursors(cursors.slice(0, -1))}>← Back</button><span></span>
          <button type="button" disabled=${!next_cursor} onClick=${more(next_cursor)}>More →</button>
        </div>`}`}
    <//></div>`;
}

/** @param {{entry: any}} props */
function Row({ entry }) {
  return html`<tr>
    <td class="when"><${Time} at=${entry.appended_at} /></td>
    <td class="name"><a href=${link("entries", { id: entry.entry_id, query: { stream: entry.stream } })}>${entry.event_type || "no event type"}</a><span class="under mono">${entry.entry_id}</span></td>
    <td class="error"><span class="clamp mono">${preview(entry.data)}</span></td>
    <td class="name mono">${entry.correlation_id && html`<a href=${link("trace", { query: { id: entry.correlation_id } })}>${entry.correlation_id}</a>`}</td>
  </tr>`;
}

/** Data in one line. @param {import("../types.js").Payload} payload */
function preview({ encoding, value, size: bytes }) {
  if (encoding === "json") return write(value);
  return encoding === "omitted" || encoding === "withheld" ? `${size(bytes)}, ${encoding}` : String(value ?? "");
}

/** @param {{isFiltered: boolean, more: (() => void) | null}} props */
function Nothing({ isFiltered, more }) {
  if (more) return html`<${Empty} title="Nothing on this page"><p>Entries were deleted here. <button type="button" class="link" onClick=${more}>Read on</button></p><//>`;
  if (isFiltered) return html`<${Empty} title="No entry in this part of the stream"><p><a href=${link("entries", { query: { stream: stream() } })}>Remove the filter</a></p><//>`;
  return html`<${Empty} title="The stream is empty"><p>Nothing was emitted, or all entries were trimmed.</p><//>`;
}

export function EntryView() {
  const { id } = place.value;
  const query = useQuery(address(`entries/${encodeURIComponent(id)}`, { stream: stream() }));
  return html`<${Answer} query=${query} rows=${8}>
    ${(/** @type {any} */ entry) => html`<div class="page-head">
        <nav class="crumbs" aria-label="Where this is"><a href=${link("entries", { query: { stream: entry.stream } })}>Entries</a> of <span class="mono">${entry.stream}</span></nav>
        <div class="title-line"><h1 class="mono">${entry.event_type || entry.entry_id}</h1></div>
      </div>
      <div class="columns">
        <div class="main-column"><section class="panel">
          <div class="panel-head"><h2>Payload</h2>${entry.data.encoding === "json" && html`<${Copy} text=${textOf(entry.data)} />`}</div>
          <${PayloadView} payload=${entry.data} />
          ${entry.metadata.value && Object.keys(entry.metadata.value).length > 0 && html`<h3>Metadata</h3><${PayloadView} payload=${entry.metadata} />`}
        </section></div>
        <aside class="side-column"><section class="panel"><h2>About it</h2>
          <${Facts} rows=${facts(entry)} />
          <div class="actions"><${Copy} label="Copy id" text=${entry.entry_id} /><${Copy} label="Copy link" text=${location.href} /></div>
        </section></aside>
      </div>`}
  <//>`;
}

/** @param {any} entry @returns {[string, any][]} */
function facts(entry) {
  const trace = entry.correlation_id || entry.event_id;
  const from = (/** @type {string} */ order) => link("entries", { query: { stream: entry.stream, start: entry.entry_id, order } });
  return [
    ["Entry", html`<span class="mono">${entry.entry_id}</span>`],
    ["Appended", entry.appended_at && exactly(entry.appended_at)],
    ["Event id", html`<span class="mono">${entry.event_id}</span>`],
    ["Version", entry.schema_version],
    ["Happened", entry.timestamp && html`<span title=${entry.timestamp}>${exactly(entry.timestamp)}</span>`],
    ["Correlation", trace && html`<a class="mono" href=${link("trace", { query: { id: trace } })}>${trace}</a>`],
    ["Caused by", entry.causation_id && html`<span class="mono">${entry.causation_id}</span>`],
    ["Beside it", html`<a href=${from("")}>earlier entries</a>, <a href=${from("oldest")}>later ones</a>`],
  ];
}
