"""`deliver`: a router's handlers run on an event without Redis, by the code that runs them in production."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Annotated, Any

import pytest

from rapids import (
    BaseEvent,
    CallNext,
    Delivery,
    Depends,
    Event,
    EventEmitter,
    EventRouter,
    correlation,
    current_delivery,
    get_correlation_id,
)
from rapids.backoff import constant, linear
from rapids.exceptions import HandlerTimeoutError, NonRetryableError, RetryAfter, SerializationError
from rapids.observers import HandlerFailed
from rapids.testing import Outcomes, RecordingEmitter, deliver


class LampLit(BaseEvent):
    lamp: str
    watts: float = 5.0


class LampDimmed(BaseEvent):
    lamp: str


LIT = LampLit(lamp="l-1", correlation_id="web-1")


def failing(times: int, error: Exception) -> Any:
    """A handler that fails so many times, and what it was called with."""
    calls: list[Delivery] = []

    async def handler(event: Event) -> None:
        delivery = current_delivery()
        assert delivery is not None
        calls.append(delivery)
        if len(calls) <= times:
            raise error

    handler.calls = calls  # type: ignore[attr-defined]
    return handler


CLOSED: list[str] = []


async def a_session() -> AsyncIterator[str]:
    try:
        yield "session"
    except ValueError:
        CLOSED.append("rolled back")
        raise
    CLOSED.append("committed")


async def test_all_matching_handlers_run_with_middleware_in_a_context_of_their_own() -> None:
    seen: list[object] = []
    of_handler: ContextVar[str] = ContextVar("of_handler", default="unset")

    async def noting(delivery: Delivery, call_next: CallNext) -> None:
        seen.append((delivery.handler, of_handler.get()))
        of_handler.set(delivery.handler)
        await call_next(delivery)

    router, emitter = EventRouter(stream="lamps", group="house", middleware=[noting]), RecordingEmitter()

    @router.on(LampLit)
    async def dim(event: LampLit) -> None:
        await emitter.emit(LampDimmed(lamp=event.lamp))
        seen.append(get_correlation_id())

    @router.on("lamp.*")
    async def log(event: Event) -> None:
        assert event == LIT
        assert event is not LIT, "it was written and read back"

    @router.on(LampDimmed)
    async def other(event: LampDimmed) -> None: ...

    outcomes = await deliver(router, LIT)
    outcomes.done()
    outcomes.done("dim", "log")
    assert [(one.handler, one.state, len(one.attempts)) for one in outcomes] == [("dim", "done", 1), ("log", "done", 1)]
    assert seen == [("dim", "unset"), "web-1", ("log", "unset")]
    assert emitter.only(LampDimmed).causation_id == LIT.id
    assert outcomes[0] is outcomes["dim"]


async def test_retries_and_deliveries_follow_at_once_and_say_how_long_a_router_waits() -> None:
    router = EventRouter(max_deliveries=3, redelivery_backoff=linear(delay=100.0, max_delay=1_000.0))
    flaky, broken = failing(4, ConnectionError("no line")), failing(99, ValueError("no bulb"))
    router.on(LampLit, name="flaky", retries=1, backoff=constant(60.0))(flaky)
    router.on(LampLit, name="broken")(broken)
    router.on(LampLit, name="steady")(steady := failing(0, ValueError()))

    outcomes = await deliver(router, LIT)
    attempts = [(one.delivery, one.attempt, str(one.error), one.retry_in) for one in outcomes["flaky"].attempts]
    assert attempts == [
        (1, 1, "no line", 60.0),
        (1, 2, "no line", 100.0),
        (2, 1, "no line", 60.0),
        (2, 2, "no line", 200.0),
        (3, 1, "None", None),
    ]
    assert outcomes["flaky"].state == "done"
    assert outcomes["flaky"].error is None
    dead = outcomes.dead("broken", ValueError)
    assert (dead.reason, dead.error_text, dead.deliveries) == ("max_deliveries_exceeded", "ValueError: no bulb", 3)
    assert [delivery.spent for delivery in broken.calls] == [1, 2, 3]
    assert len(steady.calls) == 1, "a handler that is done does not run again for the others"


async def test_handlers_get_their_dependencies_for_each_attempt() -> None:
    router = EventRouter(max_deliveries=2)
    CLOSED.clear()

    @router.on(LampLit, retries=1)
    async def dim(
        event: LampLit,
        emitter: EventEmitter,
        session: Annotated[str, Depends(a_session)],
        delivery: Delivery,
    ) -> None:
        if delivery.attempt == 1:
            raise ValueError("no bulb")
        await emitter.emit(LampDimmed(lamp=f"{event.lamp} {session}"))

    outcomes = await deliver(router, LIT)
    outcomes.done()
    assert CLOSED == ["rolled back", "committed"]
    assert outcomes.emitter.only(LampDimmed).lamp == "l-1 session"
    router.dependency_overrides[a_session] = lambda: "stand-in"
    given = RecordingEmitter()
    assert (await deliver(router, LIT, emitter=given)).emitter is given
    assert given.only(LampDimmed).lamp == "l-1 stand-in"


async def test_what_ends_retries_ends_them() -> None:
    router = EventRouter(max_deliveries=5)
    router.on(LampLit, name="hopeless")(hopeless := failing(99, NonRetryableError("no lamp")))
    router.on(LampLit, name="picky", retryable_exceptions=(OSError,))(picky := failing(99, ValueError()))
    router.on(LampLit, name="patient")(patient := failing(20, RetryAfter(3_600)))
    outcomes = await deliver(router, LIT)
    assert (outcomes["hopeless"].reason, len(hopeless.calls)) == ("non_retryable", 1)
    assert (outcomes["picky"].reason, len(picky.calls)) == ("non_retryable", 1)
    assert (outcomes["patient"].state, len(patient.calls)) == ("done", 21)
    assert outcomes["patient"].attempts[0].retry_in == 3_600

    once = await deliver(router, LIT, deliveries=1)
    assert once["patient"].state == "done"
    router.on(LampLit, name="later")(failing(1, RetryAfter(60)))
    assert (await deliver(router, LIT, deliveries=1))["later"].state == "waiting"


async def test_a_time_limit_is_kept_and_a_cancelled_delivery_ends() -> None:
    router = EventRouter(max_deliveries=1)
    begun = asyncio.Event()

    @router.on(LampLit, timeout=0.01, retries=1)
    async def slow(event: LampLit) -> None:
        await asyncio.Event().wait()

    @router.on(LampDimmed)
    async def endless(event: LampDimmed) -> None:
        begun.set()
        await asyncio.Event().wait()

    outcome = (await deliver(router, LIT)).dead("slow", HandlerTimeoutError)
    assert [type(one.error) for one in outcome.attempts] == [HandlerTimeoutError] * 2

    task = asyncio.create_task(deliver(router, LampDimmed(lamp="l-1")))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_time_limit_that_ends_soon_after_a_late_begin_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine, a part of the time may be over before the handler begins."""
    handle = correlation.handle

    def late(correlation_id: str | None, causation_id: str) -> None:
        time.sleep(0.02)
        handle(correlation_id, causation_id)

    monkeypatch.setattr(correlation, "handle", late)
    router = EventRouter(max_deliveries=1)

    @router.on(LampLit, timeout=0.01)
    async def slow(event: LampLit) -> None:
        await asyncio.Event().wait()

    outcome = (await deliver(router, LIT)).dead("slow", HandlerTimeoutError)
    assert [type(one.error) for one in outcome.attempts] == [HandlerTimeoutError]


