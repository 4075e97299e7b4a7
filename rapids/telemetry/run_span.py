"""The span of a handler's run on a delivery, which is the current span in the handler."""

import time
from collections.abc import Mapping

from opentelemetry.context import Context, attach
from opentelemetry.trace import Link, SpanKind, Tracer, set_span_in_context

from rapids.hooks import RunResult, TraceContext
from rapids.telemetry.conventions import EXCEPTION, OTHER_ERROR, Attribute, Operation
from rapids.telemetry.instruments import Instruments, Labels
from rapids.telemetry.spans import Troubles, as_carried, fail

__all__ = ["RunSpan"]


class RunSpan:
    """One span for a handler on a delivery, with its quick attempts: an event records the error of each that failed."""

    __slots__ = ("_began", "_context", "_instruments", "_labels", "_span", "_troubles")

    def __init__(
        self,
        tracer: Tracer,
        instruments: Instruments,
        troubles: Troubles,
        labels: Labels,
        attributes: Mapping[str, str | int],
        parent: Context,
        links: list[Link] | None,
    ) -> None:
        self._instruments = instruments
        self._troubles = troubles
        self._labels = labels
        self._began = time.perf_counter()
        name = f"{Operation.PROCESS} {labels[Attribute.DESTINATION]}"
        self._span = tracer.start_span(name, parent, SpanKind.CONSUMER, attributes, links)
        self._context = set_span_in_context(self._span, parent)

    def enter(self) -> None:
        """Make it the current span. The context is dropped with the run, so it is never detached."""
        try:
            attach(self._context)
        except Exception as error:
            self._troubles.log(error)

    def attempt_failed(self, attempt: int, error_type: str, message: str, traceback: str) -> None:
        """A quick attempt failed."""
        try:
            self._span.add_event(
                EXCEPTION,
                {
                    Attribute.EXCEPTION_TYPE: error_type,
                    Attribute.EXCEPTION_MESSAGE: message,
                    Attribute.EXCEPTION_STACKTRACE: traceback,
                    Attribute.ATTEMPT: attempt,
                },
            )
        except Exception as error:
            self._troubles.log(error)

    def ended(self, result: RunResult, error_type: str) -> TraceContext | None:
        """The run has ended."""
        try:
            span = self._span
            span.set_attribute(Attribute.RESULT, result)
            labels = self._labels
            if result in ("retry", "dead"):
                fail(span, error_type)
                labels = self._instruments.labels(
                    Operation.PROCESS,
                    Operation.PROCESS,
                    labels[Attribute.DESTINATION],
                    labels[Attribute.GROUP],
                    error_type or OTHER_ERROR,
                )
            span.end()
            self._instruments.processing(labels, time.perf_counter() - self._began, self._context)
            return as_carried(span) if result == "dead" else None
        except Exception as error:
            self._troubles.log(error)
            return None
