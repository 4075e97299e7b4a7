/** The causes of dead letters, the largest first. */
import { REASONS, className, count } from "../format.js";
import { Answer, Time } from "../parts.js";
import { link, ofQueue } from "../route.js";
import { html, useState } from "../ui.js";

const SHOWN = 6;

/** @param {{query: import("../api.js").Query<any>, filter: Record<string, string>}} props */
export function CauseList({ query, filter }) {
  const [isWhole, setWhole] = useState(false);
  return html`<${Answer} query=${query} rows=${3}>
    ${(/** @type {any} */ { items }) => {
      const causes = /** @type {import("../types.js").Cause[]} */ (items);
      if (!causes.length) return null;
      const most = causes[0]?.count ?? 1;
      const shown = isWhole ? causes : causes.filter((one, at) => at < SHOWN || one.fingerprint === filter["fingerprint"]);
      return html`<section class="causes" aria-label="Causes">
        ${shown.map((one) => html`<${CauseRow} key=${one.fingerprint} cause=${one} most=${most} isChosen=${one.fingerprint !== "" && one.fingerprint === filter["fingerprint"]} />`)}
        ${causes.length > shown.length &&
        html`<button type="button" class="link" onClick=${() => setWhole(true)}>${count(causes.length - shown.length)} smaller causes</button>`}
      </section>`;
    }}
  <//>`;
}

/** @param {{cause: import("../types.js").Cause, most: number, isChosen: boolean}} props */
function CauseRow({ cause, most, isChosen }) {
  const to = link("letters", { query: { ...ofQueue(), fingerprint: isChosen ? "" : cause.fingerprint } });
  const bar = { width: `${Math.max(1, (100 * cause.count) / most)}%` };
  const content = html`
    <span class="cause-count">${count(cause.count)}<span class="cause-bar" style=${bar}></span></span>
    <span class="cause-what">
      <span class="cause-title"><strong title=${cause.error_type}>${className(cause.error_type) || REASONS[cause.reason] || cause.reason || "other causes"}</strong>
        ${(cause.handler || cause.group) && html` in <span class="mono">${cause.handler || cause.group}</span>`}</span>
      <span class="under">${[cause.event_type, cause.handler && cause.group, cause.position].filter(Boolean).join(" · ")}</span>
    </span>
    <span class="cause-when">
      <span>last <${Time} at=${cause.last_at} /></span>
      <span class="under">first <${Time} at=${cause.first_at} /></span>
    </span>`;
  if (!cause.fingerprint) return html`<div class="cause">${content}</div>`;
  return html`<a class=${`cause ${isChosen ? "chosen" : ""}`} href=${to} aria-current=${isChosen ? "true" : undefined}
    title=${isChosen ? "Show all letters" : "Show only these letters"}>${content}</a>`;
}
