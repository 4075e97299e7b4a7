/** The causes of dead letters, the largest first. */
import { REASONS, className, count, duration, exactly, now } from "../format.js";
import { Answer, Time } from "../parts.js";
import { link, ofQueue } from "../route.js";
import { html, useState } from "../ui.js";

const SHOWN = 6;

/** Lengths of the time axis of all causes, in seconds: the shortest that has the oldest failure. */
const AXES = [3600, 6 * 3600, 86_400, 7 * 86_400, 30 * 86_400];

/** @param {{query: import("../api.js").Query<any>, filter: Record<string, string>}} props */
export function CauseList({ query, filter }) {
  const [isWhole, setWhole] = useState(false);
  return html`<${Answer} query=${query} rows=${3}>
    ${(/** @type {any} */ { items }) => {
      const causes = /** @type {import("../types.js").Cause[]} */ (items);
      if (!causes.length) return null;
      const most = causes[0]?.count ?? 1;
      const shown = isWhole ? causes : causes.filter((one, at) => at < SHOWN || one.fingerprint === filter["fingerprint"]);
      const axis = axisOf(shown);
      return html`<section class="causes" aria-label="Causes">
        <div class="cause cause-head" aria-hidden="true"><span>Letters</span><span>Cause</span><span>First to last, in ${duration(axis)}</span><span>Seen</span></div>
        ${shown.map((one) => html`<${CauseRow} key=${one.fingerprint} cause=${one} most=${most} axis=${axis} isChosen=${one.fingerprint !== "" && one.fingerprint === filter["fingerprint"]} />`)}
        ${causes.length > shown.length &&
        html`<button type="button" class="link" onClick=${() => setWhole(true)}>${count(causes.length - shown.length)} smaller causes</button>`}
      </section>`;
    }}
  <//>`;
}

/** @param {import("../types.js").Cause[]} causes */
function axisOf(causes) {
  const oldest = Math.min(...causes.map((one) => (one.first_at ? Date.parse(one.first_at) : now.value)));
  return AXES.find((one) => now.value - oldest <= one * 1000) ?? Number(AXES.at(-1));
}

/** From the first to the last failure, on an axis that ends now. @param {{cause: import("../types.js").Cause, axis: number}} props */
function Lifetime({ cause, axis }) {
  if (!cause.first_at || !cause.last_at) return html`<span></span>`;
  const share = (/** @type {string} */ at) => Math.min(100, Math.max(0, 100 - (now.value - Date.parse(at)) / (10 * axis)));
  const [from, to] = [Math.min(98, share(cause.first_at)), share(cause.last_at)];
  return html`<span class="lifetime" title=${`From ${exactly(cause.first_at)} to ${exactly(cause.last_at)}`}><span style=${{ left: `${from}%`, width: `${Math.max(2, to - from)}%` }}></span></span>`;
}

/** @param {{cause: import("../types.js").Cause, most: number, axis: number, isChosen: boolean}} props */
function CauseRow({ cause, most, axis, isChosen }) {
  const to = link("letters", { query: { ...ofQueue(), fingerprint: isChosen ? "" : cause.fingerprint } });
  const bar = { width: `${Math.max(1, (100 * cause.count) / most)}%` };
  const content = html`
    <span class="cause-count">${count(cause.count)}<span class="cause-bar" style=${bar}></span></span>
    <span class="cause-what">
      <span class="cause-title"><strong title=${cause.error_type}>${className(cause.error_type) || REASONS[cause.reason] || cause.reason || "other causes"}</strong>
        ${(cause.handler || cause.group) && html` in <span class="mono">${cause.handler || cause.group}</span>`}</span>
      <span class="under">${[cause.event_type, cause.handler && cause.group, cause.position].filter(Boolean).join(" · ")}</span>
    </span>
    <${Lifetime} cause=${cause} axis=${axis} />
    <span class="cause-when">
      <span>last <${Time} at=${cause.last_at} /></span>
      <span class="under">first <${Time} at=${cause.first_at} /></span>
    </span>`;
  if (!cause.fingerprint) return html`<div class="cause">${content}</div>`;
  return html`<a class=${`cause ${isChosen ? "chosen" : ""}`} href=${to} aria-current=${isChosen ? "true" : undefined}
    title=${isChosen ? "Show all letters" : "Show only these letters"}>${content}</a>`;
}
