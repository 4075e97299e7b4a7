/** The place in the page: `#/letters?handler=ship`. It is in the fragment, so that it works below any path. */
import { capabilities } from "./api.js";
import { signal } from "./ui.js";

/**
 * @typedef {{view: string, id: string, query: Record<string, string>}} Place
 */

/** @returns {Place} */
function read() {
  const [path = "", query = ""] = location.hash.replace(/^#(login=.*|\/)?/, "").split(/\?(.*)/s);
  const [view = "", id = ""] = path.split("/").map(decoded);
  return { view: view || "overview", id, query: Object.fromEntries(new URLSearchParams(query)) };
}

/** @param {string} part */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Where the user is. */
export const place = signal(read());
addEventListener("hashchange", () => {
  place.value = read();
});

/**
 * The link to a place.
 * @param {string} view
 * @param {{id?: string, query?: Record<string, unknown>}} [to]
 */
export function link(view, { id = "", query = {} } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const params = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ""}${params ? `?${params}` : ""}`;
}

/**
 * Go to a place.
 * @param {string} to what `link` returns
 */
export function go(to) {
  location.hash = to;
}

/**
 * Change the query of this place.
 * @param {Record<string, unknown>} query
 */
export function search(query) {
  go(link(place.value.view, { id: place.value.id, query }));
}

/** The dead-letter queue that the page shows: the one in the address, or the first. */
export function queue() {
  const names = capabilities.value?.dead_letter_queues.map((one) => one.name) ?? [];
  const asked = place.value.query["dlq"];
  return asked ?? names[0] ?? "";
}

/** The stream that the page shows: the one in the address, or the first. */
export function stream() {
  return place.value.query["stream"] ?? capabilities.value?.streams[0] ?? "";
}

/** `dlq` for a link, where there are several queues. */
export function ofQueue() {
  const asked = place.value.query["dlq"];
  return asked === undefined ? {} : { dlq: asked };
}
