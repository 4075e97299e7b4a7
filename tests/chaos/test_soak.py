"""A very short soak: `make soak` is the long one. What must not be left shows after seconds, too."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.chaos.leaks import MIB, Usage, growth, left_behind, table
from tests.chaos.soak import BOUNDS, TREATMENTS, soak

pytestmark = pytest.mark.slow


@pytest.mark.integration
async def test_a_long_run_leaks_nothing_and_leaves_nothing() -> None:
    soaked = await soak(seconds=8, rate=250, say=lambda _: None)

    print(table(soaked.usages, BOUNDS))
    assert soaked.findings == []
    assert {"emitted", *TREATMENTS} <= soaked.done.keys()


def usage() -> Usage:
    return Usage(rss=50 * MIB, fds=9, tasks=1, server_memory=3 * MIB, connections=1, keys={}, lengths={}, unbounded=())


@pytest.mark.parametrize(
    "later",
    [
        replace(usage(), rss=100 * MIB),
        replace(usage(), server_memory=10 * MIB),
        replace(usage(), tasks=40),
        replace(usage(), fds=40),
        replace(usage(), connections=40),
        replace(usage(), keys={BOUNDS[0].pattern: 2}),
        replace(usage(), lengths={BOUNDS[0].pattern: 50_000}),
        replace(usage(), unbounded=["some:key is of no known kind"]),
    ],
)
def test_growth_is_seen(later: Usage) -> None:
    assert list(growth(usage(), usage(), BOUNDS)) == []
    assert len(list(growth(usage(), later, BOUNDS))) == 1


@pytest.mark.parametrize(
    "after",
    [
        replace(usage(), tasks=2),
        replace(usage(), connections=2),
        replace(usage(), fds=10),
        replace(usage(), keys={next(bound.pattern for bound in BOUNDS if bound.of_pending): 1}),
        replace(usage(), unbounded=["some:key never expires"]),
    ],
)
def test_remaining_keys_are_seen(after: Usage) -> None:
    assert list(left_behind(8, usage(), BOUNDS)) == []
    assert len(list(left_behind(8, after, BOUNDS))) == 1
