"""Spans: their contexts as entries carry them, where a span belongs, and how failures are recorded."""

import logging
import re
import time
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from rapids.hooks import TraceContext
from rapids.telemetry.conventions import OTHER_ERROR, Attribute

__all__ = ["NO_CONTEXT", "Troubles", "as_carried", "as_parent", "as_read", "fail", "links_to", "qualified_name"]

_logger = logging.getLogger("rapids.observers")

NO_CONTEXT = Context()
"""A context without a span: what starts in it is the root of a trace."""

TRACE_PARENT, TRACE_STATE = "traceparent", "tracestate"
"""In the metadata of an event: the context that it was created in, if that is not the one in which it is emitted."""

LOG_INTERVAL = 60.0
"""Seconds between two log lines about errors in the telemetry."""

MAX_MEMBERS = 32
"""The most members of a `tracestate`, by W3C Trace Context."""

_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_MEMBER = re.compile(r"([a-z0-9][a-z0-9_*/@-]{0,240})=([ -+\--<>-~]{0,255}[!-+\--<>-~])")


def as_carried(span: Span) -> TraceContext | None:
    """The context of a span as an entry carries it; None if there is no SDK that made the span."""
    context = span.get_span_context()
    if not context.is_valid:
        return None
    parent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    state = context.trace_state
    return TraceContext(parent, state.to_header()) if state else TraceContext(parent)


def as_read(carried: TraceContext | None) -> SpanContext | None:
    """The context of a span that an entry carries, which is untrusted: None unless it is valid.

    By W3C Trace Context (https://www.w3.org/TR/trace-context/). Not by the propagator of OpenTelemetry's API: that logs
    what it cannot read, for each entry and with the control characters in it.
    """
    if carried is None or (found := _PARENT.fullmatch(carried.parent)) is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    state = _state(carried.state) if carried.state else None
    context = SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)), state)
    return context if context.is_valid else None


def _state(text: str) -> TraceState | None:
    """The members of a `tracestate`; None if one of them is not valid, or has the key of another."""
    found = [_MEMBER.fullmatch(member.strip(" \t")) for member in text.split(",")[: MAX_MEMBERS + 1]]
    members = {match[1]: match[2] for match in found if match is not None}
    return TraceState(list(members.items())) if len(members) == len(found) <= MAX_MEMBERS else None


def as_parent(context: SpanContext) -> Context:
    """A context in which spans are children of the given one."""
    return set_span_in_context(NonRecordingSpan(context), NO_CONTEXT)


def links_to(contexts: Sequence[SpanContext | None]) -> list[Link] | None:
    """Links to these contexts; None for none."""
    return [Link(context) for context in contexts if context is not None] or None


def fail(span: Span, error_type: str) -> None:
    """Note on a span that its operation has failed."""
    span.set_attribute(Attribute.ERROR_TYPE, error_type or OTHER_ERROR)
    span.set_status(Status(StatusCode.ERROR))


def qualified_name(error: BaseException) -> str:
    """The name of an error's class, as dead letters have it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Troubles:
    """Logs errors that a telemetry raises, such as those of a user's span processor: they must disturb no event."""

    def __init__(self) -> None:
        self._silent_until = 0.0
        self._count = 0

    def log(self, error: Exception) -> None:
        """Log an error, at most once a minute."""
        self._count += 1
        if (now := time.monotonic()) >= self._silent_until:
            self._silent_until = now + LOG_INTERVAL
            _logger.error(
                "the telemetry raised, %d times so far; this is logged at most once in %d s",
                self._count,
                LOG_INTERVAL,
                exc_info=error,
            )
