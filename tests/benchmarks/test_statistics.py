"""Medians, spreads and ratios of rounds; and what budgets make of them."""

from __future__ import annotations

import pytest

from benchmarks.budgets import AtLeast, AtMost, AtMostMore, AtMostTimes, Budget, Flat, TimesFaster, judge
from benchmarks.statistics import Spread, ratio, spread


def test_a_spread_is_the_median_and_what_is_around_it() -> None:
    assert spread([3.0, 1.0, 2.0]) == Spread(median=2.0, low=1.0, high=3.0, rounds=3)


def test_no_measurements_have_no_spread() -> None:
    assert spread([]) is None
    assert ratio({}, {0: 1.0}) is None


def test_a_ratio_is_that_of_each_round_and_not_of_the_medians() -> None:
    assert ratio({0: 10.0, 1: 40.0, 2: 30.0}, {0: 10.0, 1: 20.0, 2: 10.0}) == Spread(2.0, 1.0, 3.0, 3)


def test_a_ratio_takes_only_rounds_that_both_have() -> None:
    assert ratio({0: 10.0, 2: 30.0}, {0: 5.0, 1: 1.0}) == Spread(2.0, 2.0, 2.0, 1)


COSTS = {
    ("row", "ours"): {0: 15.0, 1: 16.0, 2: 17.0},
    ("row", "floor"): {0: 10.0, 1: 10.0, 2: 10.0},
    ("row", "peer"): {0: 160.0, 1: 160.0, 2: 160.0},
    ("base", "ours"): {0: 15.0, 1: 15.0, 2: 15.0},
}


@pytest.mark.parametrize(
    ("budget", "measured", "met"),
    [
        (AtMostTimes("floor", 1.6), 1.6, True),
        (AtMostTimes("floor", 1.5), 1.6, False),
        (TimesFaster("peer", 10), 10.0, True),
        (TimesFaster("peer", 11), 10.0, False),
        (AtLeast(16), 16.0, True),
        (AtLeast(16.5), 16.0, False),
        (AtMost(16), 16.0, True),
        (AtMost(15.5), 16.0, False),
        (Flat("base", 1.2), 16 / 15, True),
        (Flat("base", 1.05), 16 / 15, False),
        (AtMostMore("base", 1), 1.0, True),
        (AtMostMore("base", 0.9), 1.0, False),
    ],
)
def test_a_budget_is_met_by_the_median(budget: Budget, measured: float, met: bool) -> None:
    verdict = judge(budget, "row", COSTS)

    assert verdict.measured == pytest.approx(measured)
    assert verdict.met is met
    assert ("NOT MET" in str(verdict)) is not met


@pytest.mark.parametrize(
    "budget",
    [AtMostTimes("floor", 1), TimesFaster("peer", 1), AtLeast(1), AtMost(1), Flat("base"), AtMostMore("base", 1)],
)
def test_a_budget_without_a_measurement_is_neither_met_nor_missed(budget: Budget) -> None:
    verdict = judge(budget, "another", COSTS)

    assert (verdict.measured, verdict.met) == (None, None)
    assert str(verdict).endswith("not measured")
