/** The overview: what is wrong, in words, with the next step; then every stream and group. */
import { address, useQuery } from "../api.js";
import { count, counted, duration } from "../format.js";
import { Answer, Time } from "../parts.js";
import { link } from "../route.js";
import { Spark } from "../charts.js";
import { html } from "../ui.js";

export function OverviewView() {
  const overview = useQuery(address("overview"), { every: 3 });
  return html`<div class="page-head"><h1>Overview</h1></div>
    <${Answer} query=${overview} rows=${8}>
      ${(/** @type {any} */ { findings, streams, missing }) => html`
        <${Findings} findings=${findings} />
        ${streams.map((/** @type {any} */ one) => html`<${StreamPanel} key=${one.stream} about=${one} />`)}
        ${missing.length > 0 && html`<p class="muted">Not there yet, or not readable: <span class="mono">${missing.join(", ")}</span></p>`}`}
    <//>`;
}

/** Text with names between backquotes. @param {{text: string}} props */
function Words({ text }) {
  return text.split(/`([^`]*)`/).map((part, at) => (at % 2 ? html`<span class="mono" key=${at}>${part}</span>` : part));
}

/** @param {{findings: any[]}} props */
function Findings({ findings }) {
  if (!findings.length) return html`<section class="finding good"><p><strong>All is well.</strong> Nothing failed for good, and every group keeps up.</p></section>`;
  return html`<section class="findings" aria-label="What is wrong">
    ${findings.map((one, at) => {
      const to = stepOf(one);
      return html`<article key=${at} class=${`finding ${one.severity === "danger" ? "bad" : "warn"}`}>
        <p class="finding-text"><${Words} text=${one.message} /></p>
        <p class="finding-next">${one.advice && html`<span>Next: <${Words} text=${one.advice} /></span>`}
          ${one.last_at && html`<span class="muted">last <${Time} at=${one.last_at} /></span>`}</p>
        ${to && html`<a class="button" href=${to}>Show</a>`}
      </article>`;
    })}
  </section>`;
}

/** Where the next step is. @param {any} finding */
function stepOf({ dlq, fingerprint, stream: name, group, handler }) {
  if (dlq) return link("letters", { query: { dlq, fingerprint, ...(fingerprint ? {} : { handler }) } });
  return name ? link("groups", { query: { stream: name, group } }) : "";
}

/** @param {{about: any}} props */
function StreamPanel({ about }) {
  return html`<section class="panel">
    <div class="panel-head">
      <h2 class="mono">${about.stream}</h2>
      <span class="muted">${counted(about.length, "entry", "entries")} · ${about.appended_per_second === null ? "" : `${rate(about.appended_per_second)} in · `}last <${Time} at=${about.last_at} /></span>
    </div>
    ${about.groups.length
      ? html`<table class="rows overview-groups">
          <thead><tr><th>Group</th><th class="number">Handled</th><th>Last hour</th><th class="number">Failed</th><th>Last hour</th><th class="number">Lag</th><th class="number">Pending</th><th>Oldest</th><th class="number">Dead letters</th><th class="number">Alive</th></tr></thead>
          <tbody>${about.groups.map((/** @type {any} */ one) => html`<${GroupRow} key=${one.group} stream=${about.stream} group=${one} />`)}</tbody>
        </table>`
      : html`<p class="muted">No group reads this stream.</p>`}
    ${about.more_groups && html`<p><a href=${link("groups", { query: { stream: about.stream } })}>All groups</a></p>`}
  </section>`;
}

/** @param {{stream: string, group: any}} props */
function GroupRow({ stream: name, group }) {
  const letters = group.dead_letters;
  return html`<tr>
    <td class="name"><a href=${link("groups", { query: { stream: name, group: group.group } })}>${group.group}</a>${group.pause && html` <span class="state warn" title=${group.pause.reason}>paused</span>`}</td>
    <td class="number">${rate(group.handled_per_second)}</td>
    <td><${Spark} values=${group.handled} label="Handled in the last hour" /></td>
    <td class=${`number ${group.failed_per_second ? "bad-text" : ""}`}>${rate(group.failed_per_second)}</td>
    <td><${Spark} values=${group.failed} label="Failed in the last hour" tone="bad" /></td>
    <td class="number">${group.lag_exact ? "" : "≤ "}${count(group.lag)}</td>
    <td class="number">${count(group.pending)}</td>
    <td>${group.oldest_unsettled_ms === null ? html`<span class="muted">–</span>` : duration(group.oldest_unsettled_ms / 1000)}</td>
    <td class="number">${letters ? html`<a class="bad-text" href=${link("letters", { query: { dlq: group.dlq, group: group.group } })}>${count(letters)}</a>` : count(letters)}</td>
    <td class=${`number ${group.consumers_alive ? "" : "bad-text"}`}>${count(group.consumers_alive)}</td>
  </tr>`;
}

/** @param {number | null} value */
function rate(value) {
  if (value === null) return "–";
  const number = Number(value); // not as exactly as it is stored
  return `${number >= 10 || number === 0 ? Math.round(number) : number.toFixed(1)}/s`;
}
