/** The causation tree of a correlation id as a picture on a time axis. */
import { address, useQuery } from "../api.js";
import { clock, counted, duration, exactly } from "../format.js";
import { useKeys } from "../keys.js";
import { Answer, Empty, ErrorType, State, Time } from "../parts.js";
import { link, place, search } from "../route.js";
import { PayloadView } from "../tree.js";
import { html, useState } from "../ui.js";

export function TraceView() {
  const { id } = place.value.query;
  const query = useQuery(id ? address("events", { correlation_id: id }) : null, { every: 5 });
  useKeys({ "/": { does: "Trace another id", run: () => document.getElementById("trace-id")?.focus() } });
  /** @param {any} event */
  const find = (event) => {
    event.preventDefault();
    search({ id: event.target.elements.id.value.trim() });
  };
  return html`<div class="page-head"><h1>Trace</h1>
      <form class="inline-form" onSubmit=${find} key=${id}>
        <input id="trace-id" name="id" class="mono" aria-label="Correlation id" placeholder="Correlation id, or the id of an event" defaultValue=${id ?? ""} maxlength="1000" required />
        <button class="primary">Trace</button>
      </form>
    </div>
    ${id
      ? html`<${Answer} query=${query}>${(/** @type {any} */ tree) => html`<${Tree} tree=${tree} />`}<//>`
      : html`<${Empty} title="What became of a request">
          <p>Every request that passes the correlation middleware has an id, also in the header <span class="mono">X-Correlation-ID</span> of its answer. Each dead letter links to its trace.</p>
        <//>`}`;
}

/**
 * The events, each after the one that caused it.
 * @param {any} tree
 * @returns {{event: any, index: number}[]}
 */
function inOrder(tree) {
  /** @type {{event: any, index: number}[]} */ const found = [];
  const seen = new Set();
  /** @param {number} index */
  const visit = (index) => {
    if (seen.has(index) || !tree.events[index]) return;
    seen.add(index);
    found.push({ event: tree.events[index], index });
    tree.events[index].children.forEach(visit);
  };
  tree.roots.forEach(visit);
  tree.events.forEach((/** @type {any} */ _, /** @type {number} */ index) => visit(index));
  return found;
}

/** @param {{tree: any}} props */
function Tree({ tree }) {
  if (!tree.events.length && !tree.letters.length) {
    return html`<${Empty} title="Nothing was found">
      <p>Among the newest entries of all streams here, none has the id <span class="mono">${tree.correlation_id}</span>.</p>
    <//>`;
  }
  const times = [
    ...tree.events.map((/** @type {any} */ one) => one.appended_at),
    ...tree.letters.flatMap((/** @type {any} */ one) => [one.failed_at, ...one.replays.map((/** @type {any} */ replay) => replay.at)]),
    ...tree.replays.map((/** @type {any} */ one) => one.appended_at),
  ].filter(Boolean).map(Date.parse);
  const begin = Math.min(...times);
  const span = Math.max(1, Math.max(...times) - begin);
  const x = (/** @type {string} */ at) => `${(2 + (94 * (Date.parse(at) - begin)) / span).toFixed(2)}%`;
  const orphans = tree.letters.filter((/** @type {any} */ one) => !tree.events.some((/** @type {any} */ event) => event.stream === one.stream && event.entry_id === one.entry_id));
  return html`<p class="summary">${counted(tree.events.length, "event")}, ${counted(tree.letters.length, "dead letter")} in ${duration(span / 1000)} · began <${Time} at=${tree.began_at} />${!tree.complete && html` · <span class="warn-text">not everything was read: ${tree.limits.join(", ")}</span>`}</p>
    <div class="trace">
      <div class="trace-row trace-axis" aria-hidden="true"><span></span><span class="ticks">${[0, 0.25, 0.5, 0.75, 1].map((part) => html`<span key=${part} style=${{ left: `${2 + 94 * part}%` }}>${part ? `+${duration((span * part) / 1000)}` : clock(new Date(begin).toISOString())}</span>`)}</span></div>
      ${inOrder(tree).map(({ event, index }) => html`<${EventRow} key=${index} event=${event} tree=${tree} x=${x} />`)}
      ${orphans.map((/** @type {any} */ one) => html`<div class="trace-row" key=${one.id}><div class="trace-label"><${LetterLink} letter=${one} /><span class="under">its event was not found</span></div><svg class="trace-line"><${Mark} letter=${one} x=${x} /></svg></div>`)}
    </div>
    <p class="legend muted"><span class="key event"></span>event <span class="key letter"></span>dead letter <span class="key replay"></span>replay <span class="key due"></span>next attempt · “handled” follows from an acknowledgement</p>`;
}

