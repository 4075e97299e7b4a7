"""Series: what was appended to a stream and what its groups did in each step of the last hour."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, pairwise
from math import ceil
from operator import add
from typing import Literal, TypeAlias, get_args

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import stream_name
from rapids._core.json_schema import with_json_schema
from rapids._core.threads import in_own_thread
from rapids._storage import rates
from rapids._storage.client.connections import SharedPool
from rapids._storage.rates import COUNTED, PERIOD, RateRecord
from rapids.counters import HISTOGRAMS
from rapids.inspection.inspector import Inspector
from rapids.inspection.snapshots import server_time

__all__ = [
    "STEP_MINUTE",
    "GroupSeries",
    "Handling",
    "HandlingSeries",
    "HourOfGroup",
    "HourOfStream",
    "SeriesStep",
    "StreamSeries",
    "charts_since",
    "read_series",
]

SeriesStep: TypeAlias = Literal[10, 30, 60, 300]
"""Seconds."""

STEP_MINUTE = 60
HOUR = 3_600
MAX_GROUPS = 50
RECENT = 6
"""Records of which the present rate is made: those of a minute. The latest two may not be complete."""

BOUNDS = HISTOGRAMS["handling"].bounds

Values: TypeAlias = tuple[int | None, ...]
"""One number for each step, oldest first. None where nothing is known: no worker of the group ran."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class HandlingSeries:
    """How long handlers ran."""

    bounds: tuple[float, ...]
    """Seconds: the upper bounds of the ranges. Longer times are in a further range."""
    counts: tuple[tuple[int, ...] | None, ...]
    """For each step, how many runs are in each range; None where nothing is known."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class GroupSeries:
    """What a group did in each step, oldest first; null where nothing is known. The last step is not over yet."""

    group: str
    delivered: Values
    """Deliveries to consumers: new ones, and repeated ones."""
    handled: Values
    """Successful runs of handlers."""
    failed: Values
    """Failed runs of handlers."""
    retried: Values
    """Handlers that are to run again on a later delivery."""
    dead: Values
    """Dead letters."""
    handling: HandlingSeries | None
    """Null unless the group's routers have histograms (`use_histograms()`, `Rapids(metrics=...)`)."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class StreamSeries:
    """The last hour of a stream and its groups. Steps begin at multiples of their length, in UTC."""

    stream: str
    at: datetime
    """When this was so, by the server's clock."""
    since: datetime
    """When the first step began."""
    step: int
    """Seconds."""
    appended: Values
    """Entries appended by anybody. Where no worker noted their number, what was appended in that time is spread evenly.
    Null for all steps if the server does not count entries (before Redis 7.0)."""
    groups: tuple[GroupSeries, ...]
    """By name."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class Handling:
    """How long handlers ran: at most so many seconds in 50, 95 and 99 % of the runs. A minute also stands for more."""

    p50: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True)
class HourOfGroup:
    """The records of a group, by the numbers of their ten seconds."""

    records: Mapping[int, RateRecord]
    now_ms: int

    def values(self, step: int) -> dict[str, Values]:
        """Each counter in each step."""
        first, length = _first_period(self.now_ms, step), step // PERIOD
        steps: list[Sequence[int] | None] = [None] * (HOUR // step)
        for period, record in self.records.items():
            if 0 <= (at := (period - first) // length) < len(steps):
                before = steps[at]
                steps[at] = record.counts if before is None else tuple(map(add, before, record.counts))
        rows = [(None,) * len(COUNTED) if one is None else one for one in steps]
        return dict(zip(COUNTED, zip(*rows, strict=True), strict=True))

    def per_second(self, name: str) -> float | None:
        """A counter's present rate; None if nothing is known."""
        at = COUNTED.index(name)
        recent = {period: self.records[period].counts[at] for period in _recent(self.now_ms) if period in self.records}
        return _per_second(recent, self.now_ms)

    def handling(self, step: int) -> HandlingSeries | None:
        """How long handlers ran, in each step; None if nobody measured."""
        if not any(any(record.handling) for record in self.records.values()):
            return None
        first, length = _first_period(self.now_ms, step), step // PERIOD
        counts: list[tuple[int, ...] | None] = [None] * (HOUR // step)
        for period, record in self.records.items():
            if 0 <= (at := (period - first) // length) < len(counts):
                before = counts[at] or (0,) * len(record.handling)
                counts[at] = tuple(map(sum, zip(before, record.handling, strict=True)))
        return HandlingSeries(BOUNDS, tuple(counts)) if any(map(any, filter(None, counts))) else None

    def quantiles(self) -> Handling | None:
        """How long handlers ran in the whole hour; None if nobody measured."""
        if (measured := self.handling(HOUR // 12)) is None:
            return None
        reached = list(accumulate(map(sum, zip(*filter(None, measured.counts), strict=True))))
        bounds = (*BOUNDS, BOUNDS[-1])

        def within(share: float) -> float:
            return next(bound for bound, runs in zip(bounds, reached, strict=True) if runs >= share * reached[-1])

        return Handling(within(0.5), within(0.95), within(0.99))

    def series(self, group: str, step: int) -> GroupSeries:
        """All of it."""
        return GroupSeries(group=group, **self.values(step), handling=self.handling(step))


@dataclass(frozen=True, slots=True)
class HourOfStream:
    """What was appended to a stream in each ten seconds, by their numbers."""

    appended: Mapping[int, int]
    now_ms: int

    @classmethod
    def of(cls, groups: Sequence[HourOfGroup], added: int | None, now_ms: int) -> "HourOfStream":
        """From what workers of several groups noted, and how many entries the stream ever got until now."""
        noted, now = dict[int, int](), rates.period_of(now_ms)
        for group in groups:
            for period, record in group.records.items():
                # Before it was set back, the server's clock may have been years ahead.
                if record.added is not None and 0 <= now - period <= rates.RECORDS:
                    noted[period + 1] = min(noted.get(period + 1, record.added), record.added)
        points = sorted(noted.items())
        if added is not None and points:
            points.append((max(ceil(now_ms / (PERIOD * 1000)), points[-1][0] + 1), added))
        appended: dict[int, int] = {}
        for (begin, before), (end, after) in pairwise(points):
            grown, length = after - before if after >= before else after, end - begin  # less: the stream was deleted
            for at in range(length):
                appended[begin + at] = grown * (at + 1) // length - grown * at // length
        return cls(appended, now_ms)

    def values(self, step: int) -> Values:
        """How many in each step."""
        return _in_steps(self.appended, self.now_ms, step)

    def per_second(self) -> float | None:
        """The present rate; None if nothing is known."""
        return _per_second(self.appended, self.now_ms)


async def read_series(
    redis: Redis | RedisCluster, stream: str, *, group: str | None = None, step: SeriesStep = 60
) -> StreamSeries:
    """The last hour of a stream and of its groups (at most 50), or of one group, in steps of so many seconds.

    Workers write what they did soon after each ten seconds. It is read in three round trips.

    Raises `StreamNotFoundError` or `GroupNotFoundError` if the stream or group does not exist, `ValueError` for another
    step, `redis.exceptions.RedisError` if Redis does not answer.
    """
    if step not in get_args(SeriesStep):
        raise ValueError(f"step must be one of {', '.join(map(str, get_args(SeriesStep)))} (seconds), not {step!r}")
    inspector, name = Inspector(redis), stream_name("stream", stream)
    snapshot = await inspector.stream(name)
    if group is None:
        names = [one.group for one in (await inspector.groups(name, limit=MAX_GROUPS)).items]
    else:
        names = [(await inspector.group(name, group)).group]
    now_ms = round(snapshot.at.timestamp() * 1000)
    hours = [HourOfGroup(records, now_ms) for records in await rates.read(SharedPool(redis, name), name, names)]

    def series() -> StreamSeries:
        return StreamSeries(
            stream=name,
            at=snapshot.at,
            since=server_time(_first_period(now_ms, step) * PERIOD * 1000),
            step=step,
            appended=HourOfStream.of(hours, snapshot.entries_added, now_ms).values(step),
            groups=tuple(hour.series(one, step) for one, hour in zip(names, hours, strict=True)),
        )

    return await asyncio.wrap_future(in_own_thread(series))  # each group takes milliseconds


def charts_since(now: datetime) -> datetime:
    """When the first step of a chart in steps of a minute began."""
    return server_time(_first_period(round(now.timestamp() * 1000), STEP_MINUTE) * PERIOD * 1000)


def _first_period(now_ms: int, step: int) -> int:
    """The number of the first ten seconds of the steps, the last of which has begun."""
    return ((now_ms // 1000 // step + 1) * step - HOUR) // PERIOD


def _in_steps(by_period: Mapping[int, int], now_ms: int, step: int) -> Values:
    first, length = _first_period(now_ms, step), step // PERIOD
    values: list[int | None] = [None] * (HOUR // step)
    for period, value in by_period.items():
        if 0 <= (at := (period - first) // length) < len(values):
            values[at] = (values[at] or 0) + value
    return tuple(values)


def _recent(now_ms: int) -> range:
    last = rates.period_of(now_ms) - 1
    return range(last - RECENT, last)


def _per_second(by_period: Mapping[int, int], now_ms: int) -> float | None:
    known = [by_period[period] for period in _recent(now_ms) if period in by_period]
    return round(sum(known) / (len(known) * PERIOD), 3) if known else None
