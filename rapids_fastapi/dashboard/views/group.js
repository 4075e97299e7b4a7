/** One group: its health with reasons, its last hour, its consumers, what is pending; pause and resume. */
import { address, ask, may, useQuery } from "../api.js";
import { Chart } from "../charts.js";
import { count, duration } from "../format.js";
import { useKeys } from "../keys.js";
import { Action, Answer, Dialog, ErrorType, Figure, State, Time, attempt, note } from "../parts.js";
import { go, link, place, search, stream } from "../route.js";
import { html, useEffect, useState } from "../ui.js";
import { Findings, GroupState, findingsOf } from "./health.js";

/** @param {{name: string}} props */
export function GroupView({ name }) {
  const [wanted, setWanted] = useState(/** @type {"pause" | "resume" | null} */ (null));
  const detail = useQuery(address("groups", { stream: stream(), group: name, limit: 100 }), { every: 3 });
  const overview = useQuery(address("overview"), { every: 5 });
  const findings = findingsOf(overview.data, stream(), name);
  const isPaused = !!detail.data?.group.pause;
  useKeys({
    s: { does: "Pause or resume the group", run: () => may("edit") && detail.data && setWanted(isPaused ? "resume" : "pause") },
    u: { does: "Back to all groups", run: () => go(link("groups", { query: { stream: stream() } })) },
  });
  return html`<div class="page-head">
      <nav class="crumbs" aria-label="Where this is"><a href=${link("groups", { query: { stream: stream() } })}>Groups</a> of <span class="mono">${stream()}</span></nav>
      <div class="title-line"><h1 class="mono">${name}</h1>${detail.data && html`<${GroupState} group=${detail.data.group} findings=${findings} />`}<span class="grow"></span>
        <${Action} class=${isPaused ? "primary" : ""} has=${may("edit")} permission="edit" disabled=${!detail.data} onClick=${() => setWanted(isPaused ? "resume" : "pause")} keys="s">${isPaused ? "Resume…" : "Pause…"}<//>
      </div>
    </div>
    ${overview.data && html`<${Findings} findings=${findings} well="It keeps up, and none of its entries failed for good." />`}
    <${Answer} query=${detail}>
      ${(/** @type {any} */ { group, consumers, next_cursor }) => html`
        <section class="panel"><div class="figures">
          <${Figure} name="lag" value=${group.lag} title="Entries that the group has not read" />
          <${Figure} name="held" value=${group.held} title="Their handlers run, or will run" />
          <${Figure} name="waiting" value=${group.waiting} title="They are delivered again when they are due" />
          <${Figure} name="parked" value=${group.parked} tone=${group.parked ? "bad" : ""} title="They failed for good, and there is no dead-letter stream" />
          <${Figure} name="replays" value=${group.replays} title="Replays that are not settled" />
          <${Figure} name="oldest unsettled" value=${group.oldest_unsettled_ms === null ? "–" : duration(group.oldest_unsettled_ms / 1000)} />
        </div><${LastHour} overview=${overview.data} name=${name} /></section>
        <section class="panel"><h2>Consumers</h2><${Consumers} consumers=${consumers} />
          ${next_cursor && html`<p class="muted">The first ${count(consumers.length)}, by name.</p>`}</section>`}
    <//>
    <${PendingPanel} group=${name} />
    ${wanted && html`<${PauseDialog} kind=${wanted} group=${name} onClose=${() => (setWanted(null), detail.reload(), overview.reload())} />`}`;
}

/** @param {{overview: any, name: string}} props */
function LastHour({ overview, name }) {
  const found = overview?.streams.find((/** @type {any} */ one) => one.stream === stream())?.groups.find((/** @type {any} */ one) => one.group === name);
  if (!found) return null; // the overview has a part of many groups
  const time = { since: overview.charts_since, step: overview.chart_step };
  return html`<div class="charts">
    <${Chart} label="In and out, each minute" ...${time} lines=${[
      { name: "delivered", values: found.delivered.slice(0, -1), tone: "--line-strong" },
      { name: "handled", values: found.handled.slice(0, -1), tone: "--accent" },
    ]} />
    <${Chart} label="Failures, each minute" ...${time} lines=${[
      { name: "failed", values: found.failed, tone: "--warn" },
      { name: "dead", values: found.dead, tone: "--bad" },
    ]} />
  </div>`;
}

/** @param {{consumers: any[]}} props */
function Consumers({ consumers }) {
  if (!consumers.length) return html`<p class="muted">None. Entries wait until a process starts.</p>`;
  return html`<table class="rows consumers" tabindex="0">
    <thead><tr><th>Consumer</th><th>State</th><th class="number">Holds</th><th>Last seen</th><th>Last entry</th><th>Alive since</th></tr></thead>
    <tbody>${consumers.map((one) => html`<tr key=${one.consumer}>
      <td class="name mono">${one.consumer}</td>
      <td><span class=${`state ${one.alive ? "good" : "plain"}`} title=${one.alive ? "" : "What it held is taken over"}>${one.alive ? "alive" : "gone"}</span></td>
      <td class="number">${one.pending ? html`<button type="button" class="link" title="Show what it holds" onClick=${() => search({ ...place.value.query, state: "", consumer: one.consumer })}>${count(one.pending)}</button>` : "0"}</td>
      <td><${Time} at=${one.seen_at} /></td>
      <td>${one.inactive_ms === null ? html`<span class="muted">–</span>` : `${duration(one.inactive_ms / 1000)} ago`}</td>
      <td><${Time} at=${one.alive_since} /></td>
    </tr>`)}</tbody>
  </table>`;
}

