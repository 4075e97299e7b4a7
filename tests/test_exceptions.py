"""Errors: what they are, what they carry, what they say, and that they survive pickling."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from rapids import exceptions
from rapids.exceptions import (
    DeserializationError,
    DuplicateEventTypeError,
    EditRefusedError,
    EmitError,
    GroupNotFoundError,
    HandlerTimeoutError,
    LetterNotFoundError,
    LetterStateError,
    MaxRetriesExceededError,
    NonRetryableError,
    NotConfiguredError,
    OperationNotFoundError,
    OperationRunningError,
    OperationStateError,
    ParseProblem,
    RapidsError,
    RedisUnavailableError,
    RetryAfter,
    SerializationError,
    StreamNotFoundError,
)

CAUSE = ConnectionError("connection refused")
PROBLEMS = (
    ParseProblem(("lines", 0, "a/b"), "Field required", "missing"),
    ParseProblem((), "too many", "value_error"),
)

EXAMPLES: list[tuple[RapidsError, tuple[Any, ...], dict[str, Any], str]] = [
    (RapidsError("why"), ("why",), {}, "why"),
    (NotConfiguredError("call configure()"), ("call configure()",), {}, "call configure()"),
    (RedisUnavailableError("no Redis"), ("no Redis",), {}, "no Redis"),
    (DuplicateEventTypeError("taken"), ("taken",), {}, "taken"),
    (
        EmitError("order.placed", "e1", "orders", 3, CAUSE),
        ("order.placed", "e1", "orders", 3, CAUSE, (), (), ()),
        {"event_type": "order.placed", "event_id": "e1", "stream": "orders", "attempts": 3, "cause": CAUSE},
        "could not emit 'order.placed' (id e1) to 'orders' after 3 attempts: connection refused",
    ),
    (
        EmitError("order.placed", "e2", "orders", 1, CAUSE, stored=("e1",), not_stored=("e2", "e3"), unknown=("e4",)),
        ("order.placed", "e2", "orders", 1, CAUSE, ("e1",), ("e2", "e3"), ("e4",)),
        {"stored": ("e1",), "not_stored": ("e2", "e3"), "unknown": ("e4",)},
        "could not emit 'order.placed' (id e2) to 'orders' after 1 attempt: connection refused; "
        "unknown whether stored: e4; stored: 1, not stored: 2",
    ),
    (
        SerializationError("order.placed", "total", "NaN is not JSON"),
        ("order.placed", "total", "NaN is not JSON"),
        {"event_type": "order.placed", "field": "total", "reason": "NaN is not JSON"},
        "event 'order.placed' cannot be written as JSON: field 'total': NaN is not JSON",
    ),
    (
        DeserializationError("order.placed", "data: not JSON"),
        ("order.placed", "data: not JSON"),
        {"event_type": "order.placed", "message": "data: not JSON"},
        "cannot read an event of type 'order.placed': data: not JSON",
    ),
    (
        HandlerTimeoutError("ship", 1.5, "e1"),
        ("ship", 1.5, "e1"),
        {"handler_name": "ship", "timeout": 1.5, "event_id": "e1"},
        "handler 'ship' exceeded its time-out of 1.5 s on event e1",
    ),
    (
        MaxRetriesExceededError("ship", 4, "e1", CAUSE),
        ("ship", 4, "e1", CAUSE),
        {"handler_name": "ship", "max_attempts": 4, "event_id": "e1", "last_error": CAUSE},
        "handler 'ship' failed on event e1 after 4 attempts: ConnectionError: connection refused",
    ),
    (
        MaxRetriesExceededError("ship", 1, "e1", CAUSE),
        ("ship", 1, "e1", CAUSE),
        {},
        "handler 'ship' failed on event e1 after 1 attempt: ConnectionError: connection refused",
    ),
    (
        NonRetryableError("card declined"),
        ("card declined",),
        {"handler_name": "", "cause": None, "event_id": ""},
        "card declined",
    ),
    (
        NonRetryableError("pay", CAUSE, "e1"),
        ("pay", CAUSE, "e1"),
        {"handler_name": "pay", "cause": CAUSE, "event_id": "e1"},
        "handler 'pay' cannot retry event e1: ConnectionError: connection refused",
    ),
    (LetterNotFoundError("1-0"), ("1-0",), {"letter_id": "1-0"}, "there is no dead letter '1-0'"),
    (
        LetterStateError("1-0", "replayed", "dead"),
        ("1-0", "replayed", "dead"),
        {"letter_id": "1-0", "state": "replayed", "needed": "dead"},
        "dead letter '1-0' is replayed, this needs one that is dead",
    ),
    (OperationNotFoundError("a1"), ("a1",), {"operation_id": "a1"}, "there is no operation 'a1'"),
    (
        OperationRunningError("replay", "a1"),
        ("replay", "a1"),
        {"kind": "replay", "operation_id": "a1"},
        "operation 'a1' of kind 'replay' has not ended; cancel it, or wait for it",
    ),
    (
        OperationStateError("a1", "completed"),
        ("a1", "completed"),
        {"operation_id": "a1", "state": "completed"},
        "operation 'a1' has ended: it is completed",
    ),
    (
        EditRefusedError("order.placed", PROBLEMS, 3),
        ("order.placed", PROBLEMS, 3),
        {"event_type": "order.placed", "problems": PROBLEMS, "problem_count": 3},
        "the changed data are not valid for the event type 'order.placed': /lines/0/a~1b: Field required; "
        "data: too many; and 1 more",
    ),
    (StreamNotFoundError("orders"), ("orders",), {"stream": "orders"}, "there is no stream 'orders'"),
    (
        GroupNotFoundError("orders", "billing"),
        ("orders", "billing"),
        {"stream": "orders", "group": "billing"},
        "stream 'orders' has no group 'billing'",
    ),
    (RetryAfter(30), (30, ""), {"seconds": 30, "why": ""}, "asked to be retried after 30 s"),
    (RetryAfter(0.5, "busy"), (0.5, "busy"), {"seconds": 0.5, "why": "busy"}, "busy"),
]


def described(example: object) -> str:
    return type(example).__name__ if isinstance(example, RapidsError) else ""


@pytest.mark.parametrize(("error", "args", "attributes", "message"), EXAMPLES, ids=described)
def test_an_error_carries_what_it_was_given_and_says_so(
    error: RapidsError, args: tuple[Any, ...], attributes: dict[str, Any], message: str
) -> None:
    assert error.args == args
    assert {name: getattr(error, name) for name in attributes} == attributes
    assert str(error) == message


@pytest.mark.parametrize("error", [example[0] for example in EXAMPLES], ids=described)
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy], ids=["pickle", "copy"])
def test_an_error_survives_pickling_and_copying(error: RapidsError, travel: Any) -> None:
    arrived = travel(error)

    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert repr(arrived.args) == repr(error.args)
    assert repr(vars(arrived)) == repr(vars(error))


def test_every_public_error_is_a_rapids_error_and_has_an_example_above() -> None:
    shown = {type(example[0]) for example in EXAMPLES}
    public = {name: getattr(exceptions, name) for name in exceptions.__all__}
    errors = {name for name, value in public.items() if isinstance(value, type) and issubclass(value, Exception)}
    assert errors == set(public) - {"ParseProblem", "json_pointer", "pointer_parts", "reason"}
    for name in errors:
        assert issubclass(getattr(exceptions, name), RapidsError)
        assert getattr(exceptions, name) in shown


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (NotConfiguredError, RuntimeError),
        (RedisUnavailableError, ConnectionError),
        (DuplicateEventTypeError, TypeError),
        (SerializationError, ValueError),
        (EditRefusedError, ValueError),
        (HandlerTimeoutError, TimeoutError),
        (LetterNotFoundError, LookupError),
        (StreamNotFoundError, LookupError),
        (GroupNotFoundError, LookupError),
    ],
)
def test_an_error_is_also_what_python_calls_it(cls: type[RapidsError], builtin: type[Exception]) -> None:
    assert issubclass(cls, builtin)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf")])
def test_retry_after_refuses_an_impossible_delay(seconds: float) -> None:
    with pytest.raises(ValueError, match="seconds must be a finite number of seconds, 0 or more"):
        RetryAfter(seconds)
