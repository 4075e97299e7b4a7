"""What is measured: a scenario is one kind of run; each of its rows is one number of it, with its budgets."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.budgets import Budget

ALL = ("ours", "floor", "peer", "faststream")
BEFORE = "before"
"""An earlier commit of ours, which takes part only where it is asked for."""
KNOWN = (ALL[0], BEFORE, *ALL[1:])


@dataclass(frozen=True, slots=True)
class Row:
    """One number of a scenario. `lower_is_better` is what ratios go by: of times yes, of rates no."""

    name: str
    title: str
    metric: str
    unit: str
    budgets: tuple[Budget, ...] = ()
    lower_is_better: bool = True
    charted: bool = True
    only_with: str | None = None
    """The contender without which this row is left out."""

    def is_shown(self, contenders: Collection[str]) -> bool:
        return self.only_with is None or self.only_with in contenders


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    name: str
    task: str
    rows: tuple[Row, ...]
    contenders: tuple[str, ...] = ALL
    count: int = 0
    """Events, the first tenth of them before the clock (on top of them, where they are emitted)."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Events for contenders that would take too long for `count`."""
    quick_count: int = 2_000
    """Events at the most, when only the harness is tried."""
    most_rounds: int = 100
    options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the job."""

    def has(self, contender: str) -> bool:
        """Whether the contender takes part. An earlier commit of ours does wherever ours does."""
        return (ALL[0] if contender == BEFORE else contender) in self.contenders

    def count_for(self, contender: str, quick: bool) -> int:
        count = self.counts.get(contender, self.count)
        return min(count, self.quick_count) if quick else count
