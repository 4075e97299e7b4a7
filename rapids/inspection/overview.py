"""The overview: streams, groups and dead letters at a glance, with the last hour, and first what is wrong."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import NoPermissionError, ResponseError

from rapids._core.json_schema import with_json_schema
from rapids._core.threads import in_own_thread
from rapids._storage import rates
from rapids._storage.client.connections import SharedPool
from rapids.dead_letters.causes import Causes, QueueStats
from rapids.dead_letters.queue import DeadLetterQueue
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.inspection.diagnosis import RECENT_MS
from rapids.inspection.findings import Failing, GroupFacts, OverviewFinding, QueueFacts, Retrying, findings_of
from rapids.inspection.group_reader import WatchedGroup
from rapids.inspection.inspector import Inspector
from rapids.inspection.series import STEP_MINUTE, Handling, HourOfGroup, HourOfStream, Values, charts_since
from rapids.inspection.snapshots import GroupSnapshot, StreamSnapshot

__all__ = [
    "GroupOverview",
    "HourTotals",
    "Overview",
    "OverviewReader",
    "QueueOverview",
    "StreamOverview",
]

FRESH = 1.0
"""Seconds for which a result is reused, so that any number of dashboards cause at most one read a second."""

MAX_GROUPS = 50
MAX_CAUSES = 500
"""Causes of a dead-letter stream that are looked at: those with the most letters."""

MAX_LOOKED_AT = 20
"""Groups that are looked at more closely, and waiting entries of each, to say what is wrong with them."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class HourTotals:
    """What a group did in the last hour."""

    delivered: int
    handled: int
    failed: int
    retried: int
    dead: int


@with_json_schema
@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOverview(GroupSnapshot):
    """A group at one moment, and its last hour in steps of a minute, oldest first (null where nothing is known)."""

    dlq: str | None = None
    """Its dead-letter stream; null if it is not known, or if there is none."""
    dead_letters: int | None = None
    """Its dead letters in that stream, of at most 500 causes; null without one."""
    handled_per_second: float | None
    """Successful runs of handlers in the last minute that is known."""
    failed_per_second: float | None
    last_hour: HourTotals | None
    delivered: Values
    handled: Values
    failed: Values
    dead: Values
    handling: Handling | None
    """How long handlers ran in the last hour; null unless the group's routers have histograms."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class StreamOverview:
    """A stream and its groups."""

    stream: str
    length: int
    first_at: datetime | None
    last_at: datetime | None
    """When the newest entry was appended."""
    appended_per_second: float | None
    """In the last minute; null if the server does not count entries (before Redis 7.0), or no worker ran."""
    appended: Values
    """Entries appended in each minute of the last hour, oldest first."""
    groups: tuple[GroupOverview, ...]
    """The first 50 by name."""
    more_groups: bool


@with_json_schema
@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOverview(QueueStats):
    """A dead-letter stream."""

    dlq: str
    causes: int
    """How many causes its letters have."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class Overview:
    """Streams, groups and dead letters at a glance. Texts are untrusted input: show them as text only."""

    at: datetime
    """When this was so, by the server's clock."""
    charts_since: datetime
    """When the first step of every chart began: a whole minute. The last step is not over yet."""
    chart_step: int
    """Seconds of a step of a chart."""
    findings: tuple[OverviewFinding, ...]
    """What is wrong, the worst first; empty if all is well."""
    streams: tuple[StreamOverview, ...]
    queues: tuple[QueueOverview, ...]
    missing: tuple[str, ...]
    """Streams that do not exist yet, or that cannot be read."""


