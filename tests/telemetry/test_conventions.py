"""Names, units and buckets are those of OpenTelemetry's conventions, or under `rapids.`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv._incubating.metrics import messaging_metrics
from opentelemetry.semconv.attributes import error_attributes, exception_attributes
from opentelemetry.semconv.schemas import Schemas

from rapids import GenericEvent
from rapids.telemetry import conventions
from rapids.telemetry.conventions import Attribute, Metric, Operation
from tests.telemetry.recording import Recording


def constants(owner: Any) -> dict[str, str]:
    return {name: value for name, value in vars(owner).items() if name.isupper()}


def in_force(*modules: ModuleType) -> set[str]:
    return {value for module in modules for value in constants(module).values() if isinstance(value, str)}


OF_CONVENTIONS = in_force(messaging_attributes, error_attributes, exception_attributes)
METRICS = {
    Metric.SENT: messaging_metrics.create_messaging_client_sent_messages,
    Metric.CONSUMED: messaging_metrics.create_messaging_client_consumed_messages,
    Metric.OPERATION_DURATION: messaging_metrics.create_messaging_client_operation_duration,
    Metric.PROCESS_DURATION: messaging_metrics.create_messaging_process_duration,
}


@pytest.mark.parametrize("name", constants(Attribute).values())
def test_an_attribute_is_of_the_conventions_or_our_own(name: str) -> None:
    assert name.startswith("rapids.") or name in OF_CONVENTIONS


@pytest.mark.parametrize("name", constants(Metric).values())
def test_a_metric_is_of_the_conventions_or_our_own(name: str) -> None:
    assert name.startswith("rapids.") or name in METRICS


def test_operation_types_are_those_of_the_conventions() -> None:
    of_conventions = {one.value for one in messaging_attributes.MessagingOperationTypeValues}
    assert set(constants(Operation).values()) < of_conventions


def test_the_schema_is_the_newest() -> None:
    assert list(Schemas)[-1].value == conventions.SCHEMA_URL


def test_metrics_have_the_units_descriptions_and_buckets_of_the_conventions(recording: Recording) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    for create in METRICS.values():
        instrument: Any = create(provider.get_meter("conventions"))
        (instrument.record if hasattr(instrument, "record") else instrument.add)(1)
    [scope] = reader.get_metrics_data().resource_metrics[0].scope_metrics
    expected = {one.name: (one.unit, one.description, type(one.data)) for one in scope.metrics}
    provider.shutdown()

    event = GenericEvent(raw_type="conventions.event", data={})
    recording.telemetry.sending("s", [event], None).sent()
    recording.telemetry.delivered("s", "g", 1)
    run = recording.telemetry.processing(
        stream="s",
        group="g",
        consumer="c",
        handler="h",
        event=event,
        entry_id="1-0",
        deliveries=1,
        replay_of=None,
        context=None,
    )
    run.ended("done", "")

    found = {name: (one.unit, one.description, type(one.data)) for name, one in recording.metrics.items()}
    assert found == expected
    for name in (Metric.OPERATION_DURATION, Metric.PROCESS_DURATION):
        [point] = recording.metrics[name].data.data_points
        assert point.explicit_bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
