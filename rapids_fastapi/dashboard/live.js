/** Live updates: which kinds of things have changed, by server-sent events, while the page is seen. */
import { signal } from "./ui.js";

/** @typedef {"letters" | "groups" | "pauses" | "operations"} Kind */

const KINDS = /** @type {Kind[]} */ (["letters", "groups", "pauses", "operations"]);

/** The changes that an answer is about, by the first part of its path below `/rapids/api/`. */
const ABOUT = /** @type {Record<string, Kind[]>} */ ({
  overview: KINDS,
  "dead-letters": ["letters"],
  archive: ["letters"],
  operations: ["operations"],
  streams: ["groups"],
  groups: ["groups", "pauses"],
  events: ["letters", "groups"],
  audit: ["letters", "pauses", "operations"],
});

const LATE = 5_000; // milliseconds within which a stream that has ended is open again
const RETRY = 30_000; // milliseconds after which a refused stream is tried again

/**
 * Whether changes are heard. If not, queries ask more often.
 */
export const isLive = signal(false);

const listeners = /** @type {Set<{kinds: Kind[], run: () => void}>} */ (new Set());
/** @type {EventSource | null} */ let source = null;
/** @type {any} */ let timer;

/**
 * Run something at each change that an answer is about, and when changes are no longer heard. Returns what ends it, or
 * null if the answer is about nothing that changes like that.
 * @param {URL} base
 * @param {string} url
 * @param {() => void} run
 */
export function listen(base, url, run) {
  const kinds = ABOUT[new URL(url).pathname.slice(base.pathname.length).split("/")[0] ?? ""];
  if (!kinds) return null;
  const listener = { kinds, run };
  listeners.add(listener);
  const address = new URL("live", base).href;
  const update = () => (document.hidden ? close() : open(address));
  document.addEventListener("visibilitychange", update);
  update();
  return () => {
    listeners.delete(listener);
    document.removeEventListener("visibilitychange", update);
    setTimeout(() => listeners.size || close()); // the next view may listen at once
  };
}

/** @param {string} address */
function open(address) {
  if (source) return;
  clearTimeout(timer);
  const opened = new EventSource(address);
  source = opened;
  opened.onopen = () => {
    clearTimeout(timer);
    isLive.value = true;
  };
  for (const kind of KINDS)
    opened.addEventListener(kind, () => listeners.forEach((one) => one.kinds.includes(kind) && one.run()));
  opened.addEventListener("problem", lose);
  opened.onerror = () => {
    clearTimeout(timer);
    if (opened.readyState !== EventSource.CLOSED) timer = setTimeout(lose, LATE); // it ends regularly, and reconnects
    else {
      close();
      lose();
      timer = setTimeout(() => listeners.size && !document.hidden && open(address), RETRY);
    }
  };
}

function close() {
  clearTimeout(timer);
  source?.close();
  source = null;
  isLive.value = false;
}

/** From now on the queries ask by themselves, and say so if no answer comes. */
function lose() {
  isLive.value = false;
  listeners.forEach((one) => one.run());
}
