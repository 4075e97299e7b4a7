"""Counters of routers and emitters: snapshots for any metrics system."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["COUNTERS", "OTHER", "UNREADABLE", "Counter", "Counters", "Sample"]

OTHER = "(other)"
"""The label of all event types after the first 1,000, and of unknown handlers: labels cost memory."""

UNREADABLE = "(unreadable)"
"""The label of entries whose event type is missing or cannot be read."""


@dataclass(frozen=True, slots=True)
class Counter:
    """What a counter counts. It never falls while its router or emitter exists, also after a new `start`."""

    name: str
    unit: str
    labels: tuple[str, ...]
    about: str


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


class Sample(NamedTuple):
    """One number: the counter's name, its labels, and the value in the counter's unit."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of a router or an emitter at one moment. Iterating gives the samples, grouped by counter."""

    samples: tuple[Sample, ...] = ()

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
