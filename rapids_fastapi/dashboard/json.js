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
  const inBefore = membersOf(before);
  const inAfter = membersOf(after);
  if (!inBefore || !inAfter || Array.isArray(before) !== Array.isArray(after)) return [{ pointer, before, after, kind: "replace" }];
  return [...new Set([...inBefore.keys(), ...inAfter.keys()])].flatMap((name) => {
    const place = `${pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
    const [old, changed] = [inBefore.get(name), inAfter.get(name)];
    if (!inAfter.has(name)) return [{ pointer: place, before: old, after: undefined, kind: /** @type {const} */ ("remove") }];
    if (!inBefore.has(name)) return [{ pointer: place, before: undefined, after: changed, kind: /** @type {const} */ ("add") }];
    return differences(old, changed, place);
  });
}

/** The members of an object, or the items of an array, by name. @param {unknown} value @returns {Map<string, unknown> | null} */
function membersOf(value) {
  if (Array.isArray(value)) return new Map(value.map((one, at) => [String(at), one]));
  return isObject(value) ? new Map(Object.entries(value)) : null;
}

/**
 * In which line of a JSON text each value begins, or its name, by its JSON Pointer.
 * @param {string} text which `parse` takes
 * @returns {Map<string, number>} lines begin at 1
 */
export function linesOf(text) {
  const found = new Map([["", 1]]);
  /** @type {{pointer: string, at: number}[]} */ const around = []; // `at`: which item of an array, -1 in an object
  let line = 1;
  let pointer = "";
  for (const [token] of text.matchAll(/\n|"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\],]|[^\s{}[\],"]+/g)) {
    const inside = around.at(-1);
    if (token === "\n") line += 1;
    else if (token === "}" || token === "]") pointer = around.pop()?.pointer ?? "";
    else if (token === ",") inside && inside.at >= 0 && (inside.at += 1);
    else if (inside && inside.at < 0 && token.endsWith(":")) {
      const name = String(JSON.parse(token.slice(0, -1)));
      pointer = `${inside.pointer}/${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
      found.set(pointer, line);
      line += token.split("\n").length - 1;
    } else {
      if (inside && inside.at >= 0) found.set((pointer = `${inside.pointer}/${inside.at}`), line);
      if (token === "{" || token === "[") around.push({ pointer, at: token === "[" ? 0 : -1 });
    }
  }
  return found;
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
