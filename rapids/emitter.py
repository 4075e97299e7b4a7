"""The emitter: appends events to a stream."""

import asyncio
from collections.abc import Sequence, Set
from typing import overload

from redis.asyncio import Redis
from redis.exceptions import RedisError

from rapids.backoff import exponential
from rapids.correlation import get_causation_id, get_correlation_id
from rapids.events import BaseEvent, Event, GenericEvent
from rapids.exceptions import EmitError, NotConfiguredError
from rapids.settings import EmitterSettings
from rapids.storage import streams
from rapids.storage.connection import AnswerLostError, Reply, SharedPool, is_outage
from rapids.wire.events import encode

__all__ = ["EventEmitter"]

CHUNK = 1_000
"""Events sent in one round trip."""

LONGEST_DELAY = 30.0


class EventEmitter:
    """Appends events to a Redis stream.

    Options: `redis`, the client to use, or None until `configure`; `stream`, its name; `maxlen` (entries), what the
    stream is trimmed to in whole nodes as it grows, None for never; `max_retries`, how often an emit is tried in all;
    `retry_delay` (seconds), the wait after the first failure, doubled after each further one.

    Raises `ValueError` or `TypeError` for an option that makes no sense.
    """

    def __init__(
        self,
        redis: Redis | None = None,
        stream: str = "events:all",
        maxlen: int | None = 100_000,
        max_retries: int = 3,
        retry_delay: float = 0.1,
    ) -> None:
        self._settings = EmitterSettings(stream=stream, maxlen=maxlen, max_retries=max_retries, retry_delay=retry_delay)
        self._commands: SharedPool | None = None
        if redis is not None:
            self.configure(redis)

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._settings.stream

    @property
    def configured(self) -> bool:
        """Whether it has a client."""
        return self._commands is not None

    def configure(self, redis: Redis) -> None:
        """Use this client from now on. The client stays yours to close.

        Raises `TypeError` for anything but a `redis.asyncio.Redis`.
        """
        self._commands = SharedPool(redis)

    @overload
    async def emit(self, event: Event, *, caused_by: Event | None = None) -> str: ...
    @overload
    async def emit(self, event: Sequence[Event], *, caused_by: Event | None = None) -> list[str]: ...
    async def emit(self, event: Event | Sequence[Event], *, caused_by: Event | None = None) -> str | list[str]:
        """Append one event, or several in one round trip (1,000 at a time); the ids of their entries.

        Returns when Redis has stored them. The correlation id is the event's own, else that of `caused_by`, else the
        scope's; the causation id is the event's own, else the id of `caused_by`, else of the event being handled.

        Raises `EmitError` when the retries are used up, or Redis refuses for a reason that does not pass;
        `SerializationError` for what JSON cannot hold, before anything is sent; `NotConfiguredError` without a client.
        """
        if isinstance(event, Event):
            return (await self._emit([event], caused_by))[0]
        return await self._emit(list(event), caused_by)

    async def _emit(self, events: Sequence[Event], caused_by: Event | None) -> list[str]:
        if self._commands is None:
            raise NotConfiguredError(
                "the emitter has no Redis client: give EventEmitter(redis=...) one, or call emitter.configure(redis)"
            )
        entries = [_fields(event, caused_by) for event in events]
        ids: list[str] = []
        for first in range(0, len(events), CHUNK):
            chunk = events[first : first + CHUNK]
            ids += await self._store(self._commands, chunk, entries[first : first + CHUNK], events, first)
        return ids

    async def _store(
        self,
        commands: SharedPool,
        chunk: Sequence[Event],
        entries: Sequence[list[bytes]],
        events: Sequence[Event],
        before: int,
    ) -> list[str]:
        """Store a chunk: what is not stored yet is tried again until the retries are used up."""
        ids: list[str | None] = [None] * len(chunk)
        unsure = set[int]()
        attempt = 0
        while True:
            attempt += 1
            open_ = [at for at, entry_id in enumerate(ids) if entry_id is None]
            error = await self._try(commands, [entries[at] for at in open_], open_, ids)
            if error is None:
                return [entry_id for entry_id in ids if entry_id is not None]
            if isinstance(error, AnswerLostError):
                unsure.update(open_)
            if attempt >= self._settings.max_retries or not is_outage(error):
                raise self._error(events, before, ids, unsure, attempt, error) from error
            await asyncio.sleep(exponential(max_delay=LONGEST_DELAY)(attempt - 1) * self._settings.retry_delay)

    async def _try(
        self, commands: SharedPool, entries: Sequence[list[bytes]], open_: Sequence[int], ids: list[str | None]
    ) -> Exception | None:
        try:
            replies = await streams.append(commands, self._settings.stream, entries, maxlen=self._settings.maxlen)
        except (RedisError, OSError) as error:
            return error
        errors = [reply for reply in replies if isinstance(reply, Exception)]
        for at, reply in zip(open_, replies, strict=True):
            ids[at] = _entry_id(reply)
        # One that does not pass decides: there is no use in trying again.
        return next((error for error in errors if not is_outage(error)), errors[0] if errors else None)

    def _error(
        self,
        events: Sequence[Event],
        before: int,
        ids: Sequence[str | None],
        unsure: Set[int],
        attempts: int,
        cause: Exception,
    ) -> EmitError:
        done = {before + at for at, entry_id in enumerate(ids) if entry_id is not None} | set(range(before))
        unknown = {before + at for at in unsure} - done
        told = done | unknown
        first = next(event for at, event in enumerate(events) if at not in done)
        return EmitError(
            *(_type_of(first), first.id, self._settings.stream, attempts, cause),
            stored=tuple(event.id for at, event in enumerate(events) if at in done),
            not_stored=tuple(event.id for at, event in enumerate(events) if at not in told),
            unknown=tuple(event.id for at, event in enumerate(events) if at in unknown),
        )


def _fields(event: Event, caused_by: Event | None) -> list[bytes]:
    if not isinstance(event, Event):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"only events can be emitted, not {event!r}")
    inherited = (caused_by and caused_by.correlation_id) or get_correlation_id() or (caused_by and caused_by.id)
    cause = caused_by.id if caused_by else get_causation_id()
    return encode(event, correlation_id=event.correlation_id or inherited, causation_id=event.causation_id or cause)


def _entry_id(reply: Reply) -> str | None:
    return reply.decode() if isinstance(reply, bytes) else None


def _type_of(event: Event) -> str:
    return (
        event.raw_type if isinstance(event, GenericEvent) else event.event_type if isinstance(event, BaseEvent) else ""
    )
