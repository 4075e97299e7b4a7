"""The catalogue of metrics: the name, kind, labels and meaning of each.

Names follow https://prometheus.io/docs/practices/naming/: `rapids_`, the base unit, and `_total` for counters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from rapids.counters import COUNTERS, HISTOGRAMS

__all__ = ["METRICS", "NAMES", "PROCESS", "Metric", "MetricKind"]

MetricKind: TypeAlias = Literal["counter", "gauge", "histogram"]

PROCESS = "process"
"""The label of what a process counts: its number in `rapids run`, else its process id."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, as Prometheus has it."""

    name: str
    kind: MetricKind
    labels: tuple[str, ...]
    about: str


NAMES: Mapping[str, str] = MappingProxyType(
    {
        "emitted": "rapids_events_emitted_total",
        "emit_failed": "rapids_events_emit_failed_total",
        "delivered": "rapids_entries_delivered_total",
        "ignored": "rapids_entries_ignored_total",
        "acked": "rapids_entries_acked_total",
        "kept": "rapids_entries_kept_total",
        "parked": "rapids_entries_parked_total",
        "handed_back": "rapids_entries_released_total",
        "lease_lost": "rapids_leases_lost_total",
        "lost": "rapids_entries_lost_total",
        "gaps": "rapids_gaps_total",
        "handled": "rapids_events_handled_total",
        "failed": "rapids_events_failed_total",
        "retried": "rapids_events_retried_total",
        "dead": "rapids_dead_letters_written_total",
        "outages": "rapids_redis_outages_total",
        "outage_seconds": "rapids_redis_outage_seconds_total",
        "handling": "rapids_handling_seconds",
        "delay": "rapids_delay_seconds",
    }
)
"""The metrics of counters and histograms, by the name that these have in Python."""

_GROUP = ("stream", "group")
_QUEUE = ("dlq",)

_GAUGES = (
    ("rapids_up", (), "Whether Redis answered when the figures of groups were read last: 1 or 0"),
    ("rapids_group_lag_entries", _GROUP, "Entries not yet delivered to the group"),
    (
        "rapids_group_oldest_unsettled_seconds",
        _GROUP,
        "The age of the oldest entry that is held, waiting or not delivered yet; 0 if there is none",
    ),
    ("rapids_group_pending_entries", _GROUP, "Entries delivered and not yet acknowledged: held, waiting and parked"),
    ("rapids_group_waiting_entries", _GROUP, "Pending entries that are delivered again when they are due"),
    ("rapids_group_parked_entries", _GROUP, "Pending entries that failed for good, without a dead-letter stream"),
    ("rapids_group_replays", _GROUP, "Replays of dead letters that are not settled yet"),
    ("rapids_group_consumers", _GROUP, "Consumers of the group, including dead ones until they are removed"),
    ("rapids_group_consumers_alive", _GROUP, "Consumers whose name a living Rapids process holds"),
    ("rapids_group_paused", _GROUP, "Whether the group is paused: 1 or 0"),
    ("rapids_dead_letters", ("dlq", "group"), "Dead letters that nobody has replayed or discarded"),
    ("rapids_dlq_letters", _QUEUE, "Dead letters in the stream, of all groups"),
    ("rapids_dlq_limit_letters", _QUEUE, "The length that the stream is trimmed to; missing if there is no limit"),
    ("rapids_build_info", ("version",), "The version of Rapids; always 1"),
)
_ALL = (
    *(Metric(NAMES[one.name], "counter", (PROCESS, *one.labels), one.about) for one in COUNTERS.values()),
    *(Metric(NAMES[one.name], "histogram", (PROCESS, *one.labels), one.about) for one in HISTOGRAMS.values()),
    Metric(
        "rapids_process_starts_total",
        "counter",
        (PROCESS,),
        "How many times a worker process of `rapids run` was started, restarts included",
    ),
    Metric("rapids_dlq_cut_total", "counter", _QUEUE, "Dead letters trimmed before anybody replayed or discarded them"),
    *(Metric(name, "gauge", labels, about) for name, labels, about in _GAUGES),
)

METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in _ALL})
"""All metrics by name. A histogram also has the series of Prometheus: `_bucket`, `_sum` and `_count`."""
