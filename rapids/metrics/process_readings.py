"""Readings of a process: the values of its counters and histograms, which can be sent to another process and added."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rapids.counters import COUNTERS, HISTOGRAMS, OTHER
from rapids.emitter import EventEmitter
from rapids.router import EventRouter

__all__ = ["Labelled", "ProcessReadings", "read_process"]

Labelled: TypeAlias = tuple[str, tuple[str, ...]]
"""The name of a counter or histogram in Python, and the values of its labels in their order."""

MAX_ADDED = 20_000
"""How many sets of labels a sum has before the event types of further ones are counted together."""

_TYPE_AT: Mapping[str, int] = {
    name: one.labels.index("event_type")
    for name, one in {**COUNTERS, **HISTOGRAMS}.items()
    if "event_type" in one.labels
}
"""The position of the event type among the labels, where there is one."""


@dataclass(frozen=True, slots=True)
class ProcessReadings:
    """What a process has counted since its start, or what a process and those before it have counted."""

    starts: int = 1
    counts: Mapping[Labelled, float] = field(default_factory=dict[Labelled, float])
    times: Mapping[Labelled, tuple[tuple[int, ...], float]] = field(
        default_factory=dict[Labelled, tuple[tuple[int, ...], float]]
    )
    """Of each histogram: how many values are in each range, and the sum of all values."""

    def __add__(self, later: "ProcessReadings") -> "ProcessReadings":
        """Both together: of a process that ended, and of the one that was started instead."""
        counts, times = dict(self.counts), dict(self.times)
        for key, value in later.counts.items():
            at = _room_for(key, counts)
            counts[at] = counts.get(at, 0) + value
        for key, (ranges, total) in later.times.items():
            at = _room_for(key, times)
            before, sum_ = times.get(at, ((0,) * len(ranges), 0.0))
            times[at] = tuple(a + b for a, b in zip(before, ranges, strict=True)), sum_ + total
        return ProcessReadings(self.starts + later.starts, counts, times)


def read_process(routers: Iterable[EventRouter], emitters: Iterable[EventEmitter]) -> ProcessReadings:
    """The present values of the counters and histograms of this process. Any thread may call it."""
    counts: dict[Labelled, float] = {}
    times: dict[Labelled, tuple[tuple[int, ...], float]] = {}
    sources: Sequence[EventRouter | EventEmitter] = [*routers, *emitters]
    for source in {id(one): one for one in sources}.values():
        counters = source.counters
        for name, labels, value in counters:
            key = name, tuple(labels.values())
            counts[key] = counts.get(key, 0) + value  # two emitters may have one stream
            if name == "handled":
                # Failures are shown as 0 before the first one: `increase()` of Prometheus does not see the step from no
                # series to 1.
                reasons = [(*key[1], reason) for reason in ("max_deliveries_exceeded", "non_retryable")]
                for zero in (("failed", key[1]), ("retried", key[1]), *(("dead", labels) for labels in reasons)):
                    counts.setdefault(zero, 0)
        for name, labels, ranges, sum_ in counters.distributions:
            times[name, tuple(labels.values())] = ranges, sum_
    return ProcessReadings(counts=counts, times=times)


def _room_for(key: Labelled, known: Mapping[Labelled, object]) -> Labelled:
    """The key, or if there are too many already, that of all other event types. A stream may hold any number of types,
    and each process that is started after another one may see other types."""
    if key in known or len(known) < MAX_ADDED or (at := _TYPE_AT.get(key[0])) is None:
        return key
    name, labels = key
    return name, (*labels[:at], OTHER, *labels[at + 1 :])
