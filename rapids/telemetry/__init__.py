"""Telemetry by OpenTelemetry: spans of emits, handler runs and decisions, and metrics of the same.

It needs the extra `otel`, which is the API of OpenTelemetry only. What is done with spans and metrics is up to the SDK
that the application configures; without one, nothing is recorded.
"""

from rapids.telemetry.open_telemetry import OpenTelemetry, TraceParent

__all__ = ["OpenTelemetry", "TraceParent"]
