"""The tracker: what was appended to streams since it began, and what their groups have not settled of it; for tests."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from redis.asyncio import Redis, RedisCluster

from rapids._core.entry_id import FIRST_ID
from rapids._storage import streams, unsettled
from rapids._storage.client.connections import Commands, SharedPool, check_client
from rapids._storage.keys import Source
from rapids._wire.entry_format import Fields, decode, event_type_in
from rapids.events import Event

__all__ = ["TrackedEntry", "Tracker", "Unsettled", "UnsettledState"]

UnsettledState: TypeAlias = Literal["undelivered", "held", "waiting"]
"""`undelivered`: the group has not read it. `held`: a consumer has it. `waiting`: it will be delivered again."""


@dataclass(frozen=True, slots=True)
class TrackedEntry:
    """An entry that was appended while it was tracked."""

    stream: str
    entry_id: str
    event: Event | None
    """Its event; None if it cannot be read."""
    fields: Fields


@dataclass(frozen=True, slots=True)
class Unsettled:
    """An entry that a group has not settled."""

    stream: str
    group: str
    entry_id: str
    state: UnsettledState
    due_in: float | None = None
    """Of a waiting one, seconds until it is due."""
    is_replay: bool = False
    """Whether it is a replay of a dead letter, with the id that it has in the group's replay stream."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is not settled at one moment, and how far the streams are."""

    unsettled: tuple[Unsettled, ...]
    last_ids: tuple[str, ...]


class Tracker:
    """Looks at streams and groups through `redis`, from `begin` on.

    `groups`: pairs of a stream and a group. `streams`: further streams, which no group of these reads. Every method
    raises `redis.exceptions.RedisError` if Redis does not answer.
    """

    def __init__(
        self, redis: Redis | RedisCluster, groups: Iterable[tuple[str, str]], streams: Iterable[str] = ()
    ) -> None:
        check_client(redis)
        self._redis = redis
        mains = [Source(stream, group) for stream, group in dict.fromkeys(groups)]
        self._owners = {source: main for main in mains for source in (main, main.replays())}
        self._streams = tuple(dict.fromkeys([*(main.stream for main in mains), *streams]))
        self._began: dict[str, str] = {}

    @property
    def streams(self) -> tuple[str, ...]:
        """The streams, without replay streams."""
        return self._streams

    async def begin(self, *also: str) -> None:
        """Track what is appended from now on. `also`: other streams of which to remember where they end."""
        names = dict.fromkeys([*self._streams, *(source.stream for source in self._owners), *also])
        self._began = {name: await streams.last_id(self._commands(name), name) or FIRST_ID for name in names}

    def began_at(self, stream: str) -> str:
        """The last id of a stream when the tracker began."""
        return self._began[stream]

    async def look(self) -> Moment:
        """What is not settled of the entries that are tracked.

        Groups are looked at one after another, so nothing was unsettled at some moment only if two looks in a row
        found nothing, with the same last ids.
        """
        found: list[Unsettled] = []
        last_ids: list[str] = []
        for source, owner in self._owners.items():
            seen = await unsettled.look(self._commands(source.stream), source, self._began[source.stream])
            last_ids.append(seen.last_id)
            for row in seen.rows:
                state: UnsettledState = "undelivered" if row.consumer is None else "held"
                due_in = None
                if row.is_waiting:
                    state, due_in = "waiting", max(((row.due_ms or 0) - seen.now_ms) / 1_000, 0.0)
                found.append(Unsettled(owner.stream, owner.group, row.entry_id, state, due_in, source.is_replay))
        return Moment(tuple(found), tuple(last_ids))

    async def hasten(self, waiting: Unsettled, most: float) -> float:
        """Let the time until a waiting entry is due pass at once. Returns how many seconds that was, 0 if it does not
        wait any more; negative if it is longer than `most` seconds: then it goes on waiting."""
        source = self._source(waiting.stream, waiting.group, is_replay=waiting.is_replay)
        commands, most_ms = self._commands(source.stream), round(most * 1_000)
        return await unsettled.hasten(commands, source, waiting.entry_id, most_ms) / 1_000

    async def entries(self) -> tuple[TrackedEntry, ...]:
        """What was appended, each stream in its order."""
        found: list[TrackedEntry] = []
        for name in self._streams:
            for entry_id, fields in await unsettled.entries_after(self._commands(name), name, self._began[name]):
                found.append(TrackedEntry(name, entry_id, _event_of(fields), fields))
        return tuple(found)

    async def append_again(self, entry: TrackedEntry) -> str:
        """Append the same event once more, as an emitter does whose first answer was lost. Returns the new id."""
        return await unsettled.append(self._commands(entry.stream), entry.stream, entry.fields)

    async def deliver_again(self, entry: TrackedEntry, group: str) -> None:
        """Deliver a settled entry to a group once more, as if the process that handled it had died before it could
        acknowledge the entry."""
        source = self._source(entry.stream, group)
        await unsettled.deliver_again(self._commands(source.stream), source, entry.entry_id)

    def _source(self, stream: str, group: str, *, is_replay: bool = False) -> Source:
        """The source of a group, which must be one of those that are tracked."""
        return next(
            source
            for source, owner in self._owners.items()
            if (owner.stream, owner.group, source.is_replay) == (stream, group, is_replay)
        )

    def _commands(self, stream: str) -> Commands:
        return SharedPool(self._redis, stream)


def _event_of(fields: Fields) -> Event | None:
    event_type = event_type_in(fields)
    try:
        return None if event_type is None else decode(event_type, fields)
    except Exception:  # an entry may hold anything
        return None
