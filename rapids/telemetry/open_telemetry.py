"""`OpenTelemetry`: spans and metrics of emits, handler runs and decisions, by the messaging conventions."""

import importlib.metadata
import time
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Link, SpanContext, SpanKind, Tracer, TracerProvider, get_tracer, set_span_in_context

from rapids.events import Event
from rapids.hooks import Decision, Gauges, RunHooks, RunResult, SendHooks, TraceContext
from rapids.telemetry.conventions import SCHEMA_URL, Attribute, Operation
from rapids.telemetry.emit_span import EmitSpan
from rapids.telemetry.instruments import Instruments
from rapids.telemetry.run_span import RunSpan
from rapids.telemetry.spans import NO_CONTEXT, Troubles, as_parent, as_read, links_to

__all__ = ["OpenTelemetry", "TraceParent"]

TraceParent: TypeAlias = Literal["emit", "link"]
"""Where the span of a handler belongs: below the span of the emit, or at the root of a trace of its own, which links to
it."""


class OpenTelemetry:
    """Spans and metrics of Rapids: `Rapids(telemetry=OpenTelemetry())`, or `use_telemetry` of emitters and routers.

    `trace_parent`: "emit" makes the span of a handler a child of the emit's span, "link" the root of a trace of its
    own that links to it. A later delivery, and a replay, always link.
    `tracer_provider`, `meter_provider`: by default, the global ones, also if they are set later.

    Raises `ValueError` for another `trace_parent`. One object can serve any number of emitters and routers, in any
    event loop and after a fork; what the exporters of the SDK need after a fork is up to the SDK. Errors in the SDK
    are logged, once a minute, and disturb no event.
    """

    def __init__(
        self,
        *,
        trace_parent: TraceParent = "emit",
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        if trace_parent not in get_args(TraceParent):
            raise ValueError(f"trace_parent must be one of {', '.join(get_args(TraceParent))}, not {trace_parent!r}")
        version = importlib.metadata.version("rapids-fastapi")
        self._is_child = trace_parent == "emit"
        self._tracer: Tracer = get_tracer("rapids", version, tracer_provider, SCHEMA_URL)
        self._instruments = Instruments(meter_provider, version)
        self._troubles = Troubles()

    def sending(self, stream: str, events: Sequence[Event], correlation_id: str | None) -> SendHooks:
        """An emit begins."""
        try:
            return EmitSpan(self._tracer, self._instruments, self._troubles, stream, events, correlation_id)
        except Exception as error:
            self._troubles.log(error)
            return _Untraced(len(events))

    def delivered(self, stream: str, group: str, count: int) -> None:
        """Entries were delivered."""
        try:
            self._instruments.consumed(stream, group, count)
        except Exception as error:
            self._troubles.log(error)

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
        """A handler is about to run on an entry."""
        try:
            labels = self._instruments.labels(Operation.PROCESS, Operation.PROCESS, stream, group)
            attributes: dict[str, str | int] = {
                **labels,
                Attribute.CLIENT_ID: consumer,
                Attribute.MESSAGE_ID: event.id,
                Attribute.CONVERSATION_ID: event.correlation_id or event.id,
                Attribute.EVENT_TYPE: event.routing_key,
                Attribute.HANDLER: handler,
                Attribute.ENTRY_ID: entry_id,
                Attribute.DELIVERIES: deliveries,
            }
            if replay_of is not None:
                attributes[Attribute.REPLAY_OF] = replay_of
            parent, links = self._place(as_read(context), is_later=deliveries > 1 or replay_of is not None)
            return RunSpan(self._tracer, self._instruments, self._troubles, labels, attributes, parent, links)
        except Exception as error:
            self._troubles.log(error)
            return _Untraced()

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
        """A decision about an entry is stored: a span of the time that took, below that of the run that led to it."""
        try:
            labels = self._instruments.labels(decision, Operation.SETTLE, stream, group)
            attributes: dict[str, str] = {**labels, Attribute.ENTRY_ID: entry_id}
            optional = {Attribute.EVENT_TYPE: event_type, Attribute.HANDLER: handler, Attribute.REASON: reason}
            attributes |= {name: value for name, value in optional.items() if value}
            parent, links = self._place(as_read(context), is_later=False)
            if (of_run := as_read(run)) is not None:
                parent, links = as_parent(of_run), None
            began = time.time_ns() - round(seconds * 1e9)
            name = f"{decision} {stream}"
            span = self._tracer.start_span(name, parent, SpanKind.CLIENT, attributes, links, start_time=began)
            span.end()
            self._instruments.operation(labels, seconds, set_span_in_context(span, parent))
        except Exception as error:
            self._troubles.log(error)

    def wants_gauges(self) -> bool:
        """Whether a meter of an SDK records gauges."""
        try:
            return self._instruments.are_recorded()
        except Exception as error:
            self._troubles.log(error)
            return False

    def gauges(self, read: Gauges) -> None:
        """How far a group is, or how many letters a dead-letter stream has."""
        try:
            self._instruments.gauges(read)
        except Exception as error:
            self._troubles.log(error)

    def _place(self, creation: SpanContext | None, *, is_later: bool) -> tuple[Context, list[Link] | None]:
        """The parent and the links of a span about an entry that was emitted in the context `creation`."""
        if creation is not None and self._is_child and not is_later:
            return as_parent(creation), None
        return NO_CONTEXT, links_to([creation])


class _Untraced:
    """What is used instead of a span that could not be started."""

    def __init__(self, count: int = 0) -> None:
        self.contexts: Sequence[TraceContext | None] = [None] * count

    def sent(self) -> None:
        """Nothing to end."""

    def failed(self, error: BaseException, *, is_sent: bool) -> None:
        """Nothing to end."""

    def enter(self) -> None:
        """No span becomes current."""

    def attempt_failed(self, attempt: int, error_type: str, message: str, traceback: str) -> None:
        """Nothing to note it on."""

    def ended(self, result: RunResult, error_type: str) -> TraceContext | None:
        """Nothing to end."""
        return None
