"""The SDK of OpenTelemetry, configured by the variables `OTEL_...` for a process of `rapids run`.

Their meaning: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/. The SDK reads most of
them itself; what its public classes leave to the application is here: which exporters there are.
"""

import logging
import os
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from opentelemetry import metrics, trace

from rapids.exceptions import NotConfiguredError
from rapids.telemetry.open_telemetry import OpenTelemetry

__all__ = ["find_exporters", "sdk_running"]

_logger = logging.getLogger("rapids")

DISABLED = "OTEL_SDK_DISABLED"

FLUSH_TIME = 5.0
"""Seconds that the last spans and metrics have to be sent at the end."""

INSTANCE = "service.instance.id"
"""The attribute of a resource by which processes are distinguished."""

_SIGNALS = {
    "OTEL_TRACES_EXPORTER": ("opentelemetry_traces_exporter", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"),
    "OTEL_METRICS_EXPORTER": ("opentelemetry_metrics_exporter", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"),
}
"""From the variable that names exporters to the group of entry points in which packages offer them, and the variable
of the protocol, which decides what `otlp` is."""

_PROTOCOLS = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}


def find_exporters() -> dict[str, list[EntryPoint]]:
    """The exporters of traces and of metrics, by the variable that names them. None if the SDK is disabled.

    Raises `NotConfiguredError` for a name that no installed package has.
    """
    found: dict[str, list[EntryPoint]] = {variable: [] for variable in _SIGNALS}
    if _is_disabled():
        return found
    for variable, (group, protocol_variable) in _SIGNALS.items():
        names = [name.strip() for name in (os.environ.get(variable) or "otlp").split(",")]
        offered = {one.name: one for one in entry_points(group=group)}
        for name in names:
            if name in ("", "none"):
                continue
            if name == "otlp":
                name = _protocol(protocol_variable)
            if name not in offered:
                known = ", ".join(sorted({*offered, "none"}))
                package = name.replace("_", "-") if name in _PROTOCOLS.values() else "..."
                raise NotConfiguredError(
                    f"{variable} names the exporter {name!r}, and no installed package has it. There are {known}. "
                    f"pip install opentelemetry-exporter-{package}"
                )
            found[variable].append(offered[name])
    return found


def _is_disabled() -> bool:
    return os.environ.get(DISABLED, "").strip().lower() == "true"


def _protocol(variable: str) -> str:
    """The name of the exporter for the protocol of OTLP that is asked for."""
    for name in (variable, "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if value := os.environ.get(name):
            if value not in _PROTOCOLS:
                raise NotConfiguredError(f"{name} must be one of {', '.join(_PROTOCOLS)}, not {value!r}")
            return _PROTOCOLS[value]
    return _PROTOCOLS["http/protobuf"]


@contextmanager
def sdk_running() -> Generator[OpenTelemetry]:
    """Send what is recorded in the block. At its end, the last spans and metrics are sent, for at most five seconds.

    A signal that no exporter sends is not recorded: events then carry the context of their cause.

    Raises `NotConfiguredError` as `find_exporters` does.
    """
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporters = find_exporters()
    resource = Resource.create()
    if INSTANCE not in resource.attributes:
        resource = resource.merge(Resource({INSTANCE: f"{socket.gethostname()}-{os.getpid()}"}))
    providers: list[TracerProvider | MeterProvider] = []
    # A provider without exporters computes all the same.
    if of_traces := exporters["OTEL_TRACES_EXPORTER"]:
        providers.append(tracer_provider := TracerProvider(resource=resource, shutdown_on_exit=False))
        for found in of_traces:
            tracer_provider.add_span_processor(BatchSpanProcessor(found.load()()))
        trace.set_tracer_provider(tracer_provider)
    if of_metrics := exporters["OTEL_METRICS_EXPORTER"]:
        made: list[Any] = [found.load()() for found in of_metrics]
        readers = [one if isinstance(one, MetricReader) else PeriodicExportingMetricReader(one) for one in made]
        providers.append(meter_provider := MeterProvider(readers, resource=resource, shutdown_on_exit=False))
        metrics.set_meter_provider(meter_provider)
    if _is_disabled():
        _logger.info("otel: nothing is sent, since %s is true", DISABLED)
    else:
        named = [", ".join(one.name for one in sent) or "none" for sent in exporters.values()]
        _logger.info("otel: exporters of traces: %s; of metrics: %s", *named)
    try:
        yield OpenTelemetry()
    finally:
        # In threads that the end of the process does not wait for: a collector may be unreachable.
        ends = [threading.Thread(target=one.shutdown, daemon=True) for one in providers]
        for end in ends:
            end.start()
        for end in ends:
            end.join(FLUSH_TIME)
