/** The dead letters: their causes, then the letters that a filter matches. */
import { address, may, useQuery } from "../api.js";
import { REASONS, className, count, counted } from "../format.js";
import { useKeys } from "../keys.js";
import { Action, Answer, Empty, ErrorType, State, Time } from "../parts.js";
import { go, link, ofQueue, place, queue, search } from "../route.js";
import { html, useEffect, useState } from "../ui.js";
import { CauseList } from "./causes.js";
import { FilterBar, filterOf } from "./filter_bar.js";
import { StartDialog } from "./start_operation.js";

const PAGE = 50;

/** What letters are filtered by, here and in the archive. @type {import("./filter_bar.js").Fields} */
export const FIELDS = {
  names: {
    handler: "handler", group: "group", event: "event_type", event_type: "event_type", error: "error_type",
    error_type: "error_type", reason: "reason", cause: "fingerprint", fingerprint: "fingerprint", since: "since", until: "until",
  },
  typed: ["handler", "event", "error", "group", "reason", "since", "until"],
  words: "q",
};

/** The ids of the list that was shown last, for the way from one letter to the next. @type {string[]} */
export let listed = [];

/** The way back to that list, with its filter. */
export let list = "#/letters";

export function LettersView() {
  const { query } = place.value;
  const filter = filterOf(query, FIELDS);
  const [cursors, setCursors] = useState(/** @type {string[]} */ ([]));
  const [chosen, setChosen] = useState(/** @type {Set<string>} */ (new Set()));
  const [wanted, setWanted] = useState(/** @type {any} */ (null));
  const isFirst = cursors.length === 0;
  const letters = useQuery(
    address("dead-letters", { dlq: queue(), ...filter, cursor: cursors.at(-1), limit: PAGE }),
    { every: isFirst && !chosen.size ? 5 : 0 },
  );
  const causes = useQuery(address("dead-letters/causes", { dlq: queue(), limit: 200 }), { every: 5 });
  const filterKey = JSON.stringify([filter, queue()]);
  useEffect(() => {
    setCursors([]);
    setChosen(new Set());
  }, [filterKey]);
  list = link("letters", { query });
  if (letters.data) listed = letters.data.items.map((/** @type {any} */ one) => one.id);

  const items = /** @type {import("../types.js").LetterSummary[]} */ (letters.data?.items ?? []);
  const known = /** @type {import("../types.js").Cause[]} */ (causes.data?.items ?? []);
  const total = letters.data?.total ?? 0;
  const isFiltered = Object.keys(filter).length > 0;
  const all = { count: total, exact: letters.data?.total_exact ?? false, selector: selectorOf(filter) };
  const some = { count: chosen.size, exact: true, selector: { ids: [...chosen] } };
  const target = chosen.size ? some : all;
  /** @param {"replay" | "discard"} kind */
  const start = (kind) => target.count && target.selector && setWanted({ kind, ...target });
  const cursor = useCursor(items, chosen, setChosen);
  useKeys({
    "/": { does: "Filter", run: () => document.getElementById("filter")?.focus() },
    j: { does: "Next letter", run: () => cursor.move(1) },
    k: { does: "Previous letter", run: () => cursor.move(-1) },
    Enter: { does: "Open the letter", run: () => cursor.open() },
    x: { does: "Select the letter", run: () => cursor.toggle() },
    r: { does: "Replay what is selected", run: () => may("replay") && start("replay") },
    d: { does: "Discard what is selected", run: () => may("discard") && start("discard") },
  });

  return html`<div class="page-head">
      <h1>Dead letters</h1>
      <${LetterTabs} current="letters" />
      ${causes.data && html`<p class="summary">${summary(causes.data)}</p>`}
    </div>
    <${CauseList} query=${causes} filter=${filter} />
    <section aria-label="Letters">
      <${FilterBar} filter=${filter} fields=${FIELDS} label="Filter letters" hint="Filter: handler:, event:, error:, since:2h, or any text  ( / )"
        values=${(/** @type {string} */ field) => known.map((one) => String(/** @type {any} */ (one)[field] ?? ""))}
        describe=${(/** @type {string} */ field, /** @type {string} */ value) => (field === "fingerprint" ? causeName(value, known) : undefined)}
        onChange=${(/** @type {any} */ next) => search({ ...ofQueue(), ...next })} />
      <div class="table-head">
        <span class="muted">${isFiltered ? "Matching" : "All"} letters, newest first${letters.data ? `: ${all.exact ? "" : "at most "}${count(total)}` : ""}</span>
        <div class="actions">
          ${chosen.size > 0 && html`<button type="button" class="link" onClick=${() => setChosen(new Set())}>Select none</button>`}
          <${Action} has=${may("discard")} permission="discard" disabled=${!target.count || !target.selector} why=${target.selector ? "" : WHY_NOT} onClick=${() => start("discard")} keys="d">
            Discard ${label(target, chosen.size)}
          <//>
          <${Action} class=${chosen.size || isFiltered ? "primary" : ""} has=${may("replay")} permission="replay" disabled=${!target.count || !target.selector} why=${target.selector ? "" : WHY_NOT} onClick=${() => start("replay")} keys="r">
            Replay ${label(target, chosen.size)}
          <//>
        </div>
      </div>
      <${Answer} query=${letters} rows=${10}>
        ${() =>
          items.length
            ? html`<${LetterTable} items=${items} chosen=${chosen} setChosen=${setChosen} at=${cursor.at} />`
            : html`<${Nothing} isFiltered=${isFiltered} hasMore=${!!letters.data.next_cursor} />`}
      <//>
      <div class="pager">
        <button type="button" disabled=${isFirst} onClick=${() => setCursors(cursors.slice(0, -1))}>← Newer</button>
        <span class="muted">${!isFirst && `Page ${cursors.length + 1}`}</span>
        <button
          type="button"
          disabled=${!letters.data?.next_cursor}
          onClick=${() => setCursors([...cursors, letters.data.next_cursor])}
        >Older →</button>
      </div>
    </section>
    ${wanted && html`<${StartDialog} ...${wanted} onClose=${() => setWanted(null)} />`}`;
}

