/** Keys: each view says which ones it has, and `?` shows them. */
import { signal, useLayoutEffect, useRef } from "./ui.js";

/**
 * @typedef {Record<string, {does: string, run: () => void}>} Keys
 */

/** @type {import("./vendor/signals.js").Signal<Keys[]>} */
export const known = signal([]);

/** What `?` shows is open. */
export const isHelpOpen = signal(false);

/**
 * The keys of a view, while it is shown. Later ones win.
 * @param {Keys} keys
 */
export function useKeys(keys) {
  const latest = useRef(keys);
  latest.current = keys;
  // In step with the page: an effect comes after it is shown, and a key in between would be lost, or that of the last view.
  useLayoutEffect(() => {
    // A stable object whose functions are those of the last render.
    const mine = /** @type {Keys} */ (
      Object.fromEntries(
        Object.entries(keys).map(([key, { does }]) => [key, { does, run: () => latest.current[key]?.run() }]),
      )
    );
    known.value = [...known.value, mine];
    return () => {
      known.value = known.value.filter((one) => one !== mine);
    };
  }, [Object.keys(keys).join()]);
}

addEventListener("keydown", (event) => {
  const at = /** @type {HTMLElement} */ (event.target);
  const isTyping = at.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(at.tagName);
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && /^(A|BUTTON|SUMMARY)$/.test(at.tagName)) return;
  const found = known.value.findLast((keys) => event.key in keys)?.[event.key];
  if (found) {
    event.preventDefault();
    found.run();
  }
});
