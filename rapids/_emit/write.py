"""One write of the emitter: sends the entries of one or many emits, until Redis has stored each exactly once."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple, TypeAlias, cast

from redis.exceptions import RedisError

from rapids._core.counter_state import EventTypes, labelled
from rapids._core.redis_errors import is_outage
from rapids._core.settings import EmitterSettings
from rapids._emit.faults import NotReplicatedError, UnknownOutcomeError, timed_out
from rapids._storage import appends, streams
from rapids._storage.appends import LentConnection
from rapids._storage.client.connections import AnswerLostError, Reply, ServerClient
from rapids.backoff import exponential
from rapids.counters import Counters, Sample
from rapids.events import Event
from rapids.hooks import TelemetryHooks
from rapids.observers import EmitFailed, Emitted, NotEmitted, Observer, Observers

__all__ = [
    "Appended",
    "Emit",
    "EmitCounts",
    "OfEmitted",
    "Outgoing",
    "Shortfall",
    "Write",
]

MAX_DELAY = 30.0
REPLICATION_TIMEOUT_MS = 1_000

LARGE = 65_536
"""Bytes from which an entry has a round trip of its own. A server may refuse it by closing the connection, and then
answers nothing that was sent with it. No setting of a server allows less than 1 MB."""

CLOCK_LEAP = 5.0
"""Seconds by which the server's clock may be set forward during a write without missing an entry."""


class OfEmitted:
    """What an emitter counts for one event type."""

    __slots__ = ("emitted", "event_type", "failed")

    def __init__(self, event_type: str) -> None:
        self.event_type = event_type
        self.emitted = 0
        self.failed = defaultdict[NotEmitted, int](int)


class EmitCounts:
    """What an emitter has done since it was created, with all its clients."""

    def __init__(self, stream: str, observers: Sequence[Observer] = ()) -> None:
        self._stream = stream
        self._types = EventTypes(OfEmitted)
        self.observers = Observers(observers) if observers else None
        """None if there are no observers: then no details are created."""
        self.telemetry: TelemetryHooks | None = None

    def of_raw_type(self, raw_type: bytes) -> OfEmitted:
        """What is counted for an event type, given as the bytes in an entry."""
        return self._types.by_raw_type.get(raw_type) or self._types.of(raw_type.decode())

    def emitted(self, of_type: OfEmitted, event_id: str, entry_id: str, seconds: float) -> None:
        """Count an event that is known to be stored, `seconds` after it was given to the emitter."""
        of_type.emitted += 1
        if self.observers is not None:
            self.observers.tell(Emitted(self._stream, of_type.event_type, event_id, entry_id, seconds))

    def failed(self, of_type: OfEmitted, event_id: str, outcome: NotEmitted, error: Exception) -> None:
        """Count an event whose emit fails."""
        of_type.failed[outcome] += 1
        if self.observers is not None:
            self.observers.tell(EmitFailed(self._stream, of_type.event_type, event_id, outcome, error))

    def unsent(self, event: Event, outcome: NotEmitted, error: Exception) -> None:
        """Count an event of which nothing was sent."""
        self.failed(self._types.of(event.routing_key), event.id, outcome, error)

    def counters(self) -> Counters:
        """The present values."""
        samples: list[Sample] = []
        for of_type in self._types.all():
            labels = self._stream, of_type.event_type
            samples.append(Sample("emitted", labelled("emitted", *labels), of_type.emitted))
            for outcome, value in of_type.failed.copy().items():
                samples.append(Sample("emit_failed", labelled("emit_failed", *labels, outcome), value))
        return Counters(tuple(sorted(samples, key=attrgetter("name"))))


class Outgoing(NamedTuple):
    """An event to be sent: its id, the packed command that appends it, and the counts of its type."""

    event_id: str
    packed: bytes
    counts: OfEmitted


@dataclass(frozen=True, slots=True)
class Shortfall:
    """An incomplete emit: the entry id of each of its stored entries, and why the others are not stored.

    Or all are stored, but fewer replicas than required have them.
    """

    ids: Sequence[str | None]
    unsure: Set[int]
    """The positions of entries that may or may not be stored."""
    attempts: int
    error: Exception


Appended: TypeAlias = Sequence[str] | Shortfall
"""The result of an emit: the ids of its entries in order, or a shortfall."""


