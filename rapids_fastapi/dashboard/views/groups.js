/** The groups of a stream: how far they are, who works, what is pending; pause and resume. */
import { address, ask, capabilities, may, useQuery } from "../api.js";
import { count, duration } from "../format.js";
import { useKeys } from "../keys.js";
import { Action, Answer, Dialog, Empty, Figure, State, Time, attempt, note } from "../parts.js";
import { go, link, place, search, stream } from "../route.js";
import { html, useState } from "../ui.js";

export function GroupsView() {
  const { group } = place.value.query;
  return group ? html`<${GroupView} key=${group} name=${group} />` : html`<${AllGroups} />`;
}

function AllGroups() {
  const streams = capabilities.value?.streams ?? [];
  const groups = useQuery(address("groups", { stream: stream(), limit: 200 }), { every: 3 });
  const about = useQuery(address("streams"), { every: 10 });
  const here = about.data?.items.find((/** @type {any} */ one) => one.stream === stream());
  return html`<div class="page-head">
      <h1>Groups</h1>
      <div class="title-line">
        ${streams.length > 1
          ? html`<label class="inline">Stream <select value=${stream()} onChange=${(/** @type {any} */ event) => search({ stream: event.target.value })}>
              ${streams.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}</select></label>`
          : html`<span class="mono">${stream()}</span>`}
        ${here && html`<p class="summary">${count(here.length)} entries · last <${Time} at=${here.last_at} /> · ${here.memory ? `${Math.round(here.memory / 1024).toLocaleString("en")} KiB` : ""}</p>`}
      </div>
    </div>
    <${Answer} query=${groups}>
      ${(/** @type {any} */ { items }) =>
        items.length
          ? html`<table class="rows groups" tabindex="0">
              <thead><tr><th>Group</th><th>State</th><th class="number">Lag</th><th class="number">Held</th><th class="number">Waiting</th><th class="number">Parked</th><th class="number">Consumers</th><th>Oldest unsettled</th></tr></thead>
              <tbody>${items.map((/** @type {any} */ one) => html`<${GroupRow} key=${one.group} group=${one} />`)}</tbody>
            </table>`
          : html`<${Empty} title="No group reads this stream"><p>Entries wait until a router with a group starts.</p><//>`}
    <//>`;
}

/** What a group is like, in one word. @param {any} group */
function stateOf(group) {
  if (group.pause) return "paused";
  if (!group.consumers_alive) return "failed";
  return group.lag > 0 || group.pending > 0 ? "running" : "handled";
}
const STATES = /** @type {Record<string, string>} */ ({ paused: "paused", failed: "nobody alive", running: "working", handled: "up to date" });

/** @param {{group: any}} props */
function GroupState({ group }) {
  const state = stateOf(group);
  const tone = { paused: "warn", failed: "bad", running: "info", handled: "good" }[state];
  return html`<span class=${`state ${tone}`} title=${group.pause ? `by ${group.pause.actor || "somebody"}: ${group.pause.reason}` : ""}>${STATES[state]}</span>`;
}

/** @param {{group: any}} props */
function GroupRow({ group }) {
  const to = link("groups", { query: { stream: stream(), group: group.group } });
  return html`<tr onClick=${(/** @type {any} */ event) => !event.target.closest("a") && go(to)}>
    <td class="name"><a href=${to}>${group.group}</a>${group.pause && html`<span class="under">${group.pause.reason}</span>`}</td>
    <td><${GroupState} group=${group} /></td>
    <td class="number">${group.lag_exact ? "" : "≤ "}${count(group.lag)}</td>
    <td class="number">${count(group.held)}</td>
    <td class="number">${count(group.waiting)}</td>
    <td class=${`number ${group.parked ? "bad-text" : ""}`}>${count(group.parked)}</td>
    <td class="number">${count(group.consumers_alive)}<span class="muted"> of ${count(group.consumers)}</span></td>
    <td>${group.oldest_unsettled_ms === null ? html`<span class="muted">–</span>` : duration(group.oldest_unsettled_ms / 1000)}</td>
  </tr>`;
}

