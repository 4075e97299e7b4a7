/** One operation, live: how far it is, how fast, and what could not be moved. */
import { Problem, address, ask, may, useQuery } from "../api.js";
import { count, counted, duration } from "../format.js";
import { useKeys } from "../keys.js";
import { Action, Answer, Facts, Figure, State, Time, attempt, note } from "../parts.js";
import { link, ofQueue, place, queue } from "../route.js";
import { html, useEffect, useRef, useState } from "../ui.js";
import { CanaryPanel } from "./canary.js";
import { Bar, selected } from "./operations.js";
import { StartDialog } from "./start_operation.js";

const NEEDS = /** @type {const} */ ({ replay: "replay", discard: "discard", restore: "discard" });

export function OperationView() {
  const { id } = place.value;
  const path = `operations/${encodeURIComponent(id)}`;
  const query = useQuery(address(path, { dlq: queue() }), { every: 5 });
  const live = useEvents(address(`${path}/events`, { dlq: queue() }), query.data !== null);
  return html`<${Answer} query=${query}>
    ${(/** @type {import("../types.js").Operation} */ read) => {
      const latest = live && live.updated_at >= read.updated_at ? live : read;
      return html`<${Shown} operation=${latest} path=${path} reload=${query.reload} />`;
    }}
  <//>`;
}

/**
 * The latest progress from server-sent events; null until one came. Without them, the view asks every few seconds.
 * @param {string} url
 * @param {boolean} isWanted
 * @returns {import("../types.js").Operation | null}
 */
function useEvents(url, isWanted) {
  const [found, setFound] = useState(/** @type {any} */ (null));
  useEffect(() => {
    if (!isWanted) return undefined;
    /** @type {EventSource | null} */ let source = null;
    const close = () => {
      source?.close();
      source = null;
    };
    const follow = () => {
      if (document.hidden) return close();
      if (source) return;
      source = new EventSource(url);
      source.addEventListener("progress", (event) => setFound(JSON.parse(event.data)));
      source.addEventListener("ended", (event) => {
        setFound(JSON.parse(event.data));
        close();
      });
      source.addEventListener("problem", close);
    };
    follow();
    document.addEventListener("visibilitychange", follow);
    return () => {
      document.removeEventListener("visibilitychange", follow);
      close();
    };
  }, [url, isWanted]);
  return found;
}

/** Letters a second, as seen here. @param {import("../types.js").Operation} operation */
function useRate(operation) {
  const seen = useRef(/** @type {{at: number, moved: number}[]} */ ([]));
  const moved = operation.done + operation.skipped + operation.failed;
  if (seen.current.at(-1)?.moved !== moved) seen.current = [...seen.current.slice(-9), { at: Date.now(), moved }];
  const [first, last] = [seen.current[0], seen.current.at(-1)];
  if (!first || !last || last.at === first.at) return null;
  return ((last.moved - first.moved) * 1000) / (last.at - first.at);
}

/** @param {{operation: import("../types.js").Operation, path: string, reload: () => void}} props */
function Shown({ operation, path, reload }) {
  const [isUndoing, setUndoing] = useState(false);
  const rate = useRate(operation);
  const { kind, state, done, skipped, failed, total } = operation;
  const left = Math.max(0, total - done - skipped - failed);
  const isRunning = state === "running";
  const has = may(NEEDS[kind]);
  /** @param {"pause" | "resume" | "cancel"} action @param {Record<string, unknown>} [body] */
  const change = (action, body = {}) =>
    attempt(async () => {
      try {
        await ask("POST", address(`${path}/${action}`, { dlq: queue() }), { body });
        note({ pause: "Paused.", resume: "Continued.", cancel: "Cancelled. What was moved stays moved." }[action]);
      } catch (error) {
        if (!(error instanceof Problem) || error.kind !== "operation-state") throw error;
      }
      reload();
    });
  useKeys({ s: { does: "Pause or resume", run: () => has && (isRunning ? change("pause") : state === "paused" && change("resume")) } });
  const verb = { replay: "Replay", discard: "Discard", restore: "Restore" }[kind];
  return html`<div class="page-head">
      <nav class="crumbs" aria-label="Where this is"><a href=${link("operations", { query: ofQueue() })}>Operations</a> / <span class="mono">${operation.id}</span></nav>
      <div class="title-line"><h1>${verb} of ${counted(total, "letter")}</h1><${State} state=${state} /><span class="grow"></span>
      <div class="actions">
        ${isRunning && html`<${Action} has=${has} permission=${NEEDS[kind]} onClick=${() => change("pause")} keys="s">Pause<//>`}
        ${state === "paused" && html`<${Action} class="primary" has=${has} permission=${NEEDS[kind]} onClick=${() => change("resume")} keys="s">Resume<//>`}
        ${state === "paused" && operation.canary && html`<${Action} has=${has} permission=${NEEDS[kind]} onClick=${() => change("resume", { canary: false })}>Replay the rest at once<//>`}
        ${(isRunning || state === "paused") && html`<${Action} class="danger" has=${has} permission=${NEEDS[kind]} onClick=${() => change("cancel")}>Cancel, leave ${counted(left, "letter")}<//>`}
        ${kind === "discard" && !isRunning && state !== "paused" && done > 0 &&
        html`<${Action} has=${has} permission="discard" onClick=${() => setUndoing(true)}>Undo: restore ${counted(done, "letter")}…<//>`}
      </div></div>
    </div>
    <section class="panel">
      <${Bar} operation=${operation} isLarge=${true} />
      <div class="figures">
        <${Figure} name="moved" value=${done} tone="good" />
        <${Figure} name="left" value=${left} />
        <${Figure} name="skipped" value=${skipped} title="They did not exist any more, or somebody else had moved them" />
        <${Figure} name="could not be moved" value=${failed} tone=${failed ? "bad" : ""} />
        ${isRunning && html`<${Figure} name="a second" value=${rate === null ? "–" : count(Math.round(rate))} />
          <${Figure} name="to go" value=${rate ? duration(left / rate) : "–"} />`}
      </div>
    </section>
    <div class=${operation.canary || operation.errors.length ? "columns" : ""}>
      <div class="main-column">
        ${operation.canary && html`<${CanaryPanel} canary=${operation.canary} />`}
        ${operation.errors.length > 0 && html`<section class="panel">
          <h2>What could not be moved</h2>
          <ul class="problems">${operation.errors.map((one, at) => html`<li key=${at}>
            ${one.letter_id && html`<a class="mono" href=${link("letters", { id: one.letter_id, query: ofQueue() })}>${one.letter_id}</a>`} ${one.error}</li>`)}</ul>
        </section>`}
      </div>
      <aside class="side-column"><section class="panel">
        <h2>About it</h2>
        <${Facts} rows=${/** @type {[string, any][]} */ ([
          ["Letters", selected(operation.selector)],
          ["Who", operation.actor || "–"],
          ["Why", operation.reason],
          ["Started", html`<${Time} at=${operation.created_at} />`],
          ["Ended", operation.ended_at && html`<${Time} at=${operation.ended_at} />`],
          ["Goes to", kind === "replay" ? { handler: "the handler that failed", group: "all handlers of the group", everyone: "every group" }[operation.scope] : ""],
          ["At most", operation.rate && `${count(operation.rate)} a second`],
          ["Runs in", html`<span class="mono">${operation.owner || "no process yet"}</span>`],
        ])} />
      </section></aside>
    </div>
    ${isUndoing && html`<${StartDialog} kind="restore" count=${done} selector=${operation.selector} onClose=${() => setUndoing(false)} />`}`;
}
