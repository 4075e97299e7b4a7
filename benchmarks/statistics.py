"""The few numbers a row of the table needs, from what the rounds gave."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Rounds = Mapping[int, float]
"""What was measured, by the number of the round: a round may be missing."""


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, the lowest and the highest."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread | None:
    """None where there is nothing."""
    if not values:
        return None
    return Spread(statistics.median(values), min(values), max(values), len(values))


def ratio(above: Rounds, below: Rounds) -> Spread | None:
    """Of the quotients of each round: what slowed the machine down for a while slowed down both."""
    common = above.keys() & below.keys()
    return spread([above[number] / below[number] for number in sorted(common) if below[number]])


def difference(one: Rounds, other: Rounds) -> Spread | None:
    """Of the differences of each round: how much more `one` is."""
    return spread([one[number] - other[number] for number in sorted(one.keys() & other.keys())])