/** @param {string} fingerprint @param {import("../types.js").Cause[]} causes */
function causeName(fingerprint, causes) {
  const cause = causes.find((one) => one.fingerprint === fingerprint);
  return cause && [className(cause.error_type) || cause.reason, cause.handler && `in ${cause.handler}`].filter(Boolean).join(" ");
}

/** The two lists of letters. @param {{current: "letters" | "archive"}} props */
export function LetterTabs({ current }) {
  const tabs = /** @type {const} */ ([["letters", "Open"], ["archive", "Archive"]]);
  return html`<nav class="subnav" aria-label="Lists of letters">
    ${tabs.map(([view, title]) => html`<a key=${view} href=${link(view, { query: ofQueue() })} aria-current=${view === current ? "page" : undefined}>${title}</a>`)}
  </nav>`;
}

const WHY_NOT = "A text cannot select letters while values are hidden: its count would reveal them. Select letters in the list.";

/**
 * The letter that the keys are at.
 * @param {import("../types.js").LetterSummary[]} items
 * @param {Set<string>} chosen
 * @param {(chosen: Set<string>) => void} setChosen
 */
function useCursor(items, chosen, setChosen) {
  const [id, setId] = useState("");
  const index = items.findIndex((one) => one.id === id);
  return {
    at: id,
    move: (/** @type {number} */ by) => {
      const next = items[Math.max(0, Math.min(items.length - 1, index + by))];
      if (!next) return;
      setId(next.id);
      document.getElementById(`letter-${next.id}`)?.scrollIntoView({ block: "nearest" });
    },
    open: () => items[index] && go(link("letters", { id, query: ofQueue() })),
    toggle: () => items[index] && setChosen(toggled(chosen, id)),
  };
}

/** @param {Set<string>} chosen @param {string} id */
function toggled(chosen, id) {
  const next = new Set(chosen);
  if (!next.delete(id)) next.add(id);
  return next;
}

