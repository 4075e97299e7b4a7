"""Series: what was appended to a stream and what its groups did in each step of the last hour."""

import asyncio
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate, compress, pairwise
from math import ceil
from typing import Literal, TypeAlias, get_args

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import stream_name
from rapids._core.json_schema import with_json_schema
from rapids._core.threads import in_own_thread
from rapids._storage import rates
from rapids._storage.client.connections import SharedPool
from rapids._storage.rates import PERIOD, GroupRates
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
    """The last hour of a group."""

    rates: GroupRates
    now_ms: int

    def values(self, step: int) -> dict[str, Values]:
        """Each counter in each step."""
        counts = self.rates.counts
        return dict(zip(counts, _in_steps(self.rates.periods, counts.values(), self.now_ms, step), strict=True))

    def per_second(self, name: str) -> float | None:
        """A counter's present rate; None if nothing is known."""
        return _per_second(dict(zip(self.rates.periods, self.rates.counts[name], strict=True)), self.now_ms)

    def handling(self, step: int) -> HandlingSeries | None:
        """How long handlers ran, in each step; None if nobody measured."""
        if not any(map(any, self.rates.handling)):
            return None
        rows = zip(*_in_steps(self.rates.periods, self.rates.handling, self.now_ms, step), strict=True)
        counts = [tuple(runs for runs in row if runs is not None) or None for row in rows]
        return HandlingSeries(BOUNDS, tuple(counts)) if any(map(any, filter(None, counts))) else None

    def quantiles(self) -> Handling | None:
        """How long handlers ran in the whole hour; None if nobody measured."""
        first = _first_period(self.now_ms, STEP_MINUTE)
        is_inside = [0 <= period - first < HOUR // PERIOD for period in self.rates.periods]
        reached = list(accumulate(sum(compress(column, is_inside)) for column in self.rates.handling))
        if not reached[-1]:
            return None
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
            for period, entries in zip(group.rates.periods, group.rates.added, strict=True):
                # Before it was set back, the server's clock may have been years ahead.
                if entries is not None and 0 <= now - period <= rates.RECORDS:
                    noted[period + 1] = min(noted.get(period + 1, entries), entries)
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
        return next(_in_steps(self.appended, [list(self.appended.values())], self.now_ms, step))

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
    hours = [HourOfGroup(found, now_ms) for found in await rates.read(SharedPool(redis, name), name, names)]

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


def _in_steps(periods: Iterable[int], columns: Iterable[Sequence[int]], now_ms: int, step: int) -> Generator[Values]:
    """Of each column the sum in each step. A value is about the ten seconds at its place in `periods`."""
    first, length, steps = _first_period(now_ms, step), step // PERIOD, HOUR // step
    inside = [(place, at) for place, one in enumerate(periods) if 0 <= (at := (one - first) // length) < steps]
    for column in columns:
        values: list[int | None] = [None] * steps
        for place, at in inside:
            values[at] = (values[at] or 0) + column[place]
        yield tuple(values)


def _recent(now_ms: int) -> range:
    last = rates.period_of(now_ms) - 1
    return range(last - RECENT, last)


def _per_second(by_period: Mapping[int, int], now_ms: int) -> float | None:
    known = [by_period[period] for period in _recent(now_ms) if period in by_period]
    return round(sum(known) / (len(known) * PERIOD), 3) if known else None
