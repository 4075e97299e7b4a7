/** Preact, its hooks, signals and htm in one place: every view imports them from here. */
import { Fragment, h, render } from "./vendor/preact.js";
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "./vendor/preact-hooks.js";
import { computed, effect, signal } from "./vendor/signals.js";
import htm from "./vendor/htm.js";

/** Markup as a template: `html`<p>${text}</p>``. Values become text, never markup. */
export const html = htm.bind(h);

export { Fragment, computed, effect, render, signal, useEffect, useLayoutEffect, useMemo, useRef, useState };