/** @param {Record<string, string>} filter */
function selectorOf(filter) {
  if (filter["q"]) return null;
  const { fingerprint, ...others } = filter;
  return fingerprint && !Object.keys(others).length ? { fingerprint } : { filter };
}

/** @param {{count: number, exact: boolean}} target @param {number} chosen */
function label(target, chosen) {
  if (!target.count) return "…";
  if (chosen) return `${count(chosen)} selected`;
  return `${target.exact ? "all" : "up to"} ${count(target.count)}`;
}

/** @param {any} causes */
function summary(causes) {
  const { stats } = causes;
  const parts = [`${counted(causes.letters, "letter")} by ${counted(causes.total, "cause")}`];
  if (stats.maxlen && stats.length > stats.maxlen * 0.8) parts.push(`${Math.round((100 * stats.length) / stats.maxlen)} % of the room for ${count(stats.maxlen)}`);
  if (stats.cut) parts.push(`${count(stats.cut)} were trimmed before anybody saw them`);
  return parts.join(" · ");
}

/** @param {{isFiltered: boolean, hasMore: boolean}} props */
function Nothing({ isFiltered, hasMore }) {
  if (hasMore) return html`<${Empty} title="Nothing on this page"><p>The search read a part of the letters. Older ones may match.</p><//>`;
  if (!isFiltered) return html`<${Empty} title="No dead letters"><p>Every event was handled, or waits for its next attempt.</p><//>`;
  return html`<${Empty} title="No letter matches">
    <p><a href=${link("letters", { query: ofQueue() })}>Remove the filter</a></p>
  <//>`;
}

/**
 * @param {{items: import("../types.js").LetterSummary[], chosen: Set<string>, setChosen: (chosen: Set<string>) => void,
 *   at: string}} props
 */
function LetterTable({ items, chosen, setChosen, at }) {
  const isAll = items.length > 0 && items.every((one) => chosen.has(one.id));
  const toggleAll = () => {
    const next = new Set(chosen);
    for (const one of items) isAll ? next.delete(one.id) : next.add(one.id);
    setChosen(next);
  };
  return html`<table class="rows letters">
    <thead><tr>
      <th class="check"><input type="checkbox" aria-label="Select all on this page" checked=${isAll} onChange=${toggleAll} /></th>
      <th>Failed</th><th>Handler</th><th>Event</th><th>Error</th><th class="number">Attempts</th>
    </tr></thead>
    <tbody>
      ${items.map((one) => html`<${LetterRow} key=${one.id} letter=${one} isChosen=${chosen.has(one.id)} isAt=${at === one.id}
        toggle=${() => setChosen(toggled(chosen, one.id))} />`)}
    </tbody>
  </table>`;
}

/** @param {{letter: import("../types.js").LetterSummary, isChosen: boolean, isAt: boolean, toggle: () => void}} props */
function LetterRow({ letter, isChosen, isAt, toggle }) {
  const to = link("letters", { id: letter.id, query: ofQueue() });
  /** @param {any} event */
  const open = (event) => {
    if (!event.target.closest("a, input, button, label") && !getSelection()?.toString()) go(to);
  };
  return html`<tr id=${`letter-${letter.id}`} class=${`${isChosen ? "chosen" : ""} ${isAt ? "at" : ""}`} onClick=${open}>
    <td class="check"><input type="checkbox" aria-label=${`Select letter ${letter.id}`} checked=${isChosen} onChange=${toggle} /></td>
    <td class="when"><${Time} at=${letter.failed_at} /></td>
    <td class="name"><a href=${to}>${letter.handler || "no handler"}</a><span class="under">${letter.group}</span></td>
    <td class="name">${letter.event_type || "unreadable"}<span class="under mono">${letter.event_id}</span></td>
    <td class="error"><span class="clamp"><${ErrorType} type=${letter.error_type || REASONS[letter.reason] || letter.reason} /> ${letter.error}</span></td>
    <td class="number">${count(letter.deliveries)}${letter.replay_count > 0 && html`<span class="under" title="How often it was replayed">replayed ${count(letter.replay_count)}×</span>`}${letter.state !== "dead" && html`<${State} state=${letter.state} />`}</td>
  </tr>`;
}
