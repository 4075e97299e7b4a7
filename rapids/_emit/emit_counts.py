"""What an emitter counts: each event once, when it is known what became of it, even if nobody waits for it any more."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import attrgetter

from rapids._core.counter_state import EventTypes, labelled
from rapids.counters import Counters, Sample
from rapids.events import Event
from rapids.observers import EmitFailed, Emitted, NotEmitted, Observer, Observers

__all__ = ["EmitCounts", "OfEmitted"]


class OfEmitted:
    """What an emitter counts for one event type."""

    __slots__ = ("emitted", "event_type", "failed")

    def __init__(self, event_type: str) -> None:
        self.event_type = event_type
        self.emitted = 0
        self.failed = defaultdict[NotEmitted, int](int)


class EmitCounts:
    """What an emitter has done since it was made, with whichever client."""

    def __init__(self, stream: str, observers: Sequence[Observer] = ()) -> None:
        self._stream = stream
        self._types = EventTypes(OfEmitted)
        self.observers = Observers(observers) if observers else None
        """None where there are none: then no detail need be made."""

    def of_raw_type(self, raw_type: bytes) -> OfEmitted:
        """What is counted for an event type, as an entry has it."""
        return self._types.by_raw_type.get(raw_type) or self._types.of(raw_type.decode())

    def emitted(self, of_type: OfEmitted, event_id: str, entry_id: str, seconds: float) -> None:
        """An event is known to be stored, `seconds` after it was given to the emitter."""
        of_type.emitted += 1
        if self.observers is not None:
            self.observers.tell(Emitted(self._stream, of_type.event_type, event_id, entry_id, seconds))

    def failed(self, of_type: OfEmitted, event_id: str, outcome: NotEmitted, error: Exception) -> None:
        """An event's emit fails."""
        of_type.failed[outcome] += 1
        if self.observers is not None:
            self.observers.tell(EmitFailed(self._stream, of_type.event_type, event_id, outcome, error))

    def unwritable(self, event: Event, error: Exception) -> None:
        """JSON cannot hold an event; nothing was sent."""
        self.failed(self._types.of(event.routing_key), event.id, "unwritable", error)

    def counters(self) -> Counters:
        """What they are now."""
        return Counters(tuple(sorted(self._samples(), key=attrgetter("name"))))

    def _samples(self) -> Iterator[Sample]:
        for of_type in self._types.all():
            labels = self._stream, of_type.event_type
            yield Sample("emitted", labelled("emitted", *labels), of_type.emitted)
            for outcome, value in of_type.failed.copy().items():
                yield Sample("emit_failed", labelled("emit_failed", *labels, outcome), value)
