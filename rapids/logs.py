"""A logging filter that adds correlation and causation ids, and those of a trace, to log records."""

import logging
import sys
from typing import Any

from rapids._core.control_characters import are_in, escaped, indented
from rapids._core.quoted_inputs import without_inputs
from rapids.correlation import get_causation_id, get_correlation_id

__all__ = ["CorrelationLogFilter", "EscapingLogFilter", "protect_loggers"]


class CorrelationLogFilter(logging.Filter):
    """Adds `correlation_id` and `causation_id` of the running scope or handler to every record, and `trace_id` and
    `span_id` of the current span of OpenTelemetry; "-" if there are none.

    Add it to a log handler, not to a logger, so that it gets the records of all loggers:

        handler.addFilter(CorrelationLogFilter())
        handler.setFormatter(logging.Formatter("%(levelname)s [%(correlation_id)s] %(message)s"))

    A record that already has an id, like Rapids' own records about an entry, keeps it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        for name, current in (("correlation_id", get_correlation_id), ("causation_id", get_causation_id)):
            if not getattr(record, name, None):
                setattr(record, name, escaped(current() or "-"))
        if not getattr(record, "trace_id", None):
            record.trace_id, record.span_id = _span_ids()
        return True


def _span_ids() -> tuple[str, str]:
    """The trace id and the span id of the current span, in hexadecimal; "-" if there is none.

    OpenTelemetry is not imported for it: without its import there is no span.
    """
    trace: Any = sys.modules.get("opentelemetry.trace")
    context: Any = None if trace is None else trace.get_current_span().get_span_context()
    if context is None or not context.is_valid:
        return "-", "-"
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


class EscapingLogFilter(logging.Filter):
    """Escapes control characters in a record: text of events and errors cannot forge a line, or control a terminal.

    It also removes what Pydantic quotes of its input (`input_value=`), which is part of a payload, from the message and
    from the traceback with all errors in it: causes, contexts, and members of groups. Every logger of Rapids has it.
    The lines of a traceback are indented.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Escape the record in place. It is always logged."""
        fields = vars(record)
        for name, value in fields.items():
            if isinstance(value, str) and name not in ("pathname", "filename", "exc_text"):
                fields[name] = escaped(value)
        if isinstance(record.args, tuple):
            record.args = tuple(map(safe, record.args))
        elif record.args:
            record.args = {name: safe(value) for name, value in record.args.items()}
        if record.exc_info and not record.exc_text:
            record.exc_text = indented(without_inputs(logging.Formatter().formatException(record.exc_info)))
        return True


def safe(value: Any) -> Any:
    """The argument of a message; as text if that has control characters or quotes an input."""
    if isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else str(value)
    return escaped(without_inputs(text)) if are_in(text) or "input_value=" in text else value


def protect_loggers() -> None:
    """Give every logger of Rapids its filter."""
    for name in ("", ".control", ".observers", ".operations", ".server_warnings", ".worker"):
        logging.getLogger(f"rapids{name}").addFilter(EscapingLogFilter())
