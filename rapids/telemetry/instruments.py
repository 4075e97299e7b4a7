"""Instruments: the metrics of emits, deliveries, handler runs and groups."""

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider, NoOpMeter, get_meter_provider

from rapids.hooks import DlqGauges, Gauges
from rapids.telemetry.conventions import BUCKETS, SCHEMA_URL, SYSTEM, Attribute, Metric, Operation

__all__ = ["Instruments", "Labels"]

Labels = dict[str, str]
"""Attributes of a metric, or of a span from its start."""

MAX_LABELS = 1_000
"""How many sets of labels are kept: one for each stream, group, operation and type of error."""

MESSAGE, ENTRY, SECOND = "{message}", "{entry}", "s"
"""Units, by UCUM."""


class Instruments:
    """Creates the instruments of one meter provider, and records on them."""

    def __init__(self, provider: MeterProvider | None, version: str) -> None:
        self._provider = provider
        self._version = version
        meter = (provider or get_meter_provider()).get_meter("rapids", version, SCHEMA_URL)
        self._labels: dict[tuple[str, str, str, str, str], Labels] = {}
        self._sent = meter.create_counter(
            Metric.SENT, MESSAGE, "Number of messages producer attempted to send to the broker."
        )
        self._consumed = meter.create_counter(
            Metric.CONSUMED, MESSAGE, "Number of messages that were delivered to the application."
        )
        self._operations = meter.create_histogram(
            Metric.OPERATION_DURATION,
            SECOND,
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._processing = meter.create_histogram(
            Metric.PROCESS_DURATION,
            SECOND,
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._lag = meter.create_gauge(Metric.LAG, ENTRY, "Entries not yet delivered to the group.")
        self._oldest = meter.create_gauge(
            Metric.OLDEST_UNSETTLED,
            SECOND,
            "Age of the oldest entry that the group has not settled.",
        )
        self._pending = meter.create_gauge(Metric.PENDING, ENTRY, "Entries delivered to the group and not settled.")
        self._waiting = meter.create_gauge(Metric.WAITING, ENTRY, "Pending entries that wait for their next delivery.")
        self._parked = meter.create_gauge(Metric.PARKED, ENTRY, "Pending entries that failed for good.")
        self._letters = meter.create_gauge(Metric.DEAD_LETTERS, MESSAGE, "Dead letters that nobody has handled.")

    def are_recorded(self) -> bool:
        """Whether there is an SDK that records what they get. It may be set after they were created."""
        provider = self._provider or get_meter_provider()
        if type(provider).__module__.startswith("opentelemetry.metrics"):  # one of the API: no SDK is set
            return False
        return not isinstance(provider.get_meter("rapids", self._version, SCHEMA_URL), NoOpMeter)  # disabled

    def labels(self, operation: str, kind: str, stream: str, group: str = "", error_type: str = "") -> Labels:
        """The attributes of an operation by its name and type, the same object each time. Do not change them."""
        key = operation, kind, stream, group, error_type
        if (known := self._labels.get(key)) is not None:
            return known
        if len(self._labels) >= MAX_LABELS:
            self._labels.clear()
        labels = {
            Attribute.SYSTEM: SYSTEM,
            Attribute.OPERATION_NAME: operation,
            Attribute.OPERATION_TYPE: kind,
            Attribute.DESTINATION: stream,
        }
        if group:
            labels[Attribute.GROUP] = group
        if error_type:
            labels[Attribute.ERROR_TYPE] = error_type
        self._labels[key] = labels
        return labels

    def sent(self, labels: Labels, count: int) -> None:
        """Count messages that were sent, or that failed."""
        self._sent.add(count, labels)

    def consumed(self, stream: str, group: str, count: int) -> None:
        """Count messages that were delivered."""
        self._consumed.add(count, self.labels(Operation.PROCESS, Operation.PROCESS, stream, group))

    def operation(self, labels: Labels, seconds: float, context: Context | None) -> None:
        """Record how long an emit, or the settlement of a decision, took. `context`: None for the current one."""
        self._operations.record(seconds, labels, context)

    def processing(self, labels: Labels, seconds: float, context: Context) -> None:
        """Record how long a handler ran."""
        self._processing.record(seconds, labels, context)

    def gauges(self, read: Gauges) -> None:
        """Set the gauges of a group or of a dead-letter stream."""
        if isinstance(read, DlqGauges):
            self._letters.set(read.letters, {Attribute.SYSTEM: SYSTEM, Attribute.DESTINATION: read.dlq_stream})
            return
        labels = {Attribute.SYSTEM: SYSTEM, Attribute.DESTINATION: read.stream, Attribute.GROUP: read.group}
        self._lag.set(read.lag, labels)
        self._oldest.set(read.oldest_unsettled, labels)
        self._pending.set(read.pending, labels)
        self._waiting.set(read.waiting, labels)
        self._parked.set(read.parked, labels)