class Emit:
    """Entries that one caller waits for: all of them are in the same write."""

    __slots__ = ("_began", "_counts", "_is_settled", "deadline", "done", "outgoing")

    def __init__(
        self, outgoing: Sequence[Outgoing], done: "asyncio.Future[Appended]", counts: EmitCounts, deadline: float
    ) -> None:
        self.outgoing = outgoing
        self.done = done
        self.deadline = deadline
        """The event loop's time at which the caller gets a result in any case."""
        self._counts = counts
        self._is_settled = False
        self._began = 0.0 if counts.observers is None else time.monotonic()

    def settle(self, appended: Appended) -> None:
        """Count the result, and give it to the caller, if it still waits. Only the first call counts."""
        if self._is_settled:
            return
        self._is_settled = True
        if not self.done.done():
            self.done.set_result(appended)
        if self._counts.observers is None and not isinstance(appended, Shortfall):  # the fast path
            for one in self.outgoing:
                one.counts.emitted += 1
            return
        seconds = 0.0 if self._counts.observers is None else time.monotonic() - self._began
        ids = appended.ids if isinstance(appended, Shortfall) else appended
        for one, entry_id in zip(self.outgoing, ids, strict=True):
            if entry_id is not None:
                self._counts.emitted(one.counts, one.event_id, entry_id, seconds)
        if not isinstance(appended, Shortfall):
            return
        for at, (one, entry_id) in enumerate(zip(self.outgoing, ids, strict=True)):
            if entry_id is None:
                outcome = "unknown" if at in appended.unsure else "not_stored"
                self._counts.failed(one.counts, one.event_id, outcome, appended.error)
            elif isinstance(appended.error, NotReplicatedError):
                self._counts.failed(one.counts, one.event_id, "unreplicated", appended.error)


