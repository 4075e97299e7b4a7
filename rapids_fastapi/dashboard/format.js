/** Numbers, times and names as texts. */
import { Exact } from "./json.js";
import { signal } from "./ui.js";

/** The time now, in milliseconds, for all relative times on the page. It moves every five seconds. */
export const now = signal(Date.now());
setInterval(() => {
  if (!document.hidden) now.value = Date.now();
}, 5000);

const UNITS = /** @type {const} */ ([
  [86_400, "d"],
  [3600, "h"],
  [60, "min"],
  [1, "s"],
]);

/**
 * A length of time in its largest unit: 3 d, 2 h, 45 s, 20 ms.
 * @param {number} seconds
 */
export function duration(seconds) {
  if (seconds > 0 && seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  for (const [size, unit] of UNITS) if (seconds >= size * (size === 1 ? 1 : 1.5)) return `${Math.round(seconds / size)} ${unit}`;
  return `${Math.round(seconds)} s`;
}

/**
 * How long ago a time is.
 * @param {string} at ISO 8601
 */
export function ago(at) {
  const seconds = (now.value - Date.parse(at)) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < -5) return `in ${duration(-seconds)}`;
  return seconds < 5 ? "just now" : `${duration(seconds)} ago`;
}

/**
 * A time in full, in the time zone of the browser.
 * @param {string} at ISO 8601
 */
export function exactly(at) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return at;
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const minutes = -date.getTimezoneOffset();
  const zone = minutes === 0 ? "UTC" : `UTC${minutes < 0 ? "−" : "+"}${two(Math.floor(Math.abs(minutes) / 60))}:${two(Math.abs(minutes) % 60)}`;
  return `${day} ${clock(at)} ${zone}`;
}

/**
 * The time of the day, with milliseconds.
 * @param {string} at ISO 8601
 */
export function clock(at) {
  const date = new Date(at);
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

/**
 * A number with separators: 1,204.
 * @param {number | Exact | null | undefined} value
 */
export function count(value) {
  if (value === null || value === undefined) return "–";
  return Number(value).toLocaleString("en");
}

/**
 * A number for a narrow place: 1.2K.
 * @param {number} value
 */
export function compact(value) {
  return Intl.NumberFormat("en", { notation: "compact" }).format(value);
}

/**
 * A number and its noun: 1 letter, 1,204 letters.
 * @param {number} value
 * @param {string} noun
 * @param {string} [plural]
 */
export function counted(value, noun, plural = `${noun}s`) {
  return `${count(value)} ${value === 1 ? noun : plural}`;
}

/**
 * A size in bytes.
 * @param {number} bytes
 */
export function size(bytes) {
  if (bytes < 1024) return `${bytes} B`;
  return bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/**
 * The name of a class without its module.
 * @param {string} path
 */
export function className(path) {
  return path.slice(path.lastIndexOf(".") + 1);
}

/** Reasons of dead letters in words. */
export const REASONS = /** @type {Record<string, string>} */ ({
  max_deliveries_exceeded: "all attempts failed",
  deserialization_error: "could not be read as an event",
  non_retryable: "not worth a retry",
});
