"""The values of the counters: increased in one event loop without locks, read from any thread."""

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import add, attrgetter, itemgetter
from types import MappingProxyType
from typing import Generic, TypeVar

from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._wire.entry_format import event_type_in
from rapids.counters import COUNTERS, HISTOGRAMS, OTHER, UNREADABLE, Counters, Distribution, Sample
from rapids.events import TYPE_LIMIT
from rapids.hooks import TelemetryHooks
from rapids.observers import Delivered, LeaseLost, Lost, Observer, Observers, OutageEnded, OutageStarted, Trimmed

__all__ = ["Counts", "EventTypes", "OfType", "Times", "TimesOfType", "labelled"]

MAX_EVENT_TYPES = 1_000
"""How many event types are counted separately. A stream may hold any number of types, also hostile ones."""

MAX_MEASURED_TYPES = 100
"""How many event types have histograms of their own, which are as long as 17 counters each."""

C = TypeVar("C")

_fields_of: Callable[[RawEntry], Sequence[bytes]] = itemgetter(2)
"""The positions of an entry's fields: access by position is faster than by name in a named tuple."""


class EventTypes(Generic[C]):
    """What is counted for each event type, and together for all types after the first ones."""

    def __init__(self, make: Callable[[str], C], most: int = MAX_EVENT_TYPES) -> None:
        self._make = make
        self._most = most
        self._by_type: dict[str, C] = {}
        self.by_raw_type: dict[bytes, C] = {}
        """The same by the raw type in an entry, for the fast path."""

    def of(self, event_type: str | None) -> C:
        """What is counted for a type; None for one that cannot be read."""
        name = event_type or UNREADABLE
        if (found := self._by_type.get(name)) is not None:
            return found
        is_too_much = len(self._by_type) >= self._most or len(name) > TYPE_LIMIT
        if is_too_much and name not in (OTHER, UNREADABLE):
            return self.of(OTHER)
        raw = name.encode(errors="backslashreplace")
        if (fit_to_show := raw.decode()) != name:
            return self.of(fit_to_show)
        made = self._by_type[name] = self._make(name)
        if event_type:
            self.by_raw_type[raw] = made
        return made

    def all(self) -> list[C]:
        """All of them, copied in one step, since another thread may call this."""
        return list(self._by_type.values())


class Times:
    """What a histogram has measured for one set of labels."""

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, histogram: str) -> None:
        self._bounds: tuple[float, ...] = HISTOGRAMS[histogram].bounds
        self.counts: list[int] = [0] * (len(self._bounds) + 1)
        self.sum: float = 0.0

    def add(self, seconds: float) -> None:
        """Count a time."""
        self.counts[bisect_left(self._bounds, seconds)] += 1
        self.sum += seconds


class TimesOfType:
    """What a router measures for one event type. Mappings are by handler."""

    __slots__ = ("delay", "event_type", "handling")

    def __init__(self, event_type: str) -> None:
        self.event_type: str = event_type
        self.delay: Times = Times("delay")
        self.handling: dict[str, Times] = {}

    def of_handler(self, handler: str) -> Times:
        """How long a handler runs."""
        return self.handling.setdefault(handler, Times("handling"))


class OfType:
    """What a router counts for one event type. Mappings are by handler."""

    __slots__ = ("dead", "delivered", "event_type", "failed", "handled", "parked", "retried", "times")

    def __init__(self, event_type: str) -> None:
        self.event_type: str = event_type
        self.delivered: int = 0
        self.parked: int = 0
        self.handled: dict[str, int] = {}
        """A plain dict, since every entry uses it. The handlers are in it before they run: see `expect`."""
        self.failed: defaultdict[str, int] = defaultdict(int)
        self.retried: defaultdict[str, int] = defaultdict(int)
        self.dead: defaultdict[tuple[str, str], int] = defaultdict(int)
        """By handler and reason."""
        self.times: TimesOfType | None = None
        """None until something is measured."""

    def expect(self, handlers: Iterable[str]) -> None:
        """Prepare for these handlers to run for events of the type."""
        for handler in handlers:
            self.handled.setdefault(handler, 0)


