"""The emitter: appends events to a stream."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Iterable, Mapping, Sequence
from typing import cast, overload

from pydantic import BaseModel
from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import telemetry as check_telemetry
from rapids._core.settings import EmitterSettings
from rapids._emit.faults import timed_out
from rapids._emit.group_commit import Appender
from rapids._emit.write import EmitCounts, Outgoing, Shortfall
from rapids._storage import streams
from rapids._storage.client.connections import SharedPool
from rapids._wire.encoding import check_readable, encode, encode_values
from rapids._wire.entry_format import decode
from rapids._wire.trace_context import trace_values
from rapids.correlation import get_causation_id, get_correlation_id
from rapids.counters import Counters
from rapids.events import UNCHECKED, BaseEvent, Event, GenericEvent, kind_of
from rapids.exceptions import EmitError, NotConfiguredError, SerializationError
from rapids.hooks import TelemetryHooks, TraceContext
from rapids.observers import Observer

__all__ = ["EventEmitter", "as_read", "events_in", "ids_for"]

NO_CLIENT = "the emitter has no Redis client: give EventEmitter(redis=...) one, or call emitter.configure(redis)"

CHUNK = 1_000
"""How many events are sent in one round trip."""

SHOWN = 200
"""How many characters of something that is no event are shown in an error."""

CLASSES = 1_024
"""How many classes an emitter remembers as readable."""


class EventEmitter:
    """Appends events to a Redis stream.

    Options: `redis`, the client to use, or None until `configure`; `stream`, the stream's name; `maxlen` (entries), the
    length to which the growing stream is trimmed, in whole nodes, or None for no limit; `max_retries`, how often an
    emit is tried in total; `retry_delay` (seconds), the wait after the first failure, doubled after each further one;
    `replicas`, how many replicas must confirm an event (WAIT) before `emit` returns; `observers`, plain functions of
    one detail (see `rapids.observers`), called with the result of each event; `timeout` (seconds), after which an emit
    raises `EmitError` in any case, whatever it waits for.

    Raises `ValueError` or `TypeError` for an option that makes no sense.
    """

    def __init__(
        self,
        redis: Redis | RedisCluster | None = None,
        stream: str = "events:all",
        maxlen: int | None = 100_000,
        max_retries: int = 3,
        retry_delay: float = 0.1,
        replicas: int = 0,
        observers: Sequence[Observer] = (),
        timeout: float = 15.0,
    ) -> None:
        self._settings = EmitterSettings(
            stream=stream,
            maxlen=maxlen,
            max_retries=max_retries,
            retry_delay=retry_delay,
            replicas=replicas,
            observers=observers,
            timeout=timeout,
        )
        self._counts = EmitCounts(stream, observers)
        self._readable: set[type[Event]] = set()
        """The classes whose first event was read back before it was sent."""
        self._appender: Appender | None = None
        self._redis: Redis | RedisCluster | None = None
        if redis is not None:
            self.configure(redis)

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._settings.stream

    @property
    def configured(self) -> bool:
        """Whether it has a client."""
        return self._appender is not None

    @property
    def counters(self) -> Counters:
        """What this emitter has done since it was created. Needs no round trip. Any thread may call it."""
        return self._counts.counters()

    def configure(self, redis: Redis | RedisCluster) -> None:
        """Use this client from now on. Closing the client remains the caller's task.

        Raises `TypeError` for anything but a `redis.asyncio.Redis` or `RedisCluster`.
        """
        self._appender = Appender(redis, self._settings, self._counts)
        self._redis = redis

    def use_telemetry(self, telemetry: TelemetryHooks | None) -> None:
        """Report each emit to this telemetry from now on, and put the context of its span into the entries.

        `rapids.telemetry.OpenTelemetry()` is one; None reports nothing. Raises `TypeError` for anything else.
        """
        self._counts.telemetry = check_telemetry("telemetry", telemetry)

    async def ping(self) -> None:
        """Return when the stream's server has answered.

        Raises `NotConfiguredError` without a client, `redis.exceptions.RedisError` or `OSError` if it does not answer.
        """
        if self._redis is None:
            raise NotConfiguredError(NO_CLIENT)
        await streams.ping(SharedPool(self._redis, self._settings.stream))

    async def drain(self) -> None:
        """Wait until all writes have ended. For a shutdown, after the last `emit`."""
        if self._appender is not None:
            await self._appender.drain()

    @overload
    async def emit(self, event: Event, *, caused_by: Event | None = None) -> str: ...
    @overload
    async def emit(self, event: Sequence[Event], *, caused_by: Event | None = None) -> list[str]: ...
    async def emit(self, event: Event | Sequence[Event], *, caused_by: Event | None = None) -> str | list[str]:
        """Append one event, or several in one round trip (1,000 at a time). Returns the ids of their entries.

        It returns when Redis has stored them. Emits that arrive during a write are sent together in the next write, in
        the order of their arrival. A cancelled emit disturbs no other emit; its event is stored if its write had begun.
        An event of 64 KB or more has a round trip of its own, so that only its own emit fails if Redis refuses it.

        The correlation id is the event's own, else that of `caused_by`, else the scope's. The causation id is the
        event's own, else the id of `caused_by`, else the id of the event being handled.

        If the answer to an emit was lost, the emitter looks for the event before it tries again, so that no event is
        stored twice.

        Raises `EmitError` when the retries are used up or the `timeout` is over, when Redis refuses for a permanent
        reason, or when fewer than `replicas` confirmed in time (the events are stored then, and the error says so);
        `SerializationError` for what JSON cannot hold, and for an event that its own class would not read back (the
        first event of each class is tried), before anything is sent; `TypeError` for anything but events;
        `NotConfiguredError` without a client, and while the emitter is in use on another running event loop.
        """
        appender = self._appender
        if appender is None:
            raise NotConfiguredError(NO_CLIENT)
        deadline = asyncio.get_running_loop().time() + self._settings.timeout
        if self._counts.telemetry is not None:
            return await self._emit_reported(self._counts.telemetry, appender, event, caused_by, deadline)
        if appender.is_full:
            await self._room(appender, event, deadline)
        if kind_of(type(event)) is not None:
            event = cast(Event, event)
            appended = await appender.append((self._outgoing(appender, event, caused_by),), deadline)
            if isinstance(appended, Shortfall):
                raise self._error((event,), 0, appended) from appended.error
            return appended[0]
        events = events_in(event)
        outgoing = [self._outgoing(appender, one, caused_by) for one in events]
        return await self._append(appender, events, outgoing, deadline)

    async def _room(self, appender: Appender, event: Event | Sequence[Event], deadline: float) -> None:
        """Wait for room before the event is encoded, so that no copy waits here."""
        try:
            await appender.room(deadline)
        except TimeoutError:
            error = timed_out(self._settings.timeout)
            events = events_in(event)
            for one in events:
                self._counts.unsent(one, "not_stored", error)
            raise self._error(events, 0, Shortfall([None] * len(events), frozenset(), 0, error)) from error

    async def _emit_reported(
        self,
        telemetry: TelemetryHooks,
        appender: Appender,
        given: Event | Sequence[Event],
        caused_by: Event | None,
        deadline: float,
    ) -> str | list[str]:
        """Emit what was given, and report it to the telemetry."""
        events = events_in(given)
        if not events:
            return []
        sending = telemetry.sending(self.stream, events, ids_for(events[0], caused_by)[0])
        is_sent = False
        try:
            if appender.is_full:
                await self._room(appender, events, deadline)
            outgoing = [
                self._outgoing(appender, event, caused_by, context)
                for event, context in zip(events, sending.contexts, strict=True)
            ]
            is_sent = True
            ids = await self._append(appender, events, outgoing, deadline)
        except BaseException as error:
            sending.failed(error, is_sent=is_sent)
            raise
        sending.sent()
        return ids[0] if kind_of(type(given)) is not None else ids

    async def _append(
        self, appender: Appender, events: Sequence[Event], outgoing: Sequence[Outgoing], deadline: float
    ) -> list[str]:
        ids: list[str] = []
        for first in range(0, len(outgoing), CHUNK):
            appended = await appender.append(outgoing[first : first + CHUNK], deadline)
            if isinstance(appended, Shortfall):
                for one in outgoing[first + CHUNK :]:  # these were never sent
                    self._counts.failed(one.counts, one.event_id, "not_stored", appended.error)
                raise self._error(events, first, appended) from appended.error
            ids += appended
        return ids

    def _outgoing(
        self, appender: Appender, event: Event, caused_by: Event | None, context: TraceContext | None = None
    ) -> Outgoing:
        correlation_id, causation_id = ids_for(event, caused_by)
        try:
            values = encode_values(event, correlation_id, causation_id)
            if type(event) not in self._readable or UNCHECKED in event.__dict__:
                check_readable(event, values)
                if len(self._readable) >= CLASSES:
                    self._readable.clear()
                self._readable.add(type(event))
        except SerializationError as error:
            self._counts.unsent(event, "unwritable", error)
            raise
        if context is None:
            packed = appender.pack(values)
        else:
            traced = trace_values(context)
            packed = appender.pack_traced[len(traced)]((*values, *traced))
        return Outgoing(event.id, packed, self._counts.of_raw_type(values[0]))

    def _error(self, events: Sequence[Event], before: int, shortfall: Shortfall) -> EmitError:
        stored = {before + at for at, entry_id in enumerate(shortfall.ids) if entry_id is not None} | set(range(before))
        unknown = {before + at for at in shortfall.unsure}
        missing = [at for at in range(len(events)) if at not in stored]
        first = events[missing[0] if missing else before]
        return EmitError(
            event_type=first.routing_key if isinstance(first, BaseEvent | GenericEvent) else "",
            event_id=first.id,
            stream=self._settings.stream,
            attempts=shortfall.attempts,
            cause=shortfall.error,
            stored=tuple(events[at].id for at in sorted(stored)),
            not_stored=tuple(events[at].id for at in missing if at not in unknown),
            unknown=tuple(events[at].id for at in missing if at in unknown),
        )


def events_in(given: object) -> list[Event]:
    """The events in what was given to `emit`: one event, or events in anything that can be iterated.

    Raises `TypeError` for anything else, which says what it is, and of a wrong item its position.
    """
    if kind_of(type(given)) is not None:
        return [cast(Event, given)]
    if isinstance(given, str | bytes | bytearray | Mapping | BaseModel) or not isinstance(given, Iterable):
        raise TypeError(f"only events can be emitted, not {_described(cast(object, given))}")
    events = list(cast("Iterable[Event]", given))
    for position, event in enumerate(events):
        if kind_of(type(event)) is None:
            raise TypeError(f"only events can be emitted, not {_described(event)}, which is at position {position}")
    return events


def _described(thing: object) -> str:
    """A thing that is no event, and what its caller may have meant."""
    match thing:
        case type():
            what = f"the class {thing.__qualname__}"
            return f"{what}: write {thing.__name__}(...)" if kind_of(thing) is not None else what
        case AsyncIterable():
            return f"{thing!r}: collect its events first, [event async for event in ...]"
        case Awaitable():
            return f"{thing!r}: await it first"
        case _:
            text = repr(thing)
            return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({type(thing).__name__})"


def ids_for(event: Event, caused_by: Event | None) -> tuple[str | None, str | None]:
    """The correlation and causation ids that `emit` would give an event here and now.

    Correlation: the event's own, else that of `caused_by`, else the scope's, else the id of `caused_by`, which then
    starts a correlation. Causation: the event's own, else the id of `caused_by`, else the id of the event being
    handled.

    Raises `TypeError` for a `caused_by` that is no event.
    """
    if caused_by is not None and kind_of(type(caused_by)) is None:
        raise TypeError(f"caused_by must be an event or None, not {_described(caused_by)}")
    inherited = (caused_by and caused_by.correlation_id) or get_correlation_id() or (caused_by and caused_by.id)
    cause = caused_by.id if caused_by else get_causation_id()
    return event.correlation_id or inherited, event.causation_id or cause


def as_read(event: Event, caused_by: Event | None = None) -> Event:
    """The event as its readers would get it if `emit` stored it here and now: with its ids, written and read back.

    For emitters that store nothing, such as that of `rapids.testing`. Raises what `emit` raises before it sends
    anything: `SerializationError` and `TypeError`.
    """
    correlation_id, causation_id = ids_for(event, caused_by)
    fields = encode(event, correlation_id=correlation_id, causation_id=causation_id)
    check_readable(event, fields[1::2])
    return decode(fields[1].decode(), fields)
