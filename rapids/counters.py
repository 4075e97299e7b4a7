"""Counters and histograms of routers and emitters: snapshots for any metrics system."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

__all__ = [
    "COUNTERS",
    "HISTOGRAMS",
    "OTHER",
    "UNREADABLE",
    "Counter",
    "Counters",
    "Distribution",
    "Histogram",
    "Sample",
]

OTHER = "(other)"
"""The label of all event types after the first 1,000 (of histograms, 100), and of unknown handlers: labels cost
memory."""

UNREADABLE = "(unreadable)"
"""The label of entries whose event type is missing or cannot be read."""


@dataclass(frozen=True, slots=True)
class Counter:
    """What a counter counts. It never falls while its router or emitter exists, also after a new `start`."""

    name: str
    unit: str
    labels: tuple[str, ...]
    about: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """What a histogram measures, for a router after `use_histograms()`."""

    name: str
    unit: str
    labels: tuple[str, ...]
    about: str
    bounds: tuple[float, ...]
    """The upper bounds of its ranges, in its unit. Values above the last one are in a further range."""


_GROUP = ("stream", "group")
_TYPE = (*_GROUP, "event_type")
_HANDLER = (*_TYPE, "handler")

_ALL = (
    Counter(
        "delivered",
        "deliveries",
        _TYPE,
        "Entries taken from the group: new, due again, or abandoned by other consumers",
    ),
    Counter("ignored", "deliveries", _GROUP, "Entries acknowledged since no handler is for their type"),
    Counter("acked", "deliveries", _GROUP, "Entries acknowledged: every handler has finished, or is dead"),
    Counter("kept", "deliveries", _GROUP, "Entries kept, to be delivered again later"),
    Counter("parked", "deliveries", _TYPE, "Entries parked: failed for good, without a dead-letter stream"),
    Counter("handed_back", "deliveries", _GROUP, "Entries released by a stop or a pause, without counting a delivery"),
    Counter(
        "lease_lost", "deliveries", _GROUP, "Entries that this consumer could not settle, since it no longer had them"
    ),
    Counter(
        "lost",
        "entries",
        (*_GROUP, "when"),
        "Entries trimmed before they were finished: unread, pending, or held by this consumer",
    ),
    Counter("gaps", "times", _GROUP, "How many times entries were lost, also if their number is unknown"),
    Counter("handled", "runs", _HANDLER, "A handler succeeded on a delivery"),
    Counter("failed", "runs", _HANDLER, "A handler failed on a delivery, after its quick retries"),
    Counter("retried", "runs", _HANDLER, "A handler that failed is to run again on a later delivery"),
    Counter(
        "dead", "letters", (*_HANDLER, "reason"), "Dead letters written; handler is empty if no handler was reached"
    ),
    Counter("outages", "times", _GROUP, "How many times Redis was unavailable"),
    Counter("outage_seconds", "seconds", _GROUP, "How long Redis was unavailable, including a current outage"),
    Counter("emitted", "events", ("stream", "event_type"), "Events that are stored"),
    Counter(
        "emit_failed",
        "events",
        ("stream", "event_type", "outcome"),
        "Events whose emit raised: not_stored, unknown, unreplicated (stored), unwritable (no JSON)",
    ),
)

COUNTERS: Mapping[str, Counter] = MappingProxyType({counter.name: counter for counter in _ALL})
"""All counters by name, each with its unit, its labels and one line of help."""

_TIMES = (
    Histogram(
        "handling",
        "seconds",
        _HANDLER,
        "How long a handler ran on a delivery, quick retries and the waits before them included",
        (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
    ),
    Histogram(
        "delay",
        "seconds",
        _TYPE,
        "From when an entry was appended until its first handler began for the first time, by the server's clock",
        (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0),
    ),
)

HISTOGRAMS: Mapping[str, Histogram] = MappingProxyType({histogram.name: histogram for histogram in _TIMES})
"""All histograms by name, each with its unit, its labels, its bounds and one line of help."""


class Sample(NamedTuple):
    """One number: the counter's name, its labels, and the value in the counter's unit."""

    name: str
    labels: Mapping[str, str]
    value: float


class Distribution(NamedTuple):
    """What a histogram has measured for one set of labels."""

    name: str
    labels: Mapping[str, str]
    counts: tuple[int, ...]
    """How many values are in each range: at most the first bound, at most the second one, ..., above the last one."""
    sum: float
    """The sum of all values, in the histogram's unit."""


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of a router or an emitter at one moment. Iterating gives the samples, grouped by counter."""

    samples: tuple[Sample, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    """What the histograms measured; empty without `use_histograms()`."""

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def total(self, name: str, **labels: str) -> float:
        """The sum of a counter over all samples that have these labels; 0 if there are none.

        Raises `ValueError` for a counter or a label that does not exist.
        """
        if (counter := COUNTERS.get(name)) is None:
            raise ValueError(f"name must be one of {', '.join(COUNTERS)}, not {name!r}")
        if unknown := sorted(labels.keys() - set(counter.labels)):
            raise ValueError(f"labels of {name!r} must be some of {', '.join(counter.labels)}, not {unknown[0]!r}")
        wanted = labels.items()
        return sum(one.value for one in self.samples if one.name == name and wanted <= one.labels.items())
