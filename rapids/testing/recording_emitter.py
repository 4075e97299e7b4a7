"""The recording emitter: keeps what is emitted, and sends nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

from rapids.emitter import EventEmitter, as_read, events_in
from rapids.events import Event, kind_of
from rapids.testing.records import EventRecord
from rapids.testing.repetition import notes_of_emits

if TYPE_CHECKING:
    from rapids.clients import RedisClient

__all__ = ["RecordingEmitter"]


class RecordingEmitter(EventRecord, EventEmitter):
    """An emitter that keeps what is emitted. It needs no Redis, and everything that takes an `EventEmitter` takes it.

        emitter = RecordingEmitter()
        await place_order(order, emitter)
        assert emitter.only(OrderPlaced).order_id == "o-1"

    Events are kept as their readers would get them: with correlation and causation ids, written and read back. What
    `emit` refuses before it sends anything is refused here, too: `SerializationError` and `TypeError`. `stream`: the
    name that its property says.

    To see how code behaves if events cannot be stored, set `error`: then `emit` raises it and keeps nothing.
    """

    def __init__(self, stream: str = "events:all") -> None:
        super().__init__(stream=stream)
        self._recorded: list[Event] = []
        self.error: Exception | None = None
        """What `emit` raises; None to keep events."""

    @property
    def events(self) -> tuple[Event, ...]:
        """All events that were emitted, in order."""
        return tuple(self._recorded)

    @property
    def configured(self) -> bool:
        """Always true: it needs no client."""
        return True

    def configure(self, redis: "RedisClient") -> None:
        """Does nothing: it needs no client."""

    async def ping(self) -> None:
        """Does nothing: there is no server."""

    def clear(self) -> None:
        """Forget what was emitted."""
        self._recorded.clear()

    @overload
    async def emit(self, event: Event, *, caused_by: Event | None = None) -> str: ...
    @overload
    async def emit(self, event: Sequence[Event], *, caused_by: Event | None = None) -> list[str]: ...
    async def emit(self, event: Event | Sequence[Event], *, caused_by: Event | None = None) -> str | list[str]:
        """Keep an event, or several. Returns ids of entries as a stream would give them: `1-0`, `2-0` and so on.

        Raises `SerializationError` and `TypeError` as `EventEmitter.emit`, and `error` if it is set.
        """
        read = [as_read(one, caused_by) for one in events_in(event)]
        if self.error is not None:
            raise self.error
        first = len(self._recorded) + 1
        notes = notes_of_emits.get()
        if notes is not None:
            notes.events += read
        if notes is None or notes.keeps:
            self._recorded += read
        ids = [f"{number}-0" for number in range(first, first + len(read))]
        return ids[0] if kind_of(type(event)) is not None else ids
