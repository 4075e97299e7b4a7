"""Spans and metrics in memory, and a trace as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Tracer

from rapids.telemetry import OpenTelemetry
from rapids.telemetry.conventions import Attribute


class Recording:
    """The SDK with exporters to memory. `telemetry` reports to it."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = self.telemetry_with()

    def telemetry_with(self, **options: Any) -> OpenTelemetry:
        return OpenTelemetry(tracer_provider=self.tracer_provider, meter_provider=self.meter_provider, **options)

    @property
    def tracer(self) -> Tracer:
        """The tracer of the application."""
        return self.tracer_provider.get_tracer("application")

    @property
    def spans(self) -> list[ReadableSpan]:
        """All spans that have ended, by their start."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time)

    def of(self, operation: str, **attributes: Any) -> list[ReadableSpan]:
        """The spans of an operation of Rapids, with these attributes of its own (`rapids.` left out)."""
        wanted = {f"rapids.{name}": value for name, value in attributes.items()}
        return [
            span
            for span in self.spans
            if span.attributes.get(Attribute.OPERATION_NAME) == operation and wanted.items() <= span.attributes.items()
        ]

    @property
    def metrics(self) -> dict[str, Metric]:
        data = self._reader.get_metrics_data()
        scopes = [scope for one in data.resource_metrics for scope in one.scope_metrics] if data else []
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], float]]:
        """The attributes and values of a metric; of a histogram, how many times were recorded."""
        found = self.metrics[name].data.data_points if name in self.metrics else ()
        return [(dict(one.attributes), one.count if hasattr(one, "count") else one.value) for one in found]

    def close(self) -> None:
        self.tracer_provider.shutdown()
        self.meter_provider.shutdown()


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def links_of(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def id_of(span: ReadableSpan) -> int:
    return span.context.span_id


def trace_of(span: ReadableSpan) -> int:
    return span.context.trace_id


def as_text(spans: Sequence[ReadableSpan]) -> str:
    """Traces as text: a line for each span, below its parent, in the order of their starts."""
    numbers = {trace: at for at, trace in enumerate(dict.fromkeys(map(trace_of, spans)), 1)}
    known = {id_of(span): span for span in spans}
    lines: list[str] = []

    def add(span: ReadableSpan, before: str, after: str) -> None:
        lines.append(f"{before}{span.name:<{56 - len(before)}}{span.kind.name:<9}{_about(span)}")
        for link in span.links:
            target = known[link.context.span_id]
            lines.append(f"{after}  links to: {target.name}, {_about(target)} (trace {numbers[trace_of(target)]})")
        below = [one for one in spans if parent_of(one) == id_of(span)]
        for at, one in enumerate(below):
            last = at == len(below) - 1
            add(one, f"{after}{'└─' if last else '├─'} ", f"{after}{'   ' if last else '│  '}")

    for root in [one for one in spans if parent_of(one) not in known]:
        lines.append(f"trace {numbers[trace_of(root)]}")
        add(root, "", "")
        lines.append("")
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


def _about(span: ReadableSpan) -> str:
    has = span.attributes
    event = has.get(Attribute.EVENT_TYPE, "")
    if Attribute.RESULT in has:
        return f"{event} -> {has[Attribute.HANDLER]}: {has[Attribute.RESULT]}"
    if Attribute.REASON in has:
        return f"{event} -> {has[Attribute.HANDLER]}: {has[Attribute.REASON]}"
    return str(event)
