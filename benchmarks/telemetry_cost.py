"""`python -m benchmarks.telemetry_cost`: what OpenTelemetry costs an event, and how much of that is the SDK's own.

Computing time of the hooks alone, without Redis, next to a loop that asks the SDK directly for the same spans and
measurements. All rows take turns, and the least of each counts: so it needs no quiet machine, but a busy one doubles
all figures alike.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextvars import copy_context
from itertools import repeat

from opentelemetry.context import Context, attach
from opentelemetry.metrics import MeterProvider as AnyMeterProvider
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased
from opentelemetry.trace import (
    NonRecordingSpan,
    NoOpTracerProvider,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import TracerProvider as AnyTracerProvider

from rapids import GenericEvent
from rapids.hooks import TraceContext
from rapids.telemetry import OpenTelemetry

ROUNDS, COUNT = 30, 500
EVENT = GenericEvent(raw_type="order.placed", data={}, correlation_id="web-1")
SENT = {
    "messaging.system": "redis",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
    "messaging.destination.name": "orders",
}
RUN = {**SENT, "messaging.consumer.group.name": "billing"}
OF_SEND = {
    **SENT,
    "messaging.message.id": EVENT.id,
    "rapids.event_type": "order.placed",
    "messaging.message.conversation_id": "web-1",
}
OF_RUN = {
    **RUN,
    **OF_SEND,
    "messaging.client.id": "worker-1",
    "rapids.handler": "charge",
    "rapids.entry_id": "1-1",
    "rapids.deliveries": 1,
}
Job = Callable[[], None]


class Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def ours(tracers: AnyTracerProvider, meters: AnyMeterProvider, *, flags: int) -> tuple[Job, Job]:
    """An emit and a handler's run, as emitters and workers report them."""
    telemetry, events, clean = OpenTelemetry(tracer_provider=tracers, meter_provider=meters), [EVENT], copy_context()
    carried = TraceContext(f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags:02x}")

    def emit() -> None:
        telemetry.sending("orders", events, "web-1").sent()

    def run() -> None:
        running = telemetry.processing(
            stream="orders",
            group="billing",
            consumer="worker-1",
            handler="charge",
            event=EVENT,
            entry_id="1-1",
            deliveries=1,
            replay_of=None,
            context=carried,
        )
        clean.copy().run(running.enter)
        running.ended("done", "")

    return emit, run


def sdk_alone(tracers: AnyTracerProvider, meters: AnyMeterProvider, *, flags: int) -> tuple[Job, Job]:
    """The same spans and measurements, with everything prepared that can be."""
    tracer, meter = tracers.get_tracer("alone"), meters.get_meter("alone")
    counter, durations = meter.create_counter("alone.count"), meter.create_histogram("alone.duration")
    parent = set_span_in_context(NonRecordingSpan(SpanContext(1 << 100, 7, True, TraceFlags(flags))), Context())
    clean = copy_context()

    def emit() -> None:
        span = tracer.start_span("send orders", kind=SpanKind.PRODUCER, attributes=OF_SEND)
        span.get_span_context()
        context = set_span_in_context(span) if flags else None
        span.end()
        counter.add(1, SENT)
        durations.record(0.001, SENT, context)

    def run() -> None:
        span = tracer.start_span("process orders", parent, SpanKind.CONSUMER, OF_RUN)
        context = set_span_in_context(span, parent)
        clean.copy().run(attach, context)
        span.set_attribute("rapids.result", "done")
        span.end()
        durations.record(0.001, RUN, context)

    return emit, run


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telemetry_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds = parser.parse_args(arguments).rounds
    jobs = {("API only", "ours"): ours(NoOpTracerProvider(), NoOpMeterProvider(), flags=0)}
    for name, sampler, flags in (("not recorded", ALWAYS_OFF, 0), ("recorded", ALWAYS_ON, 1)):
        tracers = TracerProvider(sampler=ParentBased(sampler))
        tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
        meters = MeterProvider([InMemoryMetricReader()])
        jobs[name, "ours"] = ours(tracers, meters, flags=flags)
        jobs[name, "sdk"] = sdk_alone(tracers, meters, flags=flags)
    best: dict[tuple[str, str, int], float] = {}
    for _ in range(rounds):
        for (name, who), pair in jobs.items():
            for at, job in enumerate(pair):
                began = time.process_time()
                for _ in repeat(None, COUNT):
                    job()
                spent = (time.process_time() - began) / COUNT * 1e6
                best[name, who, at] = min(spent, best.get((name, who, at), spent))
    print("µs              emit: all    SDK  Rapids   handler's run: all    SDK  Rapids")
    for name in ("API only", "not recorded", "recorded"):
        line = f"{name:<14}"
        for at, width in ((0, 11), (1, 22)):
            total, sdk = best[name, "ours", at], best.get((name, "sdk", at), 0.0)
            line += f"{total:>{width}.1f}{sdk:>7.1f}{total - sdk:>8.1f}"
        print(line)


if __name__ == "__main__":
    main()