const STATES = /** @type {const} */ ([["", "All"], ["waiting", "Waiting"], ["parked", "Parked"], ["replays", "Replays"]]);

/** @param {{group: string}} props */
function PendingPanel({ group }) {
  const { state = "", consumer = "" } = place.value.query;
  const [cursors, setCursors] = useState(/** @type {string[]} */ ([]));
  useEffect(() => setCursors([]), [state, consumer]);
  const asked = state === "replays" ? { replays: true } : { state, consumer };
  const pending = useQuery(address("groups/pending", { stream: stream(), group, ...asked, cursor: cursors.at(-1), limit: 50 }), { every: 3 });
  return html`<section class="panel">
    <div class="panel-head"><h2>Pending</h2>
      ${consumer && html`<span class="chip"><span class="chip-name">held by</span> ${consumer}
        <button type="button" aria-label="Remove the consumer" onClick=${() => search({ ...place.value.query, consumer: "" })}>✕</button></span>`}
      <span class="grow"></span>
      <div class="tabs" role="group" aria-label="State">
        ${STATES.map(([value, title]) => html`<button key=${value} type="button" aria-pressed=${state === value && !consumer} onClick=${() => search({ ...place.value.query, state: value, consumer: "" })}>${title}</button>`)}
      </div></div>
    <${Answer} query=${pending}>${(/** @type {any} */ { items }) => html`<${Pending} items=${items} />`}<//>
    ${(cursors.length > 0 || pending.data?.next_cursor) && html`<div class="pager">
      <button type="button" disabled=${!cursors.length} onClick=${() => setCursors(cursors.slice(0, -1))}>← Back</button><span></span>
      <button type="button" disabled=${!pending.data?.next_cursor} onClick=${() => setCursors([...cursors, pending.data.next_cursor])}>More →</button></div>`}
  </section>`;
}

/** @param {{items: any[]}} props */
function Pending({ items }) {
  if (!items.length) return html`<p class="muted">Nothing is pending here.</p>`;
  return html`<table class="rows pending" tabindex="0">
    <thead><tr><th>Entry</th><th>State</th><th class="number">Deliveries</th><th class="number">Idle</th><th>Due</th><th>Handlers and errors</th><th>Consumer</th></tr></thead>
    <tbody>${items.map((one) => html`<tr key=${one.entry_id}>
      <td class="name mono">${one.entry_id}<span class="under"><${Time} at=${one.appended_at} /></span></td>
      <td><${State} state=${one.state} /></td>
      <td class="number" data-label="deliveries">${count(one.deliveries)}</td>
      <td class="number" data-label="idle">${one.idle_ms === null ? "–" : duration(one.idle_ms / 1000)}</td>
      <td data-label="due"><${Time} at=${one.due_at} /></td>
      <td class="error"><${Why} entry=${one} /></td>
      <td class="mono" data-label="held by">${one.consumer ?? "–"}${one.consumer && !one.consumer_alive && html`<span class="under">gone</span>`}</td>
    </tr>`)}</tbody>
  </table>`;
}

/** Which handlers are left, and how they failed. @param {{entry: any}} props */
function Why({ entry: { handlers, failures, attempts } }) {
  const failed = new Map([...failures, ...attempts.map((/** @type {any} */ of) => ({ handler: of.handler, ...of.attempts.at(-1) }))].map((one) => [one.handler, one]));
  const names = [...new Set([...handlers, ...failed.keys()])];
  if (!names.length) return html`<span class="muted">–</span>`;
  return names.map((name) => {
    const { error_type: type = "", error = "" } = failed.get(name) ?? {};
    return html`<span class="clamp" key=${name}><span class="mono">${name || "any handler"}</span> ${type && html`<${ErrorType} type=${type} /> `}${error}</span>`;
  });
}

/** @param {{kind: "pause" | "resume", group: string, onClose: () => void}} props */
function PauseDialog({ kind, group, onClose }) {
  const [isBusy, setBusy] = useState(false);
  /** @param {any} event */
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    const reason = event.target.elements.reason.value;
    await attempt(async () => {
      await ask("POST", address(`groups/${kind}`), { body: { stream: stream(), group, reason } });
      note(kind === "pause" ? "Paused. Running handlers finish; nothing new begins." : "Resumed in all its processes.");
      onClose();
    });
    setBusy(false);
  };
  const title = kind === "pause" ? `Pause ${group}` : `Resume ${group}`;
  return html`<${Dialog} title=${title} onClose=${onClose}>
    <form class="stack" onSubmit=${send}>
      <p>${kind === "pause" ? "After about a second, no process of the group begins an entry, also after a restart, until it is resumed." : "Within about a second, all processes of the group continue."}</p>
      <label>Reason <input name="reason" maxlength="1000" autofocus required=${kind === "pause"} /></label>
      <footer class="dialog-foot"><button type="button" onClick=${onClose}>Cancel</button><button class="primary" disabled=${isBusy}>${title}</button></footer>
    </form>
  <//>`;
}