class Write:
    """Sends the entries of some emits until all are stored or refused, or the retries are used up.

    An emit gets its result as soon as its own entries have theirs; it does not wait for the others.

    If an answer was lost, the next attempt first finds out what is stored: it lets the server close the connection of
    the lost commands, so that they have run by then or never run, and searches for the events in the later entries.
    """

    def __init__(
        self,
        commands: LentConnection,
        settings: EmitterSettings,
        emits: Sequence[Emit],
        since: str | None,
    ) -> None:
        self._commands = commands
        self._settings = settings
        self.emits = list(emits)
        self._outgoing = [one for emit in emits for one in emit.outgoing]
        self._since = since
        """The last entry id known before the first attempt: entries of this write come after it."""
        self._ids: list[str | None] = [None] * len(self._outgoing)
        self._refused: dict[int, Exception] = {}
        """The positions that are not tried again, and why."""
        self._under_way: Sequence[int] = ()
        """The positions of entries that are being sent now."""
        self._latest: Exception | None = None
        """The error of the latest attempt."""
        self._deadline = max([emit.deadline for emit in emits])
        """When the last of the emits gets its result in any case, by the event loop's time."""
        self._unsure: set[int] = set()
        self._lost_clients: set[ServerClient | None] = set()
        self._attempts = 0
        self._confirmed = not settings.replicas
        """Whether the required number of replicas has all entries that are known to be stored."""
        self._began = time.monotonic()

    @property
    def last_id(self) -> str | None:
        """A recent entry id that this write got, or knew before: the next entries come after it."""
        return next((entry_id for entry_id in reversed(self._ids) if entry_id is not None), self._since)

    async def run(self) -> None:
        """Do the write. Raises nothing: each emit gets its result."""
        self._commands.deadline = self._deadline
        while True:
            self._attempts += 1
            error = self._latest = await self._attempt()
            if error is None or not is_outage(error) or self._attempts >= self._settings.max_retries:
                self._settle(error)
                return
            if self._confirmed:
                self._settle(None, finished_only=True)
            pause = exponential(max_delay=MAX_DELAY)(self._attempts - 1) * self._settings.retry_delay
            if asyncio.get_running_loop().time() + pause >= self._deadline:
                self._settle(error)
                return
            await asyncio.sleep(pause)

    def expire(self, now: float) -> None:
        """Give a result to the emits whose deadline has passed. Their open entries are not sent again."""
        first = 0
        for emit in self.emits:
            end = first + len(emit.outgoing)
            if emit.deadline <= now and not emit.done.done():
                error = timed_out(self._settings.timeout, self._latest)
                open_ = [at for at in self._open_positions() if first <= at < end]
                self._unsure.update(set(open_).intersection(self._under_way))
                emit.settle(self._result(first, end, error))
                self._refused.update(dict.fromkeys(open_, error))
            first = end

    def abandon(self, error: Exception) -> None:
        """End the write with an error for all waiting callers: it is unknown whether sent entries are stored."""
        self._unsure.update(self._open_positions())
        self._settle(error)

    def _open_positions(self) -> list[int]:
        return [at for at, entry_id in enumerate(self._ids) if entry_id is None and at not in self._refused]

    async def _attempt(self) -> Exception | None:
        """Store what is not stored yet. Returns the error that prevented it for some entries, if any."""
        try:
            if self._since is None:
                self._since = await streams.last_id(self._commands, self._settings.stream) or "0-0"
            if not self._confirmed:  # another server may be the master now, without the unconfirmed entries
                self._unsure.update(at for at, entry_id in enumerate(self._ids) if entry_id is not None)
            if self._unsure:
                await self._make_sure(self._since)
            if not self._commands.is_ready:
                await self._commands.connect()  # an emit that expires before it is sent is known to be not stored
            if open_ := self._open_positions():
                if large := {at for at in open_ if len(self._outgoing[at].packed) >= LARGE}:
                    return await self._send_apart(open_, large)
                return await self._send(open_)
            if not (replicas := self._settings.replicas):
                return None
            # All entries were found to be stored, but the lost answers included the replicas'.
            confirmed = await appends.replicated(
                self._commands, self._settings.stream, replicas=replicas, timeout_ms=REPLICATION_TIMEOUT_MS
            )
            return self._replication_fault([confirmed])
        except (RedisError, OSError) as error:
            return error

    async def _send_apart(self, open_: Sequence[int], large: Set[int]) -> Exception | None:
        """Send each large entry in its own round trip, so that what it meets does not fail those of other emits."""
        emit_of = [emit for emit in self.emits for _ in emit.outgoing]
        failed: set[Emit] = set()
        latest: Exception | None = None
        if self._attempts > 1:  # emits with a large entry come last
            last = {emit_of[at] for at in large}
            open_ = sorted(open_, key=lambda at: emit_of[at] in last)
        trips: list[list[int]] = [[]]
        for at in open_:
            if at in large:
                trips += [at], []
            else:
                trips[-1].append(at)
        for together in trips:
            try:
                if not self._commands.is_ready:  # the server may have closed the connection
                    await self._commands.connect()
            except (RedisError, OSError) as error:
                return error
            # An emit's entries are stored in order, so the rest of an emit that failed is left for the next attempt.
            rest = [at for at in together if at not in self._refused and emit_of[at] not in failed]
            error = await self._send(rest) if rest else None
            if error is not None:
                latest = error
                failed.update([emit_of[at] for at in rest])
            if not large.isdisjoint(rest) and (error is not None or not self._refused.keys().isdisjoint(rest)):
                await self._commands.drop_connection()  # until it ends, the server keeps its memory for the entry
            if self._confirmed:
                self._settle(None, finished_only=True)
        return latest

    async def _send(self, open_: Sequence[int]) -> Exception | None:
        self._under_way = open_
        try:
            replies = await appends.append(
                self._commands,
                [self._outgoing[at].packed for at in open_],
                replicas=self._settings.replicas,
                replication_timeout_ms=REPLICATION_TIMEOUT_MS,
            )
        except AnswerLostError as error:
            self._unsure.update(open_)
            if error.is_under_way:
                self._lost_clients.add(error.client)
            return error
        except (RedisError, OSError) as error:
            return error
        finally:
            self._under_way = ()
        fault: Exception | None = None
        for at, reply in zip(open_, replies, strict=False):
            if isinstance(reply, bytes):
                self._ids[at] = reply.decode()
            elif isinstance(reply, Exception) and is_outage(reply):
                fault = reply
            else:
                self._refused[at] = reply
        unmet = self._replication_fault(replies[len(open_) :])
        return fault or unmet

    async def _make_sure(self, since: str) -> None:
        """Find out which of the unsure entries are stored. Raises `UnknownOutcomeError` if that is impossible."""
        for client in list(self._lost_clients):
            if client is None:
                raise UnknownOutcomeError("the connection was lost before its client id was known")
            await appends.kill_client(self._commands, client)
            self._lost_clients.discard(client)
        positions = defaultdict[str, list[int]](list)
        for at in sorted(self._unsure, reverse=True):
            positions[self._outgoing[at].event_id].append(at)
        self._confirmed = not self._settings.replicas
        age_ms = round((time.monotonic() - self._began + CLOCK_LEAP) * 1000)
        found, complete = await appends.find_events(
            self._commands, self._settings.stream, since, list(positions), age_ms=age_ms
        )
        for event_id, entry_id in found:
            if positions[event_id]:  # one event may be in the write twice, and may be found twice
                self._ids[at := positions[event_id].pop()] = entry_id
                self._unsure.discard(at)
        if not complete and self._unsure:
            raise UnknownOutcomeError(
                "it cannot be looked up: too many entries were added since then, or some of them were trimmed"
            )
        for at in self._unsure:
            self._ids[at] = None
        self._unsure.clear()

    def _replication_fault(self, replies: Sequence[Reply]) -> Exception | None:
        wanted = self._settings.replicas
        self._confirmed = not wanted or (bool(replies) and isinstance(replies[0], int) and replies[0] >= wanted)
        if self._confirmed or not replies:
            return None
        return NotReplicatedError(
            f"stored, but {replies[0]} of {wanted} replicas confirmed it within {REPLICATION_TIMEOUT_MS} ms"
        )

    def _settle(self, error: Exception | None, *, finished_only: bool = False) -> None:
        """Give every emit its result. `error`: why open entries are not stored or not confirmed.

        `finished_only`: leave out the emits with open entries, since those are tried again.
        """
        first = 0
        for emit in self.emits:
            end = first + len(emit.outgoing)
            if not finished_only or all(self._ids[at] is not None or at in self._refused for at in range(first, end)):
                emit.settle(self._result(first, end, error))
            first = end

    def _result(self, first: int, end: int, error: Exception | None) -> Appended:
        ids = self._ids[first:end]
        refusal = next((self._refused[at] for at in range(first, end) if at in self._refused), None)
        if None not in ids:
            if self._confirmed:
                return cast("list[str]", ids)
            if not isinstance(error, NotReplicatedError):
                error = NotReplicatedError(f"stored, but whether replicas have it is not known: {error}")
        unsure = {at - first for at in self._unsure if first <= at < end}
        why = refusal or error or RedisError("nothing is known of it")
        return Shortfall(ids, unsure, self._attempts, why)
