/** Small charts of the last hour. */
import { clock, compact, count } from "./format.js";
import { html, useEffect, useRef } from "./ui.js";
import uPlot from "./vendor/uplot.js";

const WIDTH = 120;
const HEIGHT = 24;
const TALL = 120;

/** @typedef {(number | null)[]} Values one number for each step, oldest first; null where nothing is known */

/**
 * The last hour in a row of a table: a part of a whole, such as what was handled of what came in. The numbers are in
 * words beside it, for those who cannot see it.
 * @param {{whole: Values, part: Values, names: [string, string], tone?: string}} props
 */
export function Spark({ whole, part, names, tone = "" }) {
  if (![...whole, ...part].some((one) => one !== null)) return html`<span class="muted">–</span>`;
  const most = Math.max(...whole.map(Number), ...part.map(Number), 1);
  const label = names.map((name, at) => `${count(sum(at ? part : whole))} ${name}`).join(", ");
  return html`<svg class=${`spark ${tone}`} viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`In the last hour: ${label}`}>
    <title>${label}</title><path class="whole" d=${bars(whole, most)} /><path class="part" d=${bars(part, most)} />
  </svg>`;
}

/** @param {Values} values */
export function sum(values) {
  return values.reduce((/** @type {number} */ all, one) => all + (one ?? 0), 0);
}

/** One path for all bars: a table of fifty groups is drawn every few seconds. @param {Values} values @param {number} most */
function bars(values, most) {
  const step = WIDTH / values.length;
  return values
    .map((one, at) => {
      if (one === null) return "";
      const height = (one ? Math.max(1.5, ((HEIGHT - 2) * one) / most) : 0.75).toFixed(2);
      return `M${at * step} ${HEIGHT}v-${height}h${step}v${height}z`;
    })
    .join("");
}

/**
 * Lines over time, with the numbers at the pointer.
 * @param {{label: string, since: string, step: number, lines: {name: string, values: Values, tone: string}[]}} props
 *   `step` in seconds, `tone` the name of a colour in `style.css`
 */
export function Chart({ label, since, step, lines }) {
  const ref = useRef(/** @type {HTMLDivElement | null} */ (null));
  const chart = useRef(/** @type {uPlot | null} */ (null));
  const begin = Date.parse(since) / 1000;
  const data = [(lines[0]?.values ?? []).map((_, at) => begin + at * step), ...lines.map((one) => one.values)];
  const latest = useRef(data);
  latest.current = data;
  const names = lines.map((one) => one.name).join();
  useEffect(() => {
    const place = ref.current;
    if (!place) return undefined;
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const draw = () => {
      chart.current?.destroy();
      chart.current = new uPlot(options(place, lines), latest.current, place);
    };
    const watch = new ResizeObserver(() => chart.current?.setSize({ width: place.clientWidth, height: TALL }));
    draw();
    watch.observe(place);
    scheme.addEventListener("change", draw);
    return () => {
      watch.disconnect();
      scheme.removeEventListener("change", draw);
      chart.current?.destroy();
      chart.current = null;
    };
  }, [names]);
  useEffect(() => chart.current?.setData(data), [JSON.stringify(data)]);
  const words = lines.map((one) => `${count(sum(one.values))} ${one.name}`).join(", ");
  return html`<figure class="chart"><figcaption class="label">${label}</figcaption>
    <div ref=${ref} role="img" aria-label=${`${label}: in the last hour ${words}`}></div></figure>`;
}

/** @param {HTMLElement} place @param {{name: string, tone: string}[]} lines */
function options(place, lines) {
  const style = getComputedStyle(place);
  const colour = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--muted"), font: "11px system-ui", ticks: { show: false } };
  const at = (/** @type {number} */ seconds) => clock(new Date(seconds * 1000).toISOString()).slice(0, 5);
  const number = (/** @type {unknown} */ _, /** @type {number | null} */ value) => (value === null ? "" : count(value));
  return {
    width: place.clientWidth,
    height: TALL,
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 } },
    axes: [
      { ...axis, size: 24, gap: 6, grid: { show: false }, values: (/** @type {unknown} */ _, /** @type {number[]} */ times) => times.map(at) },
      { ...axis, size: 44, gap: 4, grid: { stroke: colour("--line"), width: 1 }, space: 36, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6],
        values: (/** @type {unknown} */ _, /** @type {number[]} */ values) => values.map(compact) },
    ],
    scales: { y: { range: (/** @type {unknown} */ _, /** @type {number} */ __, /** @type {number} */ most) => [0, Math.max(4, most * 1.1)] } },
    series: [
      { label: " ", value: (/** @type {unknown} */ _, /** @type {number | null} */ time) => (time === null ? "" : at(time)) },
      ...lines.map(({ name, tone }) => ({ label: name, stroke: colour(tone), width: 1.5, value: number })),
    ],
  };
}