class OverviewReader:
    """Reads the overview of what `watched` returns, at most once a second for any number of readers.

    It takes about three round trips for each stream and one for each dead-letter stream, one after another, and looks
    at no key of anything else. Of a stream, the first 50 groups are shown.
    """

    def __init__(self, redis: Redis | RedisCluster, watched: Callable[[], Iterable[WatchedGroup]]) -> None:
        self._redis = redis
        self._watched = watched
        self._inspector = Inspector(redis)
        self._turn = asyncio.Lock()
        self._last: Overview | None = None
        self._read_at = 0.0

    async def read(self) -> Overview:
        """The overview; it may be one second old. Raises `redis.exceptions.RedisError` if Redis does not answer."""
        async with self._turn:
            if self._last is None or time.monotonic() - self._read_at >= FRESH:
                self._last = await self._look()
                self._read_at = time.monotonic()
            return self._last

    async def _look(self) -> Overview:
        watched = list(self._watched())
        queues = await self._queues(watched)
        streams: list[_ReadStream] = []
        missing: list[str] = []
        for name in sorted({one.stream for one in watched}):  # one after another, so that it takes one connection
            try:
                streams.append(await self._stream(name))
            except StreamNotFoundError:
                missing.append(name)
            except ResponseError as error:  # one of many names must not hide the others
                if not _is_about_one_key(error):
                    raise
                missing.append(name)
        now = max((one.snapshot.at for one in streams), default=datetime.now(UTC))
        stream_of = {(one.dlq_stream, one.group): one.stream for one in watched}
        failing = [
            Failing(cause, dlq, stream_of.get((dlq, cause.group)) or stream_of.get((dlq, None)))
            for dlq, causes in queues.items()
            for cause in causes.items
        ]
        facts = await self._facts([group for one in streams for group in one.groups])

        def overview() -> Overview:
            return Overview(
                at=now,
                charts_since=charts_since(now),
                chart_step=STEP_MINUTE,
                findings=findings_of(
                    now,
                    [one.snapshot for one in streams],
                    facts,
                    failing,
                    [QueueFacts(dlq, causes.stats) for dlq, causes in queues.items()],
                ),
                streams=tuple(one.overview(watched, queues) for one in streams),
                queues=tuple(
                    QueueOverview(**asdict(causes.stats), dlq=dlq, causes=causes.total)
                    for dlq, causes in queues.items()
                ),
                missing=tuple(missing),
            )

        return await asyncio.wrap_future(in_own_thread(overview))  # each group takes milliseconds

    async def _queues(self, watched: Iterable[WatchedGroup]) -> dict[str, Causes]:
        limits: dict[str, list[int | None]] = {}
        for one in watched:
            if one.dlq_stream is not None:
                limits.setdefault(one.dlq_stream, []).append(one.dlq_maxlen)
        found: dict[str, Causes] = {}
        for dlq, most in sorted(limits.items()):
            known = [one for one in most if one is not None]
            queue = DeadLetterQueue(self._redis, dlq, dlq_maxlen=max(known, default=None))
            try:
                found[dlq] = await queue.causes(limit=MAX_CAUSES)
            except ResponseError as error:
                if not _is_about_one_key(error):
                    raise
        return found

    async def _stream(self, name: str) -> "_ReadStream":
        snapshot = await self._inspector.stream(name)
        page = await self._inspector.groups(name, limit=MAX_GROUPS)
        names = [group.group for group in page.items]
        now_ms = round(snapshot.at.timestamp() * 1000)
        hours = [HourOfGroup(found, now_ms) for found in await rates.read(SharedPool(self._redis, name), name, names)]
        groups = [_ReadGroup(group, hour) for group, hour in zip(page.items, hours, strict=True)]
        return _ReadStream(snapshot, groups, page.cursor is not None)

    async def _facts(self, groups: Sequence["_ReadGroup"]) -> list[GroupFacts]:
        """What is wrong with groups can need a closer look: which handlers fail, and whether anybody is there."""
        by_waiting = sorted(groups, key=lambda group: group.snapshot.waiting, reverse=True)[:MAX_LOOKED_AT]
        by_work = [group for group in groups if not group.snapshot.consumers_alive and group.snapshot.lag]
        closer = [group for group in by_waiting if group.snapshot.waiting]
        facts: list[GroupFacts] = []
        for group in groups:
            is_closer, may_be_others = group in closer, group in by_work[:MAX_LOOKED_AT]
            one, retrying, others_alive = group.snapshot, list[Retrying](), False
            with suppress(StreamNotFoundError, GroupNotFoundError, ValueError):
                if is_closer:
                    page = await self._inspector.waiting(one.stream, one.group, limit=MAX_LOOKED_AT)
                    for entry in page.items:
                        for handler in entry.attempts:
                            error_type = handler.attempts[-1].error_type if handler.attempts else ""
                            retrying.append(Retrying(handler.handler, error_type or "not known why", entry.due_at))
                if may_be_others:
                    consumers = await self._inspector.consumers(one.stream, one.group, limit=MAX_GROUPS)
                    others_alive = any(consumer.idle_ms < RECENT_MS for consumer in consumers.items)
            facts.append(GroupFacts(one, group.hour.per_second("handled"), others_alive, retrying))
        return facts


@dataclass(frozen=True, slots=True, eq=False)
class _ReadGroup:
    """A group as it was read."""

    snapshot: GroupSnapshot
    hour: HourOfGroup

    def overview(self, dlq: str | None, causes: Causes | None) -> GroupOverview:
        """The group with its dead-letter stream and the causes in that, as far as known."""
        hour, name = self.hour, self.snapshot.group
        values = hour.values(STEP_MINUTE)
        known = {name: [value for value in steps if value is not None] for name, steps in values.items()}
        return GroupOverview(
            **{field.name: getattr(self.snapshot, field.name) for field in fields(self.snapshot)},
            dlq=dlq,
            dead_letters=None if causes is None else sum(one.count for one in causes.items if one.group == name),
            handled_per_second=hour.per_second("handled"),
            failed_per_second=hour.per_second("failed"),
            last_hour=HourTotals(**{name: sum(steps) for name, steps in known.items()})
            if all(known.values())
            else None,
            delivered=values["delivered"],
            handled=values["handled"],
            failed=values["failed"],
            dead=values["dead"],
            handling=hour.quantiles(),
        )


@dataclass(frozen=True, slots=True)
class _ReadStream:
    """A stream as it was read."""

    snapshot: StreamSnapshot
    groups: Sequence[_ReadGroup]
    more: bool

    def overview(self, watched: Iterable[WatchedGroup], queues: Mapping[str, Causes]) -> StreamOverview:
        """The stream with its groups and their dead letters."""
        snapshot = self.snapshot
        now_ms = round(snapshot.at.timestamp() * 1000)
        appended = HourOfStream.of([one.hour for one in self.groups], snapshot.entries_added, now_ms)
        dlqs = {one.group: one.dlq_stream for one in watched if one.stream == snapshot.stream and one.dlq_stream}
        groups: list[GroupOverview] = []
        for one in self.groups:
            dlq = dlqs.get(one.snapshot.group) or dlqs.get(None)
            groups.append(one.overview(dlq, queues.get(dlq or "")))
        return StreamOverview(
            stream=snapshot.stream,
            length=snapshot.length,
            first_at=snapshot.first_at,
            last_at=snapshot.last_at,
            appended_per_second=appended.per_second(),
            appended=appended.values(STEP_MINUTE),
            groups=tuple(groups),
            more_groups=self.more,
        )


def _is_about_one_key(error: ResponseError) -> bool:
    return isinstance(error, NoPermissionError) or "WRONGTYPE" in str(error)
