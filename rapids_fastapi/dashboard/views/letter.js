/** One dead letter: what failed, why, what was tried, and how to put it right. */
import { address, ask, may, useQuery } from "../api.js";
import { REASONS, className, clock, counted, exactly } from "../format.js";
import { useKeys } from "../keys.js";
import { Action, Answer, Copy, Facts, State, Time, attempt, note } from "../parts.js";
import { go, link, ofQueue, place, queue } from "../route.js";
import { PayloadView, textOf } from "../tree.js";
import { html, useState } from "../ui.js";
import { EditDialog } from "./edit.js";
import { Attempts, History } from "./history.js";
import { list, listed } from "./letters.js";
import { Traceback } from "./traceback.js";

export function LetterView() {
  const { id } = place.value;
  const query = useQuery(address(`dead-letters/${encodeURIComponent(id)}`, { dlq: queue() }), { every: 10 });
  return html`<${Answer} query=${query} rows=${12}>
    ${(/** @type {import("../types.js").Letter} */ letter) => html`<${Shown} letter=${letter} reload=${query.reload} />`}
  <//>`;
}

/** @param {{letter: import("../types.js").Letter, reload: () => void}} props */
function Shown({ letter, reload }) {
  const [isEditing, setEditing] = useState(false);
  const [isBusy, setBusy] = useState(false);
  const at = listed.indexOf(letter.id);
  const [previous, next] = [at > 0 ? listed[at - 1] : undefined, at >= 0 ? listed[at + 1] : undefined];
  const isDead = letter.state === "dead";
  /** @param {string | undefined} to */
  const goTo = (to) => to && go(link("letters", { id: to, query: ofQueue() }));
  const where = address(`dead-letters/${encodeURIComponent(letter.id)}`, { dlq: letter.dlq });
  const route = (/** @type {string} */ action) => where.replace("?", `/${action}?`);
  /** @param {() => Promise<void>} action */
  const once = async (action) => {
    setBusy(true);
    await attempt(action);
    setBusy(false);
    reload();
  };
  const replay = () =>
    once(async () => {
      await ask("POST", route("replay"), { body: {} });
      note("Replayed. What becomes of it is shown here.");
    });
  const restore = async () => {
    await ask("POST", route("restore"), { body: {} });
    note("Restored.");
    reload();
  };
  const discard = () =>
    once(async () => {
      await ask("DELETE", where);
      note("Discarded.", { undo: restore });
    });
  const whyNot = isDead ? "" : `It is ${letter.state}.`;
  useKeys({
    r: { does: "Replay", run: () => isDead && may("replay") && !isBusy && replay() },
    e: { does: "Edit and replay", run: () => isDead && may("edit") && may("replay") && setEditing(true) },
    d: { does: "Discard", run: () => isDead && may("discard") && !isBusy && discard() },
    j: { does: "Next letter", run: () => goTo(next) },
    k: { does: "Previous letter", run: () => goTo(previous) },
    u: { does: "Back to the list", run: () => go(list) },
  });
  return html`<div class="page-head">
      <nav class="crumbs" aria-label="Where this is"><a href=${list}>Dead letters</a> / <span class="mono">${letter.id}</span></nav>
      <div class="title-line">
        <h1 title=${letter.error_type}>${className(letter.error_type) || REASONS[letter.reason] || "Dead letter"}${letter.handler && html` <span class="light">in</span> <span class="mono">${letter.handler}</span>`}</h1>
        <${State} state=${letter.state} />
      </div>
      <div class="actions">
        <button type="button" disabled=${!previous} aria-keyshortcuts="k" onClick=${() => goTo(previous)}>← Newer</button>
        <button type="button" disabled=${!next} aria-keyshortcuts="j" onClick=${() => goTo(next)}>Older →</button>
        <span class="grow"></span>
        ${letter.state === "discarded"
          ? html`<${Action} class="primary" has=${may("discard")} permission="discard" onClick=${() => attempt(restore)}>Restore<//>`
          : html`<${Action} has=${may("discard")} permission="discard" disabled=${!isDead || isBusy} why=${whyNot} onClick=${discard} keys="d">Discard<//>
            <${Action} has=${may("edit") && may("replay")} permission="edit" disabled=${!isDead || isBusy} why=${whyNot} onClick=${() => setEditing(true)} keys="e">Edit and replay…<//>
            <${Action} class="primary" has=${may("replay")} permission="replay" disabled=${!isDead || isBusy} why=${whyNot} onClick=${replay} keys="r">Replay<//>`}
      </div>
    </div>
    <div class="columns">
      <div class="main-column">
        <section class="panel">
          <h2>Error</h2>
          <pre class="error-text">${letter.error || REASONS[letter.reason]}</pre>
          <p class="muted">${REASONS[letter.reason] ?? letter.reason}, after ${counted(letter.deliveries, "delivery", "deliveries")} · <${Time} at=${letter.failed_at} /></p>
          ${letter.traceback && html`<${Traceback} text=${letter.traceback} />`}
        </section>
        <section class="panel">
          <div class="panel-head"><h2>Payload</h2>
            ${letter.payload.encoding === "json" && html`<${Copy} text=${textOf(letter.payload)} />`}</div>
          <${PayloadView} payload=${letter.payload} />
          ${letter.metadata.value && Object.keys(letter.metadata.value).length > 0 &&
          html`<h3>Metadata</h3><${PayloadView} payload=${letter.metadata} />`}
        </section>
        <section class="panel">
          <h2>Attempts</h2>
          <${Attempts} letter=${letter} />
        </section>
      </div>
      <aside class="side-column">
        <section class="panel">
          <h2>Would it parse today?</h2>
          <${ParseToday} check=${letter.parse_check} />
        </section>
        ${(letter.history.length > 0 || letter.replays.length > 0) &&
        html`<section class="panel"><h2>History</h2><${History} letter=${letter} /></section>`}
        <section class="panel">
          <h2>About it</h2>
          <${Facts} rows=${facts(letter)} />
          <div class="actions">
            <${Copy} label="Copy id" text=${letter.id} />
            <${Copy} label="Copy link" text=${location.href} />
            <${Copy} label="Copy as curl" text=${`curl -H "Authorization: Bearer $RAPIDS_ADMIN_TOKEN" '${where}'`} />
          </div>
        </section>
        <${Related} letter=${letter} />
      </aside>
    </div>
    ${isEditing && html`<${EditDialog} letter=${letter} route=${route("replay")} check=${route("check")} onClose=${() => (setEditing(false), reload())} />`}`;
}

/** @param {import("../types.js").Letter} letter @returns {[string, any][]} */
function facts(letter) {
  const trace = letter.correlation_id || letter.event_id;
  return [
    ["Event", html`<span class="mono">${letter.event_type}</span> ${letter.schema_version && html`<span class="muted">version ${letter.schema_version}</span>`}`],
    ["Event id", html`<span class="mono">${letter.event_id}</span>`],
    ["Happened", letter.timestamp && html`<span title=${letter.timestamp}>${exactly(letter.timestamp)}</span>`],
    ["Handler", letter.handler && html`<a class="mono" href=${link("letters", { query: { ...ofQueue(), handler: letter.handler } })}>${letter.handler}</a>`],
    ["Group", html`<a class="mono" href=${link("groups", { query: { stream: letter.stream, group: letter.group } })}>${letter.group}</a>`],
    ["Stream", html`<span class="mono">${letter.stream}</span>`],
    ["Entry", html`<a class="mono" href=${link("entries", { id: letter.entry_id, query: { stream: letter.stream } })}>${letter.entry_id}</a>`],
    ["Correlation", trace && html`<a class="mono" href=${link("trace", { query: { id: trace } })}>${trace}</a>`],
    ["Caused by", letter.causation_id && html`<span class="mono">${letter.causation_id}</span>`],
    ["Error", letter.error_type && html`<span class="mono">${letter.error_type}</span>`],
    ["Failed in", letter.position && html`<span class="mono">${letter.position}</span>`],
    ["Consumer", html`<span class="mono">${letter.consumer}</span>`],
    ["Replay of", letter.replay_of && html`<a class="mono" href=${link("letters", { id: letter.replay_of, query: ofQueue() })}>${letter.replay_of}</a>`],
    ["Same cause", letter.fingerprint && html`<a href=${link("letters", { query: { ...ofQueue(), fingerprint: letter.fingerprint } })}>all letters of this cause</a>`],
  ];
}

const PARSES = /** @type {Record<string, string>} */ ({
  parses: "Yes. A replay gets as far as the handler.",
  invalid: "No. Its class refuses it: a replay would fail again.",
  newer_version: "Unknown. It was written by a newer version of its class.",
  unknown_type: "Unknown. This process has no class for its type.",
  unreadable: "No. No class could read it.",
  too_large: "Unknown. It is too large to try.",
});

/** @param {{check: import("../types.js").ParseCheck}} props */
function ParseToday({ check }) {
  return html`<p><${State} state=${check.outcome} /> ${PARSES[check.outcome]}</p>
    ${check.problems.length > 0 &&
    html`<ul class="problems">
      ${check.problems.map((one, at) => html`<li key=${at}><span class="mono">${one.pointer || "the event"}</span> ${one.message}</li>`)}
    </ul>`}
    ${check.event_class && html`<p class="muted mono">${check.event_class}</p>`}`;
}

/** @param {{letter: import("../types.js").Letter}} props */
function Related({ letter }) {
  const others = letter.links.letters;
  if (!others.length) return null;
  return html`<section class="panel">
    <h2>Other letters with this correlation id</h2>
    <ul class="plain-list">
      ${others.map(
        (one) => html`<li key=${`${one.dlq}/${one.id}`}>
          <a class="mono" href=${link("letters", { id: one.id, query: { dlq: one.dlq } })}>${one.handler || one.id}</a> <${State} state=${one.state} /> <span class="muted" title=${one.failed_at}>${one.failed_at ? clock(one.failed_at) : ""}</span>
        </li>`,
      )}
    </ul>
  </section>`;
}
