"""The table: Markdown that can be read as it is."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.results import FAILED, Findings, RowResult
from benchmarks.scenario import BEFORE
from benchmarks.statistics import Spread

TITLES = {
    "ours": "Rapids",
    BEFORE: "before",
    "floor": "floor",
    "peer": "rapids-streams 0.3.0",
    "faststream": "FastStream",
}
RATIOS = {BEFORE: "Rapids / before", "floor": "Rapids / floor", "peer": "as fast as peer, x"}
"""The columns of ratios, by the contender that ours is compared with."""
MARK = "WORSE"
"""Marks the ratio of a row that is worse than before by more than is tolerated."""


def table(rows: Sequence[RowResult], contenders: Sequence[str]) -> str:
    """A ratio has a column where the contender it compares ours with was measured."""
    ratios = [title for name, title in RATIOS.items() if name in contenders]
    head = ["", "unit", *(TITLES[name] for name in contenders), *ratios, "budget"]
    body = [_cells(result, contenders) for result in rows]
    widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(cells, widths) for cells in (head, rule, *body))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"


def _cells(result: RowResult, contenders: Sequence[str]) -> list[str]:
    return [
        result.row.title,
        result.row.unit,
        *(_cell(result, name) for name in contenders),
        *(_ratio(result, name) for name in RATIOS if name in contenders),
        "; ".join(map(str, result.verdicts)),
    ]


def _cell(result: RowResult, contender: str) -> str:
    if result.missing.get(contender) == FAILED:
        return "FAILED"
    return formatted(result.spread_of(contender)) or "n/a"


def _ratio(result: RowResult, contender: str) -> str:
    ratios = {BEFORE: result.to_before, "floor": result.to_floor, "peer": result.to_peer}
    mark = f" {MARK}" if contender == BEFORE and result.is_slower else ""
    return formatted(ratios[contender]) + mark


def formatted(found: Spread | None) -> str:
    """The median, and the lowest and highest round."""
    if found is None:
        return ""
    return f"{number(found.median)} ({number(found.low)}-{number(found.high)})"


def number(value: float) -> str:
    """Three digits that count."""
    if value >= 1_000:
        return f"{value:,.0f}"
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def legend(findings: Findings) -> str:
    """How to read the table, and what is missing in it."""
    lines = [
        "Median of the rounds (lowest-highest). Ratios are of each round, in which the contenders take turns.",
        "Rapids / floor is of the unit shown. 1 MiB is 1,048,576 bytes. The first tenth of a consumer's events is not",
        "timed: the clock runs from the return of a handler to that of the last; then all must be acknowledged.",
        "Where nothing else is said the event loop is asyncio's own; the endpoints run on uvloop.",
        *findings.notes,
        *(f"n/a: {of}, {name}: {reason}" for (of, name), reason in findings.missing.items() if reason != FAILED),
        *(f"FAILED: {failure}" for failure in findings.failures),
    ]
    return "\n".join(lines)
