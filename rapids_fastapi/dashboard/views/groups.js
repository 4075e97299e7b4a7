/** The groups of a stream: how far they are, what is wrong, and who works. */
import { address, useQuery } from "../api.js";
import { count, counted, duration } from "../format.js";
import { Answer, Empty, Time } from "../parts.js";
import { go, link, place, stream } from "../route.js";
import { html } from "../ui.js";
import { StreamChoice, StreamTabs } from "./entries.js";
import { GroupView } from "./group.js";
import { GroupState, Words, findingsOf } from "./health.js";

export function GroupsView() {
  const { group } = place.value.query;
  return group ? html`<${GroupView} key=${`${stream()}/${group}`} name=${group} />` : html`<${AllGroups} />`;
}

function AllGroups() {
  const groups = useQuery(address("groups", { stream: stream(), limit: 200 }), { every: 3 });
  const overview = useQuery(address("overview"), { every: 5 });
  const here = overview.data?.streams.find((/** @type {any} */ one) => one.stream === stream());
  return html`<div class="page-head">
      <h1>Groups</h1><${StreamTabs} current="groups" />
      <div class="table-head"><${StreamChoice} />
        ${here && html`<p class="summary">${counted(here.length, "entry", "entries")} · last <${Time} at=${here.last_at} /></p>`}
      </div>
    </div>
    <${Answer} query=${groups}>
      ${(/** @type {any} */ { items }) =>
        items.length
          ? html`<table class="rows groups" tabindex="0">
              <thead><tr><th>Group</th><th>State</th><th class="number">Lag</th><th class="number minor">Held</th><th class="number minor">Waiting</th><th class="number minor">Parked</th><th class="number minor">Alive</th><th class="number">Oldest</th></tr></thead>
              <tbody>${items.map((/** @type {any} */ one) => html`<${GroupRow} key=${one.group} group=${one} findings=${findingsOf(overview.data, stream(), one.group)} />`)}</tbody>
            </table>`
          : html`<${Empty} title="No group reads this stream"><p>Entries wait until a router with a group starts.</p><//>`}
    <//>`;
}

/** @param {{group: any, findings: any[]}} props */
function GroupRow({ group, findings }) {
  const to = link("groups", { query: { stream: stream(), group: group.group } });
  return html`<tr onClick=${(/** @type {any} */ event) => !event.target.closest("a") && go(to)}>
    <td class="name"><a href=${to}>${group.group}</a>${findings[0] && html`<span class="why"><${Words} text=${findings[0].message} /></span>`}</td>
    <td><${GroupState} group=${group} findings=${findings} /></td>
    <td class="number">${group.lag_exact ? "" : "≤ "}${count(group.lag)}</td>
    <td class="number minor">${count(group.held)}</td>
    <td class="number minor">${count(group.waiting)}</td>
    <td class=${`number minor ${group.parked ? "bad-text" : ""}`}>${count(group.parked)}</td>
    <td class="number minor">${count(group.consumers_alive)}<span class="muted"> of ${count(group.consumers)}</span></td>
    <td class="number">${group.oldest_unsettled_ms === null ? html`<span class="muted">–</span>` : duration(group.oldest_unsettled_ms / 1000)}</td>
  </tr>`;
}
