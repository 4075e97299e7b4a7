"""Series: how the records that workers keep become steps of the last hour, and present rates."""

from __future__ import annotations

import struct
import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest
from redis.asyncio import Redis

from rapids._storage.keys import Source
from rapids._storage.rates import COUNTED, RANGES, GroupRates
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.inspection import read_series
from rapids.inspection.series import HourOfGroup, HourOfStream
from tests.worker.helpers import GROUP, STREAM

NOW = 1_763_931_571  # 20:59:31 UTC
PERIOD = NOW // 10


class Record(NamedTuple):
    added: int | None
    counts: Sequence[int]
    handling: Sequence[int]


def record(handled: int = 0, added: int | None = None, slow: int = 0) -> Record:
    return Record(added, (handled, handled, 0, 0, 0), (0,) * (RANGES - 1) + (slow,))


def hour(**at: Record) -> HourOfGroup:
    """A group's records, by how many periods ago they were: `hour(_1=...)`."""
    return hour_of({PERIOD - int(name[1:]): one for name, one in at.items()})


def hour_of(records: Mapping[int, Record]) -> HourOfGroup:
    added, counts, handling = zip(*records.values(), strict=True)
    columns = zip(*counts, strict=True)
    rates = GroupRates(
        list(records), added, dict(zip(COUNTED, columns, strict=True)), list(zip(*handling, strict=True))
    )
    return HourOfGroup(rates, NOW * 1000)


def test_the_last_step_has_begun_and_the_first_is_an_hour_before_it() -> None:
    group = hour(_0=record(1), _3=record(2), _4=record(4), _357=record(8), _363=record(16), _400=record(32))
    by_minute = group.values(60)["handled"]
    assert (len(by_minute), by_minute[-1], by_minute[-2], by_minute[0], by_minute[1]) == (60, 3, 4, 8, None)
    by_ten = group.values(10)["handled"]
    assert (len(by_ten), by_ten[-1], by_ten[-4:-1]) == (360, 1, (2, None, None))


def test_a_present_rate_is_of_what_is_known_of_a_minute() -> None:
    """Not of the last ten seconds, which some workers have not reported yet."""
    assert hour(_1=record(1_000)).per_second("handled") is None
    assert hour(_2=record(20), _3=record(40), _8=record(900)).per_second("handled") == 3.0


def test_what_was_appended_follows_from_what_workers_noted() -> None:
    one = hour(_5=record(added=100), _4=record(added=130), _2=record(added=171))
    other = hour(_5=record(added=101), _4=record(added=129))  # noted a little later, and sooner
    stream = HourOfStream.of([one, other], 180, NOW * 1000)
    # Of 129 to 171 in two periods nobody knows more, and the stream has 9 more entries by now.
    assert [stream.appended.get(PERIOD - ago) for ago in (5, 4, 3, 2, 1, 0)] == [None, 29, 21, 21, 4, 5]
    assert HourOfStream.of([hour(_3=record())], None, NOW * 1000).appended == {}, "the server does not count"


def test_a_stream_that_was_deleted_and_is_new_does_not_count_backwards() -> None:
    group = hour(_3=record(added=1_000), _2=record(added=7))
    assert HourOfStream.of([group], 9, NOW * 1000).appended[PERIOD - 2] == 7


def test_quantiles_are_upper_bounds_and_a_minute_stands_for_more() -> None:
    ranges = [0] * RANGES
    ranges[0], ranges[5], ranges[-1] = 90, 9, 1
    group = hour(_2=Record(None, (0,) * len(COUNTED), ranges))
    quantiles = group.quantiles()
    assert quantiles is not None
    assert (quantiles.p50, quantiles.p95, quantiles.p99) == (0.001, 0.05, 0.05)
    assert hour(_2=record(slow=1)).quantiles().p50 == 60.0  # type: ignore[union-attr]
    assert hour(_2=record(5)).quantiles() is None


async def test_a_cut_or_strange_record_is_left_out(redis: Redis) -> None:
    """Another program may have written to the key."""
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    whole = struct.pack(f">Id{len(COUNTED) + RANGES}I", 5, -1.0, *[1] * (len(COUNTED) + RANGES))
    await redis.set(Source(STREAM, GROUP).rates, whole + b"cut")
    series = await read_series(redis, STREAM, group=GROUP, step=300)
    assert [one.group for one in series.groups] == [GROUP]
    assert set(series.groups[0].handled) == {None}
    await redis.delete(Source(STREAM, GROUP).rates)
    await redis.lpush(Source(STREAM, GROUP).rates, "no string")
    assert set((await read_series(redis, STREAM, group=GROUP)).groups[0].handled) == {None}
    with pytest.raises(GroupNotFoundError):
        await read_series(redis, STREAM, group="other")
    with pytest.raises(StreamNotFoundError):
        await read_series(redis, "other")
    with pytest.raises(ValueError, match="step must be one of 10, 30, 60, 300"):
        await read_series(redis, STREAM, step=20)  # type: ignore[arg-type]


def test_what_is_noted_of_another_time_costs_nothing() -> None:
    """The server's clock was ahead, and was set back."""
    ahead = hour_of({PERIOD + 100_000: record(added=9)})
    appended = HourOfStream.of([hour(_3=record(added=5)), ahead], 9, NOW * 1000).appended
    assert max(appended) <= PERIOD + 1


@pytest.mark.parametrize("added", [float("nan"), float("inf"), -1.0])
async def test_what_is_no_count_is_not_known(redis: Redis, added: float) -> None:
    await redis.xgroup_create(STREAM, GROUP, mkstream=True)
    period = int((await redis.time())[0]) // 10 - 2
    raw = struct.pack(f">Id{len(COUNTED) + RANGES}I", period, added, *[3] * (len(COUNTED) + RANGES))
    await redis.set(Source(STREAM, GROUP).rates, raw)
    found = await read_series(redis, STREAM)
    assert set(found.appended) == {None}
    assert 3 in found.groups[0].handled


async def test_it_is_made_in_a_thread(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty groups take tens of milliseconds, in which the event loop goes on."""
    where = set[threading.Thread]()
    made = HourOfGroup.series

    def noted(self: HourOfGroup, *arguments: Any) -> Any:
        where.add(threading.current_thread())
        return made(self, *arguments)

    monkeypatch.setattr(HourOfGroup, "series", noted)
    await redis.xgroup_create(STREAM, GROUP, mkstream=True)
    await read_series(redis, STREAM)
    assert where
    assert threading.main_thread() not in where
