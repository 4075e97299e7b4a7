"""What is measured over a million dead letters: of ours only, and in milliseconds where a person waits for it."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.budgets import AtLeast, AtMost, Budget
from benchmarks.scenario import Row, Scenario

MOST_MILLISECONDS = 150

PAGES = {
    "first": "first page of 50",
    "deep": "a page of 50 in the middle, by cursor",
    "last": "the last page, by cursor",
    "largest": "a page of 500",
    "slowest": "the slowest of all pages of 500",
}
FILTERS = {
    "event_type": "by event type",
    "event_type_glob": "by event type, order.*",
    "event_type_all": "by event type, *",
    "handler": "by handler",
    "handler_small": "by handler and event type",
    "group": "by group",
    "reason": "by reason",
    "error_type": "by error type",
    "fingerprint": "of one cause",
    "since": "since a time",
    "until": "until a time",
    "between": "of a tenth of a second",
    "combined": "by event type, group, reason, error type and time",
    "few": "by what 5 letters have, the oldest",
    "few_until": "by what 5 letters have, until a time",
    "none": "by what none has",
    "none_since": "by a time when there was none",
    "groups": "the 50 largest groups",
    "all_groups": "all groups",
    "groups_of_handler": "the groups of a handler",
}
HTTP = {
    "first": "first page of 50",
    "deep": "a page of 50, 50,000 letters down by cursor",
    "largest": "a page of 200",
    "slowest_page": "the slowest of 250 pages of 200",
    **{name: FILTERS[name] for name in FILTERS if name not in ("event_type_all", "handler_small", "few_until")},
    "letter": "one letter",
}
for _name in ("between", "none_since", "groups_of_handler"):
    HTTP.pop(_name)


def _shown(prefix: str, how: str, titles: Mapping[str, str]) -> tuple[Row, ...]:
    return tuple(_row(f"{prefix}-{name}", f"{how}: {titles[name]}", name, "ms", _WAITED_FOR) for name in titles)


def _row(name: str, title: str, metric: str, unit: str, *budgets: Budget, lower_is_better: bool = True) -> Row:
    return Row(name, title, metric, unit, budgets, lower_is_better, charted=False)


_WAITED_FOR = AtMost(MOST_MILLISECONDS)


def _scenario(name: str, rows: tuple[Row, ...], most_rounds: int) -> Scenario:
    return Scenario(
        name=name,
        task=name,
        rows=rows,
        contenders=("ours",),
        count=1_000_000,
        quick_count=20_000,
        most_rounds=most_rounds,
    )


LETTERS = (
    _scenario(
        "letters-index",
        (
            _row(
                "letters-index-reported", "index of a million letters, by MEMORY USAGE", "reported", "MB", AtMost(100)
            ),
            _row("letters-index", "index of a million letters, by used_memory", "used", "MB", AtMost(100)),
            _row("letters-index-rebuilt", "the same, rebuilt", "rebuilt", "MB", AtMost(100)),
            _row("letters-reindex", "to rebuild it, a thousand letters a look", "seconds", "s"),
            _row("letters-reindex-look", "the slowest of these looks", "slowest", "ms"),
        ),
        1,
    ),
    _scenario(
        "letters-pages",
        (
            *_shown("letters", "Python", PAGES),
            _row("letters-pages-growth", "memory after all pages, to that after 20", "growth", "times", AtMost(1.1)),
        ),
        1,
    ),
    _scenario(
        "letters-filters",
        (*_shown("letters-by", "Python", FILTERS), _row("letters-text", "Python: text, 2,000 looked at", "text", "ms")),
        5,
    ),
    _scenario(
        "letters-http",
        (
            *_shown("letters-http", "HTTP", HTTP),
            _row("letters-http-text", "HTTP: text, 2,000 looked at", "text", "ms"),
            _row("letters-http-growth", "the server's memory after all that", "growth", "times", AtMost(1.1)),
        ),
        3,
    ),
    _scenario(
        "letters-move",
        (
            _row("letters-replay", "bulk replay", "replays", "letters/s", AtLeast(15_000), lower_is_better=False),
            _row("letters-discard", "bulk discard", "discards", "letters/s", lower_is_better=False),
            _row("letters-restore", "bulk restore", "restores", "letters/s", lower_is_better=False),
            _row("letters-move-growth", "memory after moving a million, to the start", "growth", "times", AtMost(1.1)),
        ),
        1,
    ),
)
