"""The names, import paths, options and defaults the core promises, held against the package itself.

`test_reference.py` runs the reference's own blocks, but only where the reference lies next to the repository.
This module needs nothing but the package.
"""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import rapids
from rapids import BaseEvent, EventEmitter, EventRouter, GenericEvent, GroupStartPosition, backoff
from tests import test_reference
from tests.reference_reader import REFERENCE, python_blocks

REQUIRED = inspect.Parameter.empty


def test_the_reference_is_run_where_it_is_and_only_there() -> None:
    assert test_reference.__test__ is REFERENCE.is_file()
    assert bool(python_blocks()) is REFERENCE.is_file()


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (
            "rapids",
            "BaseEvent Event GenericEvent get_event_class EventEmitter EventRouter GroupStartPosition ConsumerLag "
            "correlation_scope get_correlation_id get_causation_id "
            "RapidsError EmitError",  # these two as in rapids-streams 0.3.0
        ),
        ("rapids.backoff", "exponential linear constant"),
        (
            "rapids.exceptions",
            "RapidsError EmitError DeserializationError HandlerTimeoutError MaxRetriesExceededError NonRetryableError",
        ),
    ],
)
def test_a_name_is_where_the_reference_imports_it_from(module: str, names: str) -> None:
    for name in names.split():
        assert callable(getattr(importlib.import_module(module), name))


EMITTER = {"redis": None, "stream": "events:all", "maxlen": 100_000, "max_retries": 3, "retry_delay": 0.1}
ROUTER = {
    "redis": None,
    "stream": "events:all",
    "group": "default",
    "consumer": None,
    "batch_size": 10,
    "block_ms": 5_000,
    "handler_timeout": 30.0,
    "group_start_id": GroupStartPosition.BEGINNING,
    "claim_interval": 10,
    "claim_min_idle_ms": 60_000,
    "default_retries": 0,
    "default_backoff": None,
    "max_deliveries": 5,
    "dlq_stream": None,
    "dlq_maxlen": 10_000,
}
HANDLER = {"target": REQUIRED, "timeout": None, "retries": None, "backoff": None, "retryable_exceptions": ()}


@pytest.mark.parametrize(
    ("made", "promised"),
    [
        (EventEmitter, EMITTER),
        (EventRouter, ROUTER),
        (EventRouter.on, HANDLER),
        (EventRouter.start, {"redis": None}),
        (EventEmitter.emit, {"event": REQUIRED, "caused_by": None}),
        (EventEmitter.configure, {"redis": REQUIRED}),
        (backoff.exponential, {"base": 2.0, "max_delay": 60.0, "jitter": True}),
        (backoff.linear, {"delay": 1.0, "max_delay": 60.0}),
        (backoff.constant, {"delay": REQUIRED}),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_an_option_has_the_promised_name_place_and_default(made: Any, promised: dict[str, Any]) -> None:
    """Options of our own come after the promised ones, so that those can be given by place as well."""
    options = {name: option.default for name, option in inspect.signature(made).parameters.items() if name != "self"}

    assert list(options)[: len(promised)] == list(promised)
    for name, default in promised.items():
        if default is not REQUIRED:
            assert options[name] == default


def test_an_event_has_the_promised_fields() -> None:
    fields = ["id", "timestamp", "correlation_id", "causation_id", "metadata"]
    assert list(BaseEvent.model_fields) == fields
    assert list(GenericEvent.model_fields) == [*fields, "raw_type", "data"]


def test_the_lag_has_the_promised_fields() -> None:
    promised = ["stream_length", "pending_count", "consumers_count", "last_delivered_id", "lag"]
    assert list(inspect.signature(rapids.ConsumerLag).parameters) == promised


async def test_nothing_works_without_redis_and_says_what_to_call() -> None:
    class ContractOrderPlaced(BaseEvent):
        pass

    with pytest.raises(RuntimeError, match=r"call emitter\.configure\(redis\)"):
        await EventEmitter().emit(ContractOrderPlaced())
    with pytest.raises(rapids.RapidsError, match=r"call router\.start\(redis\)"):
        await EventRouter().start()
    with pytest.raises(RuntimeError, match="has no Redis client"):
        await EventRouter().get_consumer_lag()
