"""What a number has to be: a closed set of kinds, each with the words the table says it in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from benchmarks.statistics import Rounds, Spread, difference, ratio, spread


@dataclass(frozen=True, slots=True)
class AtMostTimes:
    """Ours costs at most `factor` times what the other contender does."""

    other: str
    factor: float

    def __str__(self) -> str:
        return f"≤ {self.factor:g} x {self.other}"


@dataclass(frozen=True, slots=True)
class TimesFaster:
    """Ours is at least `factor` times as fast as the other contender."""

    other: str
    factor: float

    def __str__(self) -> str:
        return f"≥ {self.factor:g} x as fast as {self.other}"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """Ours is at least so much, in the unit of the row."""

    value: float

    def __str__(self) -> str:
        return f"≥ {self.value:,g}"


@dataclass(frozen=True, slots=True)
class AtMost:
    """Ours is at most so much, in the unit of the row."""

    value: float

    def __str__(self) -> str:
        return f"≤ {self.value:,g}"


@dataclass(frozen=True, slots=True)
class Flat:
    """Ours costs at most `factor` times what it does in another row: what is called flat, with room for noise."""

    row: str
    factor: float = 1.2

    def __str__(self) -> str:
        return f"≤ {self.factor:g} x {self.row}"


@dataclass(frozen=True, slots=True)
class AtMostMore:
    """Ours costs at most so much more than it does in another row, in the unit of both."""

    row: str
    more: float

    def __str__(self) -> str:
        return f"≤ {self.row} + {self.more:g}"


Budget: TypeAlias = AtMostTimes | TimesFaster | AtLeast | AtMost | Flat | AtMostMore


@dataclass(frozen=True, slots=True)
class Verdict:
    """`measured` is what the budget limits; None where it could not be measured."""

    budget: str
    measured: float | None
    met: bool | None

    def __str__(self) -> str:
        if self.measured is None:
            return f"{self.budget}: not measured"
        return f"{self.budget}: {'met' if self.met else 'NOT MET'} ({self.measured:,.4g})"


def judge(budget: Budget, row: str, measured: Mapping[tuple[str, str], Rounds]) -> Verdict:
    """Against what was measured, by row and contender. Costs are times, so lower ones are better."""
    ours = measured.get((row, "ours"), {})
    match budget:
        case AtMostTimes(other, factor):
            return _at_most(budget, ratio(ours, measured.get((row, other), {})), factor)
        case Flat(other_row, factor):
            return _at_most(budget, ratio(ours, measured.get((other_row, "ours"), {})), factor)
        case AtMostMore(other_row, more):
            return _at_most(budget, difference(ours, measured.get((other_row, "ours"), {})), more)
        case AtMost(value):
            return _at_most(budget, spread(list(ours.values())), value)
        case TimesFaster(other, factor):
            return _at_least(budget, ratio(measured.get((row, other), {}), ours), factor)
        case AtLeast(value):
            return _at_least(budget, spread(list(ours.values())), value)


def _at_most(budget: Budget, found: Spread | None, limit: float) -> Verdict:
    return Verdict(str(budget), found and found.median, found and found.median <= limit)


def _at_least(budget: Budget, found: Spread | None, limit: float) -> Verdict:
    return Verdict(str(budget), found and found.median, found and found.median >= limit)
