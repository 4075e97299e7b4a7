/** The event types: schema, version, who emits and who handles them. */
import { address, useQuery } from "../api.js";
import { counted, duration } from "../format.js";
import { useKeys } from "../keys.js";
import { Answer, Empty, Facts } from "../parts.js";
import { link, ofQueue, place, search } from "../route.js";
import { Tree } from "../tree.js";
import { html, useState } from "../ui.js";

export function CatalogView() {
  const query = useQuery(address("catalog"));
  const [text, setText] = useState("");
  useKeys({ "/": { does: "Search", run: () => document.getElementById("catalog-search")?.focus() } });
  return html`<div class="page-head"><h1>Catalog</h1><p class="summary">The event types whose classes this process knows.</p></div>
    <${Answer} query=${query}>
      ${(/** @type {{items: any[]}} */ { items }) => {
        if (!items.length) return html`<${Empty} title="No event types"><p>Classes of events appear here when this process imports them.</p><//>`;
        const shown = items.filter((one) => `${one.event_type} ${one.description}`.toLowerCase().includes(text.toLowerCase()));
        const chosen = shown.find((one) => one.event_type === place.value.query["type"]) ?? shown[0];
        return html`<div class="columns catalog">
          <nav class="list" aria-label="Event types">
            <input id="catalog-search" type="search" placeholder="Search ( / )" aria-label="Search event types" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)} />
            ${shown.map((one) => html`<button type="button" key=${one.event_type} aria-current=${one === chosen ? "true" : undefined} onClick=${() => search({ type: one.event_type })}>
              <span class="mono">${one.event_type}</span><span class="under">${counted(one.handlers.length, "handler")}</span></button>`)}
            ${!shown.length && html`<p class="muted">No type has this in its name.</p>`}
          </nav>
          <div class="main-column">${chosen && html`<${EventType} key=${chosen.event_type} type=${chosen} />`}</div>
        </div>`;
      }}
    <//>`;
}

/** @param {{type: any}} props */
function EventType({ type }) {
  return html`<section class="panel">
      <h2 class="mono">${type.event_type}</h2>
      ${type.description && html`<p>${type.description}</p>`}
      <${Facts} rows=${/** @type {[string, any][]} */ ([
        ["Class", html`<span class="mono">${type.event_class}</span>`],
        ["Version", String(type.schema_version)],
        ["Dead letters", html`<a href=${link("letters", { query: { ...ofQueue(), event_type: type.event_type } })}>of this type</a>`],
      ])} />
    </section>
    <section class="panel"><h2>Who emits it</h2>
      ${type.emitters.length ? html`<ul class="plain-list">${type.emitters.map((/** @type {any} */ one, /** @type {number} */ at) => html`<li key=${at}>${one.name ? html`<span class="mono">${one.name}</span>` : "Code of this process"} <span class="muted">${one.name && `${one.kind}, `}to ${one.stream}${one.group && ` in ${one.group}`}</span></li>`)}</ul>` : html`<p class="muted">Nobody that this process has seen.</p>`}
    </section>
    <section class="panel"><h2>Who handles it</h2>
      ${type.handlers.length ? html`<table class="rows" tabindex="0"><thead><tr><th>Handler</th><th>Group</th><th class="number">Time limit</th><th class="number">Quick retries</th><th class="number">Deliveries</th></tr></thead>
        <tbody>${type.handlers.map((/** @type {any} */ one, /** @type {number} */ at) => html`<tr key=${at}><td class="name mono">${one.handler}</td>
          <td class="name"><a href=${link("groups", { query: { stream: one.stream, group: one.group } })}>${one.group}</a></td>
          <td class="number">${one.timeout ? duration(one.timeout) : "–"}</td><td class="number">${one.retries}</td><td class="number">${one.max_deliveries}</td></tr>`)}</tbody></table>`
        : html`<p class="muted">No handler of this application.</p>`}
    </section>
    <section class="panel"><h2>Schema of its data</h2><div class="tree"><${Tree} value=${type.json_schema} open=${true} /></div></section>`;
}
