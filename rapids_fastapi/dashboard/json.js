/** JSON without a loss: numbers that JavaScript would round keep their digits. */

/** A number as it was written, which a JavaScript number cannot hold: 9007199254740993, or 1.10. */
export class Exact {
  /** @param {string} source */
  constructor(source) {
    this.source = source;
  }

  /** In calculations, the nearest number. */
  valueOf() {
    return Number(this.source);
  }
}

/**
 * The value of a JSON text.
 * @param {string} text
 * @returns {any}
 */
export function parse(text) {
  /** @type {any} */ const reviver = (
    /** @type {string} */ _,
    /** @type {unknown} */ value,
    /** @type {{source?: string} | undefined} */ context,
  ) =>
    typeof value === "number" && context?.source !== undefined && String(value) !== context.source
      ? new Exact(context.source)
      : value;
  return JSON.parse(text, reviver);
}

/**
 * The JSON text of a value, in which `Exact` numbers have their digits.
 * @param {unknown} value
 * @param {number} [indent]
 * @returns {string}
 */
export function write(value, indent = 0) {
  const raw = /** @type {any} */ (JSON).rawJSON;
  return JSON.stringify(
    value,
    (_, one) => (one instanceof Exact ? (raw ? raw(one.source) : Number(one.source)) : one),
    indent,
  );
}

/**
 * Whether two values are the same JSON.
 * @param {unknown} one
 * @param {unknown} other
 */
export function same(one, other) {
  return write(one) === write(other);
}

/**
 * Whether a value is a JSON object.
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
export function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Exact);
}

/**
 * @typedef {{pointer: string, before: unknown, after: unknown, kind: "add" | "remove" | "replace"}} Difference
 */

/**
 * Where two values differ, with a JSON Pointer (RFC 6901) for each place.
 * @param {unknown} before
 * @param {unknown} after
 * @param {string} [pointer]
 * @returns {Difference[]}
 */
export function differences(before, after, pointer = "") {
  if (same(before, after)) return [];
  if (!isObject(before) || !isObject(after)) return [{ pointer, before, after, kind: "replace" }];
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return names.flatMap((name) => {
    const place = `${pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
    if (!(name in after)) return [{ pointer: place, before: before[name], after: undefined, kind: /** @type {const} */ ("remove") }];
    if (!(name in before)) return [{ pointer: place, before: undefined, after: after[name], kind: /** @type {const} */ ("add") }];
    return differences(before[name], after[name], place);
  });
}

/**
 * The JSON Merge Patch (RFC 7396) that makes `after` of `before`; null if a patch cannot say it, since it would have
 * to set a member to null.
 * @param {Record<string, unknown>} before
 * @param {Record<string, unknown>} after
 * @returns {Record<string, unknown> | null}
 */
export function mergePatch(before, after) {
  /** @type {Record<string, unknown>} */ const patch = {};
  for (const name of Object.keys(before)) if (!(name in after)) patch[name] = null;
  for (const [name, value] of Object.entries(after)) {
    const old = before[name];
    if (name in before && same(old, value)) continue;
    if (hasNull(value)) return null;
    if (isObject(old) && isObject(value)) {
      const inner = mergePatch(old, value);
      if (inner === null) return null;
      patch[name] = inner;
    } else patch[name] = value;
  }
  return patch;
}

/** @param {unknown} value @returns {boolean} */
function hasNull(value) {
  return value === null || (isObject(value) && Object.values(value).some(hasNull));
}
