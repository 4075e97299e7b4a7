"""The trace context in an entry: two optional fields after the others."""

from collections.abc import Sequence

from rapids.hooks import TraceContext

__all__ = ["TRACE_FIELDS", "trace_context_in", "trace_values"]

TRACE_FIELDS = (b"traceparent", b"tracestate")
"""The context of the span that emitted the event. The second field is there only after the first."""

PARENT, STATE = TRACE_FIELDS

MAX_VALUE = 1_024
"""Bytes. A longer value is no trace context: W3C Trace Context asks for 512 of `tracestate`."""


def trace_context_in(fields: Sequence[bytes]) -> TraceContext | None:
    """The trace context of an entry, which is untrusted: any text. None if it has none, or if it is too long."""
    names = fields[::2]
    if PARENT not in names:
        return None
    parent = fields[2 * names.index(PARENT) + 1]
    if not parent or len(parent) > MAX_VALUE:
        return None
    if STATE not in names:
        return TraceContext(parent.decode(errors="replace"))
    state = fields[2 * names.index(STATE) + 1]
    return TraceContext(parent.decode(errors="replace"), state.decode(errors="replace")[:MAX_VALUE])


def trace_values(context: TraceContext) -> tuple[bytes, ...]:
    """The values of the fields of a trace context: one or two."""
    parent = context.parent.encode(errors="replace")
    return (parent, context.state.encode(errors="replace")) if context.state else (parent,)
