"""What an emitter has done, counted for each event type and reported to its observers."""

from collections import defaultdict
from collections.abc import Sequence
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
    """What an emitter has done since it was created, with all its clients."""

    def __init__(self, stream: str, observers: Sequence[Observer] = ()) -> None:
        self._stream = stream
        self._types = EventTypes(OfEmitted)
        self.observers = Observers(observers) if observers else None
        """None if there are no observers: then no details are created."""

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
