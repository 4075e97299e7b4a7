"""Hooks: what a telemetry is called with at each emit, handler run and decision about an entry."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, TypeAlias

from rapids.events import Event

__all__ = [
    "Decision",
    "DlqGauges",
    "Gauges",
    "GroupGauges",
    "RunHooks",
    "RunResult",
    "SendHooks",
    "TelemetryHooks",
    "TraceContext",
]

RunResult: TypeAlias = Literal["done", "retry", "dead", "released"]
"""What became of a handler on a delivery: it returned; it runs again on a later delivery; it failed for good; it was
interrupted, which is no failure."""

Decision: TypeAlias = Literal["dead_letter", "park", "release"]
"""What was decided about an entry, or about one handler of it, other than to acknowledge it or to try again."""


class TraceContext(NamedTuple):
    """The context of a span, in the form of W3C Trace Context (https://www.w3.org/TR/trace-context/).

    An entry carries it. What is read from an entry is untrusted: any text.
    """

    parent: str
    """The value of `traceparent`."""
    state: str = ""
    """The value of `tracestate`; empty for none."""

    def log_fields(self) -> dict[str, str]:
        """The fields that log records about the span have."""
        return {"trace_id": self.parent[3:35], "span_id": self.parent[36:52]}


@dataclass(frozen=True, slots=True)
class GroupGauges:
    """How far a group is. Counts are in entries."""

    stream: str
    group: str
    lag: int = 0
    """Entries not yet delivered to the group."""
    oldest_unsettled: float = 0.0
    """The age of the oldest entry that is held, waiting or not delivered yet (seconds); 0 if there is none."""
    pending: int = 0
    """Entries delivered and not yet acknowledged: held, waiting and parked ones."""
    waiting: int = 0
    parked: int = 0


@dataclass(frozen=True, slots=True)
class DlqGauges:
    """How many dead letters a dead-letter stream has."""

    dlq_stream: str
    letters: int = 0


Gauges: TypeAlias = GroupGauges | DlqGauges


class SendHooks(Protocol):
    """One call of `emit`."""

    contexts: Sequence[TraceContext | None]
    """For each event, what its entry is to carry."""

    def sent(self) -> None:
        """All events are stored."""
        ...

    def failed(self, error: BaseException, *, is_sent: bool) -> None:
        """The emit raised. `is_sent`: whether anything may have been sent to Redis."""
        ...


class RunHooks(Protocol):
    """One handler on one delivery, with its quick attempts."""

    def enter(self) -> None:
        """Called once in a context of which each attempt gets a copy: what is set in it is there in the handler."""
        ...

    def attempt_failed(self, attempt: int, error_type: str, message: str, traceback: str) -> None:
        """A quick attempt failed. What the router's log redaction hides is hidden in the texts."""
        ...

    def ended(self, result: RunResult, error_type: str) -> TraceContext | None:
        """The run has ended. `error_type` is empty unless it failed. Returns the context for what follows from it."""
        ...


class TelemetryHooks(Protocol):
    """What `use_telemetry` of emitters and routers takes, such as `rapids.telemetry.OpenTelemetry()`.

    The hooks are called in the event loop. They must not raise, and must not wait for anything.
    """

    def sending(self, stream: str, events: Sequence[Event], correlation_id: str | None) -> SendHooks:
        """An emit begins, of at least one event. `correlation_id`: that of the first event."""
        ...

    def delivered(self, stream: str, group: str, count: int) -> None:
        """Entries were delivered to this consumer."""
        ...

    def processing(
        self,
        *,
        stream: str,
        group: str,
        consumer: str,
        handler: str,
        event: Event,
        entry_id: str,
        deliveries: int,
        replay_of: str | None,
        context: TraceContext | None,
    ) -> RunHooks:
        """A handler is about to run on an entry.

        `stream`: the router's, also for a replay, whose `entry_id` is of the group's replay stream. `deliveries`: how
        many times the entry was delivered to the group, this time included. `replay_of`: the id of the dead letter that
        is replayed. `context`: what the entry has.
        """
        ...

    def settled(
        self,
        decision: Decision,
        *,
        stream: str,
        group: str,
        entry_id: str,
        event_type: str,
        handler: str,
        reason: str,
        seconds: float,
        run: TraceContext | None,
        context: TraceContext | None,
    ) -> None:
        """A decision about an entry is stored, `seconds` after it was taken.

        `handler` and `reason` are empty where the decision is about all of the entry. `run`: what `RunHooks.ended`
        returned for the run that led to it; None if no handler ran. `context`: what the entry has.
        """
        ...

    def wants_gauges(self) -> bool:
        """Whether `gauges` records anything. While it does not, this process reads none, so that another one does."""
        ...

    def gauges(self, read: Gauges) -> None:
        """How far a group is, or how many letters a dead-letter stream has. Zeros from a process that stops reading it.

        `rapids.inspection.GroupReader.reported_to` calls it, in one process at a time.
        """
        ...
