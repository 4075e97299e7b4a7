/** The page: who uses it, where they are, and the view for that place. */
import { address, ask, capabilities, learnUser, may, useQuery } from "./api.js";
import { compact } from "./format.js";
import { isHelpOpen, known, useKeys } from "./keys.js";
import { Dialog, Failure, Liveness, Notes, attempt } from "./parts.js";
import { go, link, ofQueue, place, queue, search } from "./route.js";
import { html, render, useEffect, useState } from "./ui.js";
import { ArchiveView } from "./views/archive.js";
import { AuditView } from "./views/audit.js";
import { CatalogView } from "./views/catalog.js";
import { EntriesView, EntryView } from "./views/entries.js";
import { GroupsView } from "./views/groups.js";
import { LetterView } from "./views/letter.js";
import { LettersView } from "./views/letters.js";
import { LoginView, useLink } from "./views/login.js";
import { OperationView } from "./views/operation.js";
import { OperationsView } from "./views/operations.js";
import { OverviewView } from "./views/overview.js";
import { TraceView } from "./views/trace.js";

const VIEWS = /** @type {Record<string, {title: string, key?: string, view: any, one?: any, isWithin?: string}>} */ ({
  overview: { title: "Overview", key: "o", view: OverviewView },
  letters: { title: "Dead letters", key: "l", view: LettersView, one: LetterView },
  archive: { title: "Archive", view: ArchiveView, isWithin: "letters" },
  operations: { title: "Operations", key: "p", view: OperationsView, one: OperationView },
  groups: { title: "Groups", key: "g", view: GroupsView },
  entries: { title: "Entries", view: EntriesView, one: EntryView, isWithin: "groups" },
  trace: { title: "Trace", key: "t", view: TraceView },
  catalog: { title: "Catalog", key: "c", view: CatalogView },
  audit: { title: "Audit", key: "a", view: AuditView },
});

/** The views that have an entry of their own. */
function inNav() {
  return Object.entries(VIEWS).filter(([, { isWithin }]) => !isWithin);
}

function App() {
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  useEffect(() => {
    const enter = () => learnUser().then(useLink).catch(setError);
    const enterAgain = () => location.hash.startsWith("#login=") && enter();
    enter();
    addEventListener("hashchange", enterAgain);
    return () => removeEventListener("hashchange", enterAgain);
  }, []);
  const user = capabilities.value;
  if (user === null) return html`<${LoginView} />`;
  if (user === undefined) {
    if (!error) return null;
    const retry = () => (setError(null), learnUser().catch(setError));
    return html`<main class="alone"><${Failure} error=${error} retry=${retry} /></main>`;
  }
  return html`<${Shell} />`;
}

function Shell() {
  const { view, id } = place.value;
  const found = VIEWS[view];
  useKeys({
    "?": { does: "Show the keys", run: () => (isHelpOpen.value = true) },
    ...Object.fromEntries(
      inNav().map(([name, { title, key }]) => [`${key}`, { does: title, run: () => go(link(name, { query: ofQueue() })) }]),
    ),
  });
  useEffect(() => {
    document.title = `${found?.title ?? "Not found"} · Rapids`;
    document.getElementById("main")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [view, id]);
  const shown = id && found?.one ? found.one : found?.view;
  return html`<a class="skip" href="#main" onClick=${skip}>Skip to the content</a>
    <${Nav} current=${view} />
    <main id="main" tabindex="-1">
      ${shown && may("read") ? html`<${shown} key=${`${view}/${id}`} />` : html`<${Missing} isKnown=${!!found} />`}
    </main>
    <${Notes} />
    ${isHelpOpen.value && html`<${Help} />`}`;
}

/** @param {Event} event */
function skip(event) {
  event.preventDefault();
  document.getElementById("main")?.focus();
}

/** @param {{isKnown: boolean}} props */
function Missing({ isKnown }) {
  const why = isKnown
    ? "Your user lacks the permission “read”, so this page cannot show anything."
    : "There is no such page.";
  return html`<div class="empty"><p class="empty-title">${why}</p></div>`;
}

/** @param {{current: string}} props */
function Nav({ current }) {
  const user = /** @type {import("./types.js").Capabilities} */ (capabilities.value);
  const queues = user.dead_letter_queues.map((one) => one.name);
  const stats = useQuery(queues.length && may("read") ? address("dead-letters/stats", { dlq: queue() }) : null, { every: 10 });
  const hasLetters = stats.data?.length > 0; // its number moves the others
  useEffect(() => document.querySelector(".nav nav [aria-current]")?.scrollIntoView({ inline: "center", block: "nearest" }), [current, hasLetters]);
  const leave = async () => {
    await attempt(async () => {
      await ask("DELETE", address("session"));
      capabilities.value = null; // not if it failed: then the session goes on
    });
  };
  return html`<header class="nav">
    <a class="brand" href="#/">Rapids</a>
    <nav aria-label="Pages">
      ${inNav().map(
        ([name, { title }]) => html`<a
          key=${name}
          href=${link(name, { query: ofQueue() })}
          aria-current=${name === (VIEWS[current]?.isWithin ?? current) ? "page" : undefined}
        >${title}${name === "letters" && hasLetters && html`<span class="nav-count">${compact(stats.data.length)}</span>`}</a>`,
      )}
    </nav>
    <div class="nav-end">
      ${queues.length > 1 &&
      html`<label class="nav-queue"><span class="label">Queue</span>
        <select value=${queue()} onChange=${(/** @type {any} */ event) => search({ dlq: event.target.value })}>
          ${queues.map((name) => html`<option key=${name} value=${name}>${name}</option>`)}
        </select></label>`}
      <${Liveness} />
      <button type="button" class="quiet" aria-label="Keys" title="Keys (?)" onClick=${() => (isHelpOpen.value = true)}>?</button>
      <span class="nav-user" title=${`Permissions: ${user.user.permissions.join(", ") || "none"}`}>${user.user.name}</span>
      <button type="button" class="quiet" onClick=${leave}>Log out</button>
    </div>
  </header>`;
}

function Help() {
  const keys = Object.assign({}, ...known.value);
  return html`<${Dialog} title="Keys" onClose=${() => (isHelpOpen.value = false)}>
    <dl class="keys">
      ${Object.entries(keys).map(([key, { does }]) => html`<div key=${key}><dt><kbd>${key}</kbd></dt><dd>${does}</dd></div>`)}
    </dl>
  <//>`;
}

const root = /** @type {HTMLElement} */ (document.getElementById("app"));
root.textContent = "";
render(html`<${App} />`, root);
