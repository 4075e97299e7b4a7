/** What is wrong, in words, with the next step: the findings of the overview. */
import { count } from "../format.js";
import { Time } from "../parts.js";
import { link } from "../route.js";
import { html, useState } from "../ui.js";

/** How many findings are shown at first: the worst ones stand first, and the rest of the page stays in sight. */
const SHOWN = 4;

/** Kinds of findings as the state of a group. */
const KINDS = /** @type {Record<string, string>} */ ({
  failing: "failing",
  no_living_consumer: "nobody alive",
  stuck: "stuck",
  retrying: "retrying",
  falling_behind: "behind",
  parked: "parked",
  letters: "letters left",
});

/** Text with names between backquotes. @param {{text: string}} props */
export function Words({ text }) {
  return text.split(/`([^`]*)`/).map((part, at) => (at % 2 ? html`<span class="mono" key=${at}>${part}</span>` : part));
}

/** @param {{findings: any[], well: string}} props */
export function Findings({ findings, well }) {
  const [isWhole, setWhole] = useState(false);
  if (!findings.length) return html`<section class="finding good"><p><strong>All is well.</strong> ${well}</p></section>`;
  return html`<section class="findings" aria-label="What is wrong">
    ${(isWhole ? findings : findings.slice(0, SHOWN)).map((one, at) => {
      const to = stepOf(one);
      return html`<article key=${at} class=${`finding ${one.severity === "danger" ? "bad" : "warn"}`}>
        <p class="finding-text"><${Words} text=${one.message} /></p>
        <p class="finding-next">${one.advice && html`<span>Next: <${Words} text=${one.advice} /></span>`}
          ${one.last_at && html`<span class="muted">last <${Time} at=${one.last_at} /></span>`}</p>
        ${to && to !== location.hash && html`<a class="button" href=${to}>Show</a>`}
      </article>`;
    })}
    ${!isWhole && findings.length > SHOWN && html`<button type="button" class="link" onClick=${() => setWhole(true)}>${count(findings.length - SHOWN)} more findings</button>`}
  </section>`;
}

/** Where the next step is. @param {any} finding */
function stepOf({ dlq, fingerprint, stream: name, group, handler }) {
  if (dlq) return link("letters", { query: { dlq, fingerprint, ...(fingerprint ? {} : { handler }) } });
  return name ? link("groups", { query: { stream: name, group } }) : "";
}

/** What is wrong with a group, the worst first. @param {any} overview @param {string} stream @param {string} group @returns {any[]} */
export function findingsOf(overview, stream, group) {
  return (overview?.findings ?? []).filter((/** @type {any} */ one) => one.group === group && (one.stream ?? stream) === stream);
}

/** What a group is like, in a word, and that it is paused. @param {{group: any, findings: any[]}} props */
export function GroupState({ group, findings }) {
  const worst = findings.find((one) => one.kind !== "paused");
  const paused = group.pause && html`<span class="state warn">paused</span>`;
  if (worst) return html`<span class=${`state ${worst.severity === "danger" ? "bad" : "warn"}`}>${KINDS[worst.kind] ?? worst.kind}</span> ${paused}`;
  if (paused) return paused;
  if (!group.consumers_alive) return html`<span class="state bad">nobody alive</span>`;
  return group.lag > 0 || group.pending > 0 ? html`<span class="state info">working</span>` : html`<span class="state good">up to date</span>`;
}
