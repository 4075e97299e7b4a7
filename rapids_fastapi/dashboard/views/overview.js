/** The overview: what is wrong, in words, with the next step; then every stream and group. */
import { address, useQuery } from "../api.js";
import { Chart, Spark, sum } from "../charts.js";
import { count, counted, duration } from "../format.js";
import { Answer, Time } from "../parts.js";
import { link } from "../route.js";
import { html } from "../ui.js";
import { Findings } from "./health.js";

/** A page with more streams has no chart for each. */
const MAX_CHARTED = 12;

export function OverviewView() {
  const overview = useQuery(address("overview"), { every: 3 });
  return html`<div class="page-head"><h1>Overview</h1></div>
    <${Answer} query=${overview} rows=${8}>
      ${(/** @type {any} */ { findings, streams, missing, charts_since, chart_step }) => html`
        <${Findings} findings=${findings} well="Nothing failed for good, and every group keeps up." />
        ${streams.map((/** @type {any} */ one, /** @type {number} */ at) => html`<${StreamPanel} key=${one.stream} about=${one}
          time=${at < MAX_CHARTED ? { since: charts_since, step: chart_step } : null} />`)}
        ${missing.length > 0 && html`<p class="muted">Not there yet, or not readable: <span class="mono">${missing.join(", ")}</span></p>`}`}
    <//>`;
}

/** @param {{about: any, time: {since: string, step: number} | null}} props */
function StreamPanel({ about, time }) {
  return html`<section class="panel">
    <div class="panel-head">
      <h2 class="mono">${about.stream}</h2>
      <span class="muted">${counted(about.length, "entry", "entries")} · ${about.appended_per_second === null ? "" : `${rate(about.appended_per_second)} in · `}last <${Time} at=${about.last_at} /></span>
    </div>
    ${time && about.groups.length > 0 && html`<${StreamCharts} about=${about} time=${time} />`}
    ${about.groups.length
      ? html`<table class="rows overview-groups" tabindex="0">
          <thead><tr><th>Group</th><th class="number">Dead letters</th><th class="number">Lag</th><th class="number">Pending</th><th>Oldest</th><th class="number">Alive</th><th class="number">Handled</th><th>Last hour</th><th class="number">Failed</th><th>Last hour</th></tr></thead>
          <tbody>${about.groups.map((/** @type {any} */ one) => html`<${GroupRow} key=${one.group} stream=${about.stream} group=${one} />`)}</tbody>
        </table>`
      : html`<p class="muted">No group reads this stream.</p>`}
    ${about.more_groups && html`<p><a href=${link("groups", { query: { stream: about.stream } })}>All groups</a></p>`}
  </section>`;
}

/**
 * A stream's last hour. What its groups handled is on average, so that the two lines are one while all keep up. The
 * last minute is not over: without it, they would always fall at their end.
 * @param {{about: any, time: {since: string, step: number}}} props
 */
function StreamCharts({ about, time }) {
  const { groups } = about;
  const all = (/** @type {string} */ name) => total(groups.map((/** @type {any} */ one) => one[name]));
  const handled = all("handled").map((one) => (one === null ? null : Math.round(one / groups.length)));
  return html`<div class="charts">
    <${Chart} label="In and out, each minute" ...${time} lines=${[
      { name: "in", values: about.appended.slice(0, -1), tone: "--line-strong" },
      { name: groups.length > 1 ? "handled by a group" : "handled", values: handled.slice(0, -1), tone: "--accent" },
    ]} />
    <${Chart} label="Failures, each minute" ...${time} lines=${[
      { name: "failed", values: all("failed"), tone: "--warn" },
      { name: "dead", values: all("dead"), tone: "--bad" },
    ]} />
  </div>`;
}

/** The sum of charts; null where none of them knows anything. @param {(number | null)[][]} charts @returns {(number | null)[]} */
function total(charts) {
  return (charts[0] ?? []).map((_, at) => {
    const known = charts.map((one) => one[at] ?? null).filter((one) => one !== null);
    return known.length ? sum(known) : null;
  });
}

/** @param {{stream: string, group: any}} props */
function GroupRow({ stream: name, group }) {
  const letters = group.dead_letters;
  return html`<tr>
    <td class="name"><a href=${link("groups", { query: { stream: name, group: group.group } })}>${group.group}</a>${group.pause && html` <span class="state warn" title=${group.pause.reason}>paused</span>`}</td>
    <td class="number">${letters ? html`<a class="bad-text" href=${link("letters", { query: { dlq: group.dlq, group: group.group } })}>${count(letters)}</a>` : count(letters)}</td>
    <td class="number">${group.lag_exact ? "" : "≤ "}${count(group.lag)}</td>
    <td class="number">${count(group.pending)}</td>
    <td>${group.oldest_unsettled_ms === null ? html`<span class="muted">–</span>` : duration(group.oldest_unsettled_ms / 1000)}</td>
    <td class=${`number ${group.consumers_alive ? "" : "bad-text"}`}>${count(group.consumers_alive)}</td>
    <td class="number">${rate(group.handled_per_second)}</td>
    <td><${Spark} whole=${group.delivered} part=${group.handled} names=${["delivered", "handled"]} /></td>
    <td class=${`number ${Number(group.failed_per_second) ? "bad-text" : ""}`}>${rate(group.failed_per_second)}</td>
    <td><${Spark} whole=${group.failed} part=${group.dead} names=${["failed", "dead"]} tone="bad" /></td>
  </tr>`;
}

/** @param {number | null} value */
function rate(value) {
  if (value === null) return "–";
  const number = Number(value); // not as exactly as it is stored
  if (number > 0 && number < 0.05) return "< 0.1/s";
  return `${number >= 10 || number === 0 ? Math.round(number) : number.toFixed(1)}/s`;
}