/** @param {{event: any, tree: any, x: (at: string) => string}} props */
function EventRow({ event, tree, x }) {
  const [isOpen, setOpen] = useState(false);
  const letters = tree.letters.filter((/** @type {any} */ one) => one.stream === event.stream && one.entry_id === event.entry_id);
  const replays = tree.replays.filter((/** @type {any} */ one) => one.event_id === event.event_id);
  const parent = event.parent === null || event.parent === undefined ? null : tree.events[event.parent];
  const dues = event.deliveries.map((/** @type {any} */ one) => one.pending?.due_at).filter(Boolean);
  return html`<div class="trace-row">
      <div class="trace-label" style=${{ paddingLeft: `${8 + Math.min(event.depth, 8) * 16}px` }}>
        <button type="button" class="link mono" aria-expanded=${isOpen} onClick=${() => setOpen(!isOpen)}>${event.depth > 0 ? "└ " : ""}${event.event_type}</button>
        <span class="trace-states">${event.deliveries.map((/** @type {any} */ one) => html`<${DeliveryState} key=${one.group} delivery=${one} />`)}</span>
      </div>
      <svg class="trace-line" role="img" aria-label=${`${event.event_type} at ${event.appended_at}`}>
        ${parent?.appended_at && event.appended_at && html`<line class="caused" x1=${x(parent.appended_at)} x2=${x(event.appended_at)} y1="50%" y2="50%" />`}
        ${letters.map((/** @type {any} */ one) => one.failed_at && event.appended_at && html`<line class="failing" key=${one.id} x1=${x(event.appended_at)} x2=${x(one.failed_at)} y1="50%" y2="50%" />`)}
        ${event.appended_at && html`<circle class="event" cx=${x(event.appended_at)} cy="50%" r="5"><title>${event.event_type}, appended ${exactly(event.appended_at)}</title></circle>`}
        ${letters.map((/** @type {any} */ one) => html`<${Mark} key=${one.id} letter=${one} x=${x} />`)}
        ${replays.map((/** @type {any} */ one) => one.appended_at && html`<circle class="replay" key=${one.entry_id} cx=${x(one.appended_at)} cy="50%" r="4"><title>replay under way, ${exactly(one.appended_at)}</title></circle>`)}
        ${dues.map((/** @type {string} */ at) => html`<circle class="due" key=${at} cx="98%" cy="50%" r="4"><title>next attempt ${exactly(at)}</title></circle>`)}
      </svg>
    </div>
    ${isOpen && html`<div class="trace-detail">
      <p class="muted">${event.stream} · <a class="mono" href=${link("entries", { id: event.entry_id, query: { stream: event.stream } })}>${event.entry_id}</a> · event <span class="mono">${event.event_id}</span>${event.missing_parent ? " · its cause was not found" : ""}</p>
      ${letters.map((/** @type {any} */ one) => html`<p key=${one.id}><${LetterLink} letter=${one} /> <span class="cut"><${ErrorType} type=${one.error_type} /> ${one.error}</span></p>`)}
      <${PayloadView} payload=${event.data} />
    </div>`}`;
}

/** @param {{delivery: any}} props */
function DeliveryState({ delivery }) {
  const what = delivery.handlers.map((/** @type {any} */ one) => `${one.handler}: ${one.state}`).join(", ");
  return html`<span class="trace-state" title=${what}><span class="muted">${delivery.group}</span> <${State} state=${delivery.state} /></span>`;
}

/** @param {{letter: any}} props */
function LetterLink({ letter }) {
  return html`<a href=${link("letters", { id: letter.id, query: { dlq: letter.dlq } })}>${letter.handler || letter.event_type || letter.id}</a> <${State} state=${letter.state} />`;
}

/** A dead letter on the axis, and its replays. @param {{letter: any, x: (at: string) => string}} props */
function Mark({ letter, x }) {
  return html`${letter.failed_at && html`<rect class="letter" x=${x(letter.failed_at)} y="50%" width="9" height="9" rx="1"><title>${letter.handler}: ${letter.error_type} ${letter.error}</title></rect>`}
    ${letter.replays.map((/** @type {any} */ one, /** @type {number} */ at) => html`<circle class="replay" key=${at} cx=${x(one.at)} cy="50%" r="4"><title>replayed ${exactly(one.at)}: ${one.outcome}</title></circle>`)}`;
}