/** @param {{name: string}} props */
function GroupView({ name }) {
  const [wanted, setWanted] = useState(/** @type {"pause" | "resume" | null} */ (null));
  const [state, setState] = useState("");
  const [cursors, setCursors] = useState(/** @type {string[]} */ ([]));
  const detail = useQuery(address("groups", { stream: stream(), group: name, limit: 100 }), { every: 3 });
  const pending = useQuery(address("groups/pending", { stream: stream(), group: name, state, cursor: cursors.at(-1), limit: 50 }), { every: 3 });
  const isPaused = !!detail.data?.group.pause;
  useKeys({
    s: { does: "Pause or resume the group", run: () => may("edit") && detail.data && setWanted(isPaused ? "resume" : "pause") },
    u: { does: "Back to all groups", run: () => go(link("groups", { query: { stream: stream() } })) },
  });
  return html`<div class="page-head">
      <nav class="crumbs" aria-label="Where this is"><a href=${link("groups", { query: { stream: stream() } })}>Groups</a> of <span class="mono">${stream()}</span></nav>
      <div class="title-line"><h1 class="mono">${name}</h1>${detail.data && html`<${GroupState} group=${detail.data.group} />`}<span class="grow"></span>
        <${Action} class=${isPaused ? "primary" : ""} has=${may("edit")} permission="edit" disabled=${!detail.data} onClick=${() => setWanted(isPaused ? "resume" : "pause")} keys="s">${isPaused ? "Resume…" : "Pause…"}<//>
      </div>
    </div>
    <${Answer} query=${detail}>
      ${(/** @type {any} */ { group, consumers }) => html`
        ${group.pause && html`<p class="banner">Paused by ${group.pause.actor || "somebody"} <${Time} at=${group.pause.since} />${group.pause.reason && `: ${group.pause.reason}`}</p>`}
        <section class="panel"><div class="figures">
          <${Figure} name="lag" value=${group.lag} title="Entries that the group has not read" />
          <${Figure} name="held" value=${group.held} title="Their handlers run, or will run" />
          <${Figure} name="waiting" value=${group.waiting} title="They are delivered again when they are due" />
          <${Figure} name="parked" value=${group.parked} tone=${group.parked ? "bad" : ""} title="They failed for good, and there is no dead-letter stream" />
          <${Figure} name="replays" value=${group.replays} title="Replays that are not settled" />
          <${Figure} name="oldest unsettled" value=${group.oldest_unsettled_ms === null ? "–" : duration(group.oldest_unsettled_ms / 1000)} />
        </div></section>
        <section class="panel"><h2>Consumers</h2><${Consumers} consumers=${consumers} /></section>`}
    <//>
    <section class="panel">
      <div class="panel-head"><h2>Pending</h2>
        <div class="tabs" role="group" aria-label="State">
          ${[["", "All"], ["waiting", "Waiting"], ["parked", "Parked"]].map(([value = "", title]) => html`<button key=${value} type="button" aria-pressed=${state === value} onClick=${() => (setCursors([]), setState(value))}>${title}</button>`)}
        </div></div>
      <${Answer} query=${pending}>${(/** @type {any} */ { items }) => html`<${Pending} items=${items} />`}<//>
      ${(cursors.length > 0 || pending.data?.next_cursor) && html`<div class="pager">
        <button type="button" disabled=${!cursors.length} onClick=${() => setCursors(cursors.slice(0, -1))}>← Back</button><span></span>
        <button type="button" disabled=${!pending.data?.next_cursor} onClick=${() => setCursors([...cursors, pending.data.next_cursor])}>More →</button></div>`}
    </section>
    ${wanted && html`<${PauseDialog} kind=${wanted} group=${name} onClose=${() => (setWanted(null), detail.reload())} />`}`;
}

/** @param {{consumers: any[]}} props */
function Consumers({ consumers }) {
  if (!consumers.length) return html`<p class="muted">None. Entries wait until a process starts.</p>`;
  return html`<table class="rows consumers" tabindex="0">
    <thead><tr><th>Consumer</th><th>State</th><th class="number">Pending</th><th>Last seen</th><th>Alive since</th></tr></thead>
    <tbody>${consumers.map((one) => html`<tr key=${one.consumer}>
      <td class="name mono">${one.consumer}</td>
      <td><span class=${`state ${one.alive ? "good" : "plain"}`}>${one.alive ? "alive" : "gone"}</span></td>
      <td class="number">${count(one.pending)}</td><td><${Time} at=${one.seen_at} /></td><td><${Time} at=${one.alive_since} /></td>
    </tr>`)}</tbody>
  </table>`;
}

/** @param {{items: any[]}} props */
function Pending({ items }) {
  if (!items.length) return html`<p class="muted">Nothing is pending here.</p>`;
  return html`<table class="rows pending" tabindex="0">
    <thead><tr><th>Entry</th><th>State</th><th class="number">Deliveries</th><th>Idle</th><th>Due</th><th>Handlers and errors</th><th>Consumer</th></tr></thead>
    <tbody>${items.map((one) => html`<tr key=${one.entry_id}>
      <td class="name mono">${one.entry_id}<span class="under"><${Time} at=${one.appended_at} /></span></td>
      <td><${State} state=${one.state} /></td>
      <td class="number">${count(one.deliveries)}</td>
      <td>${one.idle_ms === null ? "–" : duration(one.idle_ms / 1000)}</td>
      <td><${Time} at=${one.due_at} /></td>
      <td class="error">${[...one.handlers, ...one.failures.map((/** @type {any} */ failure) => `${failure.handler}: ${failure.error}`)].join(", ")}
        ${one.attempts.map((/** @type {any} */ of) => html`<span class="under" key=${of.handler}>${of.handler}: ${of.attempts.at(-1)?.error_type} ${of.attempts.at(-1)?.error}</span>`)}</td>
      <td class="mono">${one.consumer ?? "–"}</td>
    </tr>`)}</tbody>
  </table>`;
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