class Counts:
    """What a router has done since it was created, in all its runs."""

    def __init__(
        self,
        stream: str,
        group: str,
        observers: Sequence[Observer] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._group = group
        self.observers: Observers | None = Observers(observers) if observers else None
        """None if there are no observers: then no details are created."""
        self.telemetry: TelemetryHooks | None = None
        self._clock = clock
        self._types = EventTypes(OfType)
        self._measured = EventTypes(TimesOfType, MAX_MEASURED_TYPES)
        self.measures: bool = False
        """Whether there are histograms. It does not change while the router runs."""
        self._handlers = frozenset[str]()
        self._lost = {"unread": 0, "pending": 0, "held": 0}
        self._gaps = 0
        self._lease_lost = 0
        self._outages = 0
        self._outage: tuple[float, float | None] = 0.0, None
        """The total length of outages that have ended (seconds), and when the current one began (by the clock).

        It is one value, since other threads read it."""
        self.ignored = 0
        self.acked = 0
        self.kept = 0
        self.handed_back = 0
        self.of_type: Callable[[str | None], OfType] = self._types.of
        """What is counted for an event type; None for one that cannot be read."""

    def know_handlers(self, names: Sequence[str]) -> None:
        """Set which handlers exist. All others, which only a hostile replay can name, are counted as one."""
        self._handlers |= frozenset(names)

    def handler(self, name: str) -> str:
        """The label of a handler."""
        return name if not name or name in self._handlers else OTHER

    def delivered(self, entries: Sequence[RawEntry]) -> None:
        """Count entries that were delivered to this consumer."""
        types, observers = self._types.by_raw_type, self.observers
        # In nearly all entries the type is the first field and is known already: they cost only one look-up.
        left, fields = map(_fields_of, entries), list[bytes]()
        while True:
            try:
                for fields in left:
                    types[fields[1]].delivered += 1
                break
            except LookupError:
                self._types.of(event_type_in(fields)).delivered += 1
        if self.telemetry is not None:
            self.telemetry.delivered(self._stream, self._group, len(entries))
        if observers is not None:
            for entry in entries:
                source, entry_id = entry.source, entry.entry_id.decode()
                event_type = self._types.of(event_type_in(entry.fields)).event_type
                observers.tell(Delivered(source.stream, source.group, entry_id, event_type, entry.deliveries))

    def times_of(self, of_type: OfType) -> TimesOfType:
        """What is measured for an event type."""
        if (times := of_type.times) is None:
            times = of_type.times = self._measured.of(of_type.event_type)
        return times

    def begun(self, of_type: OfType, entry_id: bytes, now: float) -> None:
        """Measure how long an entry waited until its first handler begins, at `now` by the server's clock (seconds)."""
        waited = now - int(entry_id.partition(b"-")[0]) / 1000
        self.times_of(of_type).delay.add(waited if waited > 0 else 0.0)

    def lost(
        self,
        count: int | None,
        when: Trimmed = "unread",
        *,
        entry_ids: Sequence[str] = (),
        stream: str | None = None,
    ) -> None:
        """Count entries that were trimmed before the group had finished them; `count` is None if it is unknown."""
        self._gaps += 1
        self._lost[when] += count or 0
        if self.observers is not None:
            self.observers.tell(Lost(stream or self._stream, self._group, count, when, tuple(entry_ids)))

    def lease_lost(self, source: Source, entry_id: bytes) -> None:
        """Count an entry that this consumer could not settle, since it was no longer its own."""
        self._lease_lost += 1
        if self.observers is not None:
            self.observers.tell(LeaseLost(source.stream, source.group, entry_id.decode()))

    def outage_started(self, operation: str, error: Exception) -> None:
        """Note that Redis is unavailable."""
        before, since = self._outage
        if since is not None:
            return
        self._outages += 1
        self._outage = before, self._clock()
        if self.observers is not None:
            self.observers.tell(OutageStarted(self._stream, self._group, operation, error))

    def outage_ended(self) -> float:
        """Note that Redis is available again, or that retrying has stopped. The length of the outage in seconds."""
        before, since = self._outage
        if since is None:
            return 0.0
        seconds = self._clock() - since
        self._outage = before + seconds, None
        if self.observers is not None:
            self.observers.tell(OutageEnded(self._stream, self._group, seconds))
        return seconds

    def totals(self, names: Sequence[str]) -> list[int]:
        """The sums of counters of handlers or event types, and of the ranges of `handling`, over all labels."""
        values = dict.fromkeys(names, 0)
        for of_type in self._types.all():
            for name in names:
                counted: int | Mapping[object, int] = getattr(of_type, name)
                values[name] += counted if isinstance(counted, int) else sum(counted.values())
        ranges = [0] * (len(HISTOGRAMS["handling"].bounds) + 1)
        for measured in self._measured.all():
            for times in measured.handling.values():
                ranges = list(map(add, ranges, times.counts))
        return [*values.values(), *ranges]

    def counters(self) -> Counters:
        """The present values."""
        ended, since = self._outage
        of_group = {
            "ignored": self.ignored,
            "acked": self.acked,
            "kept": self.kept,
            "handed_back": self.handed_back,
            "lease_lost": self._lease_lost,
            "gaps": self._gaps,
            "outages": self._outages,
            "outage_seconds": ended + (0.0 if since is None else self._clock() - since),
        }
        samples = [self._sample(name, value) for name, value in of_group.items()]
        samples += [self._sample("lost", value, when) for when, value in self._lost.items()]
        for of_type in self._types.all():
            event_type = of_type.event_type
            samples.append(self._sample("delivered", of_type.delivered, event_type))
            samples.append(self._sample("parked", of_type.parked, event_type))
            by_handler = {"handled": of_type.handled, "failed": of_type.failed, "retried": of_type.retried}
            for name, values in by_handler.items():
                samples += [self._sample(name, value, event_type, handler) for handler, value in values.copy().items()]
            for (handler, reason), value in of_type.dead.copy().items():
                samples.append(self._sample("dead", value, event_type, handler, reason))
        return Counters(tuple(sorted(samples, key=attrgetter("name"))), tuple(self._distributions()))

    def _distributions(self) -> Iterator[Distribution]:
        for measured in self._measured.all():
            event_type = measured.event_type
            for handler, times in measured.handling.copy().items():
                yield self._distribution("handling", times, event_type, handler)
            if any(measured.delay.counts):
                yield self._distribution("delay", measured.delay, event_type)

    def _distribution(self, name: str, times: Times, *labels: str) -> Distribution:
        values = dict(zip(HISTOGRAMS[name].labels, (self._stream, self._group, *labels), strict=True))
        return Distribution(name, MappingProxyType(values), tuple(times.counts), times.sum)

    def _sample(self, name: str, value: float, *labels: str) -> Sample:
        return Sample(name, labelled(name, self._stream, self._group, *labels), value)


def labelled(name: str, *values: str) -> Mapping[str, str]:
    """A counter's labels with their values."""
    return MappingProxyType(dict(zip(COUNTERS[name].labels, values, strict=True)))