async def test_a_router_with_any_options_is_delivered_to() -> None:
    details: list[object] = []
    router = EventRouter(
        concurrency=5,
        order_by="lamp",
        exclusive=True,
        trim="acknowledged",
        dlq_stream="lamps:dead",
        max_deliveries=1,
        observers=[details.append],
    )
    router.on(LampLit, name="broken")(failing(99, ValueError("no bulb")))
    outcomes = await deliver(router, LIT)
    assert outcomes.dead("broken").error_text == "ValueError: no bulb"
    assert [type(detail) for detail in details if isinstance(detail, HandlerFailed)] == [HandlerFailed]
    assert router.counters.total("failed") == 0, "a rehearsal is not counted"


async def test_an_event_that_cannot_be_emitted_is_not_delivered() -> None:
    router = EventRouter()
    router.on(LampLit)(failing(0, ValueError()))
    with pytest.raises(SerializationError, match="watts"):
        await deliver(router, LampLit(lamp="l-1", watts=float("inf")))
    with pytest.raises(ValueError, match="deliveries must be a whole number from 1, not 0"):
        await deliver(router, LIT, deliveries=0)


async def outcomes_of_two() -> Outcomes:
    router = EventRouter(stream="lamps", group="house", max_deliveries=2, redelivery_backoff=constant(7.0))
    router.on(LampLit, name="broken")(failing(99, ValueError("no bulb")))
    router.on(LampLit, name="steady")(failing(0, ValueError()))
    return await deliver(router, LIT)


TEXT = (
    "of 'lamp.lit' in group 'house' on stream 'lamps':\n"
    "  broken: dead (max_deliveries_exceeded), 2 attempts in 2 deliveries\n"
    "    delivery 1, attempt 1: ValueError: no bulb; the next one 7 s later\n"
    "    delivery 2, attempt 1: ValueError: no bulb\n"
    "  steady: done, 1 attempt"
)


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        (lambda outcomes: outcomes.done(), "expected all handlers to be done, but "),
        (lambda outcomes: outcomes.done("broken"), "expected handler 'broken' to be done, but "),
        (lambda outcomes: outcomes.dead("steady"), "expected handler 'steady' to be dead, but "),
        (lambda outcomes: outcomes.dead("broken", OSError), "expected handler 'broken' to be dead by OSError, but "),
        (lambda outcomes: outcomes["ghost"], "expected handler 'ghost' to run, but "),
    ],
)
async def test_a_failed_assertion_says_what_became_of_each_handler(check: Any, expected: str) -> None:
    with pytest.raises(AssertionError) as raised:
        check(await outcomes_of_two())
    assert str(raised.value) == f"{expected}{TEXT}"


async def test_an_event_without_a_handler_is_not_done() -> None:
    router = EventRouter(stream="lamps", group="house")
    router.on(LampLit)(failing(0, ValueError()))
    outcomes = await deliver(router, LampDimmed(lamp="l-1"))
    assert len(outcomes) == 0
    with pytest.raises(AssertionError, match=r"no handler of group 'house' on stream 'lamps' is for 'lamp\.dimmed'"):
        outcomes.done()
