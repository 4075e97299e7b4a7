"""The span of an emit, whose context the entries carry."""

import time
from collections.abc import Sequence

from opentelemetry.trace import SpanContext, SpanKind, Tracer, set_span_in_context

from rapids.events import Event
from rapids.exceptions import EmitError
from rapids.hooks import TraceContext
from rapids.telemetry.conventions import EXCEPTION, Attribute, Operation
from rapids.telemetry.instruments import Instruments
from rapids.telemetry.spans import (
    TRACE_PARENT,
    TRACE_STATE,
    Troubles,
    as_carried,
    as_read,
    fail,
    links_to,
    qualified_name,
)

__all__ = ["EmitSpan"]


class EmitSpan:
    """One span for a call of `emit`, also of a list.

    Its entries carry the context of this span. An event that has a context of its own, in its metadata, keeps it, and
    the span links to that.
    """

    __slots__ = ("_began", "_count", "_instruments", "_labels", "_span", "_stream", "_troubles", "contexts")

    def __init__(
        self,
        tracer: Tracer,
        instruments: Instruments,
        troubles: Troubles,
        stream: str,
        events: Sequence[Event],
        correlation_id: str | None,
    ) -> None:
        self._instruments = instruments
        self._troubles = troubles
        self._stream = stream
        self._count = len(events)
        self._labels = instruments.labels(Operation.SEND, Operation.SEND, stream)
        self._began = time.perf_counter()
        attributes: dict[str, str | int] = {**self._labels}
        if len(events) == 1:
            attributes[Attribute.MESSAGE_ID] = events[0].id
            attributes[Attribute.EVENT_TYPE] = events[0].routing_key
            if correlation_id:
                attributes[Attribute.CONVERSATION_ID] = correlation_id
        else:
            attributes[Attribute.MESSAGE_COUNT] = len(events)
        own = [_own_context(event) if event.metadata else None for event in events]
        links = links_to([one[1] for one in own if one is not None]) if any(own) else None
        # By the conventions: a client if the messages carry none of its context.
        kind = SpanKind.CLIENT if None not in own else SpanKind.PRODUCER
        self._span = tracer.start_span(f"{Operation.SEND} {stream}", kind=kind, attributes=attributes, links=links)
        context = as_carried(self._span)
        self.contexts: Sequence[TraceContext | None] = [context if one is None else one[0] for one in own]

    def sent(self) -> None:
        """All events are stored."""
        try:
            self._instruments.sent(self._labels, self._count)
            self._end()
        except Exception as error:
            self._troubles.log(error)

    def failed(self, error: BaseException, *, is_sent: bool) -> None:
        """The emit raised."""
        try:
            error_type = qualified_name(error)
            if stored := len(error.stored) if isinstance(error, EmitError) else 0:
                self._instruments.sent(self._labels, stored)
            self._labels = self._instruments.labels(Operation.SEND, Operation.SEND, self._stream, error_type=error_type)
            if is_sent and stored < self._count:
                self._instruments.sent(self._labels, self._count - stored)
            fail(self._span, error_type)
            details = {Attribute.EXCEPTION_TYPE: error_type, Attribute.EXCEPTION_MESSAGE: str(error)}
            self._span.add_event(EXCEPTION, details)
            self._end()
        except Exception as trouble:
            self._troubles.log(trouble)

    def _end(self) -> None:
        seconds = time.perf_counter() - self._began
        # An exemplar names the span, if that is recorded.
        context = set_span_in_context(self._span) if self._span.is_recording() else None
        self._span.end()
        self._instruments.operation(self._labels, seconds, context)


def _own_context(event: Event) -> tuple[TraceContext, SpanContext] | None:
    """The context that an event has in its metadata, for example since it comes from another system."""
    parent, state = event.metadata.get(TRACE_PARENT), event.metadata.get(TRACE_STATE, "")
    if not isinstance(parent, str) or not isinstance(state, str):
        return None
    carried = TraceContext(parent, state)
    context = as_read(carried)
    return None if context is None else (carried, context)
