/** Small charts. */
import { exactly } from "./format.js";
import { html, useEffect, useRef } from "./ui.js";
import uPlot from "./vendor/uplot.js";

const WIDTH = 120;
const HEIGHT = 24;

/**
 * The last hour as a line without axes. Its largest number is in words beside it, for those who cannot see it.
 * @param {{values: (number | null)[] | null, label: string, tone?: string}} props
 */
export function Spark({ values, label, tone = "" }) {
  if (!values?.some((one) => one !== null)) return html`<span class="muted">–</span>`;
  const most = Math.max(...values.map((one) => one ?? 0), 1);
  const step = WIDTH / Math.max(1, values.length);
  const bars = values.map((one, at) => {
    const height = one ? Math.max(1.5, ((HEIGHT - 2) * one) / most) : one === null ? 0 : 0.75;
    return html`<rect key=${at} x=${(at * step).toFixed(2)} y=${(HEIGHT - height).toFixed(2)} width=${Math.max(0.5, step - 0.5).toFixed(2)} height=${height.toFixed(2)} />`;
  });
  return html`<svg class=${`spark ${tone}`} viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} role="img" aria-label=${`${label}: at most ${most} a minute`}><title>${label}: at most ${most} a minute</title>${bars}</svg>`;
}

/**
 * A chart over time.
 * @param {{times: number[], lines: {name: string, values: (number | null)[], tone: string}[]}} props `times` in seconds
 */
export function Chart({ times, lines }) {
  const ref = useRef(/** @type {HTMLDivElement | null} */ (null));
  useEffect(() => {
    const place = ref.current;
    if (!place) return undefined;
    const colour = (/** @type {string} */ name) => getComputedStyle(place).getPropertyValue(name).trim();
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const chart = new uPlot(
      {
        width: place.clientWidth,
        height: 160,
        cursor: { y: false, drag: { x: false, y: false } },
        legend: { live: true },
        axes: [{ ...axis }, { ...axis, size: 44 }],
        series: [
          { value: (/** @type {unknown} */ _, /** @type {number | null} */ at) => (at === null ? "" : exactly(new Date(at * 1000).toISOString())) },
          ...lines.map(({ name, tone }) => ({ label: name, stroke: colour(tone), width: 1.5, points: { show: false } })),
        ],
      },
      [times, ...lines.map((one) => one.values)],
      place,
    );
    const watch = new ResizeObserver(() => chart.setSize({ width: place.clientWidth, height: 160 }));
    watch.observe(place);
    return () => {
      watch.disconnect();
      chart.destroy();
    };
  }, [JSON.stringify([times, lines])]);
  return html`<div class="chart" ref=${ref}></div>`;
}
