/** The HTTP API: requests with exact numbers, problems as errors, and what the connection is like. */
import { parse, write } from "./json.js";
import { isLive, listen } from "./live.js";
import { signal, useEffect, useRef, useState } from "./ui.js";

const BASE = new URL("api/", new URL(".", location.href));

const MIN_PAUSE = 2_000; // milliseconds between two looks, however much changes
const LIVE_PAUSE = 30_000; // the same while changes are heard and there are none

/**
 * Who uses the page: undefined until that is known, null if a login is needed.
 * @type {import("./vendor/signals.js").Signal<import("./types.js").Capabilities | null | undefined>}
 */
export const capabilities = signal(/** @type {any} */ (undefined));

/**
 * Since when no answer has come, in milliseconds; 0 while answers come.
 * @type {import("./vendor/signals.js").Signal<number>}
 */
export const staleSince = signal(0);

/** An answer that says what went wrong, as of RFC 9457. */
export class Problem extends Error {
  /**
   * @param {number} status 0 if no answer came
   * @param {Record<string, any>} body
   */
  constructor(status, body) {
    super(body.detail || body.title || `The service answered ${status}.`);
    this.status = status;
    this.body = body;
    /** The last part of its type, such as `letter-state`. */
    this.kind = String(body.type ?? "").replace("urn:rapids:problem:", "");
  }
}

/**
 * The address of a route.
 * @param {string} path below `/rapids/api/`
 * @param {Record<string, unknown>} [query] without what is undefined, null or empty
 */
export function address(path, query = {}) {
  const url = new URL(path, BASE);
  for (const [name, value] of Object.entries(query))
    if (value !== undefined && value !== null && value !== "") url.searchParams.set(name, String(value));
  return url.href;
}

/**
 * Ask the API. Throws `Problem`.
 * @param {string} method
 * @param {string} url what `address` returns
 * @param {{body?: unknown, headers?: Record<string, string>, signal?: AbortSignal}} [options]
 * @returns {Promise<any>}
 */
export async function ask(method, url, { body, headers = {}, signal: abort } = {}) {
  /** @type {Response} */ let answer;
  /** @type {any} */ let found = null;
  try {
    answer = await fetch(url, {
      method,
      signal: abort ?? null,
      credentials: "same-origin",
      cache: "no-store",
      headers: {
        "X-Requested-With": "fetch",
        ...(method === "GET" ? {} : { "Content-Type": "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: write(body) }),
    });
    const text = await answer.text();
    if (text && /json/.test(answer.headers.get("content-type") ?? "")) found = parse(text);
  } catch (error) {
    if (abort?.aborted) throw error;
    staleSince.value ||= Date.now();
    throw new Problem(0, { title: "No answer", detail: "The service does not answer. This page asks again by itself." });
  }
  if (answer.ok) {
    staleSince.value = 0;
    return found;
  }
  if (answer.status >= 500) staleSince.value ||= Date.now();
  if (answer.status === 401 && capabilities.value) capabilities.value = null;
  throw new Problem(answer.status, found ?? { title: answer.statusText });
}

/**
 * @template T
 * @typedef {{data: T | null, error: Problem | null, isLoading: boolean, reload: () => void}} Query
 */

/**
 * The answer of a GET, asked again when something that it is about has changed, or every few seconds where changes are
 * not heard; only while the page is seen, and at once when it is seen again. It keeps the last answer while a later one
 * fails.
 * @param {string | null} url null asks nothing
 * @param {{every?: number}} [options] seconds; 0 asks once
 * @returns {Query<any>}
 */
export function useQuery(url, { every = 0 } = {}) {
  const [state, setState] = useState({ url: "", data: /** @type {any} */ (null), error: /** @type {Problem | null} */ (null) });
  const reload = useRef(() => {});
  useEffect(() => {
    if (url === null) return undefined;
    const abort = new AbortController();
    /** @type {any} */ let timer;
    let isAsking = false;
    let isOutdated = false; // something has changed since it asked
    let lookedAt = 0;
    let isMissing = false; // such a thing does not come back
    const look = async () => {
      if (isAsking) return;
      isAsking = true;
      isOutdated = false;
      lookedAt = Date.now();
      let pause = every * 1000;
      clearTimeout(timer);
      try {
        const data = await ask("GET", url, { signal: abort.signal });
        if (!abort.signal.aborted) setState({ url, data, error: null });
        if (isLive.value && end) pause = Math.max(pause, LIVE_PAUSE);
      } catch (error) {
        if (abort.signal.aborted) return;
        if (!(error instanceof Problem)) throw error;
        isMissing = error.status === 404;
        setState((last) => ({ url, data: last.url === url ? last.data : null, error }));
      } finally {
        isAsking = false;
        if (every && !isMissing && !abort.signal.aborted) timer = setTimeout(whenSeen, isOutdated ? MIN_PAUSE : pause);
      }
    };
    const whenSeen = () => {
      if (!document.hidden) look();
    };
    const hear = () => {
      isOutdated = true;
      if (isAsking || isMissing) return;
      clearTimeout(timer);
      timer = setTimeout(whenSeen, Math.max(0, lookedAt + MIN_PAUSE - Date.now()));
    };
    reload.current = look;
    look();
    const end = every ? listen(BASE, url, hear) : null;
    const events = /** @type {const} */ (["focus", "online", "pageshow"]);
    if (every) {
      events.forEach((name) => addEventListener(name, whenSeen));
      document.addEventListener("visibilitychange", whenSeen);
    }
    return () => {
      abort.abort();
      end?.();
      clearTimeout(timer);
      events.forEach((name) => removeEventListener(name, whenSeen));
      document.removeEventListener("visibilitychange", whenSeen);
    };
  }, [url, every]);
  const isThis = state.url === url;
  return {
    data: isThis ? state.data : null,
    error: isThis ? state.error : null,
    isLoading: url !== null && !(isThis && (state.data || state.error)),
    reload: () => reload.current(),
  };
}

/** Learn who uses the page. */
export async function learnUser() {
  try {
    capabilities.value = await ask("GET", address("capabilities"));
  } catch (error) {
    if (!(error instanceof Problem) || error.status !== 401) throw error;
    capabilities.value = null;
  }
}

/**
 * Whether the user has a permission.
 * @param {string} permission
 */
export function may(permission) {
  return capabilities.value?.user.permissions.includes(permission) ?? false;
}
