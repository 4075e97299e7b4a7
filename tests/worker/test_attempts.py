"""A handler's options: time-out, quick retries, backoff, what may be retried; and what a handler can ask for itself."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import current_delivery
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError, RetryAfter
from tests.support import eventually
from tests.worker.helpers import (
    STREAM,
    DvOrder,
    check_keys,
    fields_of,
    letters,
    make_emitter,
    make_router,
    running,
    until_settled,
)


async def fate_of(redis: Redis, handler: Any, router_options: dict[str, Any] | None = None, **options: Any) -> Any:
    """Run one event through one handler, until the group is done with it: its dead letter, or None."""
    router = make_router(redis, **(router_options or {}))
    router.on(DvOrder, **options)(handler)
    async with running(router):
        await make_emitter(redis).emit(DvOrder(number=1))
        await until_settled(redis)
    await check_keys(redis)
    found = await letters(redis)
    assert len(found) <= 1
    return found[0] if found else None


class Failing:
    """A handler that raises these errors, one a run, and then works. It notes each run's delivery and attempt."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.runs: list[tuple[int, int]] = []
        self.spent: list[int] = []
        self.times: list[float] = []

    async def __call__(self, event: DvOrder) -> None:
        delivery = current_delivery()
        assert delivery is not None
        self.runs.append((delivery.deliveries, delivery.attempt))
        self.spent.append(delivery.spent)
        self.times.append(asyncio.get_running_loop().time())
        if self.errors:
            raise self.errors.pop(0)


# --- retries and redelivery -----------------------------------------------------------------------------------------


async def test_a_handler_that_works_runs_once(redis: Redis) -> None:
    handler = Failing()
    assert await fate_of(redis, handler, retries=3) is None
    assert handler.runs == [(1, 1)]


async def test_retries_are_quick_attempts_within_a_delivery(redis: Redis) -> None:
    handler = Failing(ValueError(), ValueError())
    assert await fate_of(redis, handler, retries=2) is None
    assert handler.runs == [(1, 1), (1, 2), (1, 3)]


async def test_after_the_quick_attempts_comes_another_delivery(redis: Redis) -> None:
    handler = Failing(*(ValueError() for _ in range(3)))
    assert await fate_of(redis, handler, retries=1) is None
    assert handler.runs == [(1, 1), (1, 2), (2, 1), (2, 2)]


async def test_the_router_s_default_retries_hold_unless_the_handler_has_its_own(redis: Redis) -> None:
    handler = Failing(ValueError(), ValueError())
    await fate_of(redis, handler, {"default_retries": 2})
    assert handler.runs == [(1, 1), (1, 2), (1, 3)]


async def test_a_handler_may_have_fewer_retries_than_the_router(redis: Redis) -> None:
    handler = Failing(ValueError())
    await fate_of(redis, handler, {"default_retries": 2}, retries=0)
    assert handler.runs == [(1, 1), (2, 1)]


async def test_a_handler_is_dead_after_the_last_delivery(redis: Redis) -> None:
    handler = Failing(*(ValueError(f"no. {number}") for number in range(10)))
    letter = await fate_of(redis, handler, {"max_deliveries": 3}, retries=1)
    assert handler.runs == [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)]
    assert letter[b"reason"] == b"max_deliveries_exceeded"
    assert (letter[b"error"], letter[b"error_type"], letter[b"deliveries"]) == (b"no. 5", b"ValueError", b"3")
    assert b"in __call__" in letter[b"traceback"]


async def test_max_deliveries_of_one_means_no_second_delivery(redis: Redis) -> None:
    handler = Failing(ValueError())
    assert (await fate_of(redis, handler, {"max_deliveries": 1}))[b"deliveries"] == b"1"
    assert handler.runs == [(1, 1)]


async def test_the_backoff_decides_the_wait_after_each_failed_attempt(redis: Redis) -> None:
    asked: list[int] = []

    def backoff(failures: int) -> float:
        asked.append(failures)
        return 0.1 * failures

    handler = Failing(ValueError(), ValueError())
    await fate_of(redis, handler, retries=5, backoff=backoff)

    assert asked == [1, 2]
    first, second, third = handler.times
    assert 0.09 < second - first < 0.19
    assert 0.19 < third - second < 0.4


async def test_the_default_backoff_holds_unless_the_handler_has_its_own(redis: Redis) -> None:
    handler = Failing(ValueError())
    await fate_of(redis, handler, {"default_backoff": constant(0.1), "default_retries": 1})
    assert 0.09 < handler.times[1] - handler.times[0] < 0.4


async def test_the_redelivery_backoff_is_waited_for_between_deliveries(redis: Redis) -> None:
    asked: list[int] = []

    def backoff(failures: int) -> float:
        asked.append(failures)
        return 0.1

    handler = Failing(ValueError(), ValueError())
    await fate_of(redis, handler, {"redelivery_backoff": backoff})

    assert asked == [1, 2]
    assert 0.09 < handler.times[1] - handler.times[0] < 0.5


@pytest.mark.parametrize("nonsense", [float("nan"), float("inf"), -5.0, "soon", None])
async def test_a_backoff_that_returns_no_valid_number_means_no_wait(redis: Redis, nonsense: Any) -> None:
    handler = Failing(ValueError(), ValueError())
    options = {"redelivery_backoff": lambda failures: nonsense}
    await asyncio.wait_for(fate_of(redis, handler, options, retries=1, backoff=lambda failures: nonsense), 30)
    assert handler.runs == [(1, 1), (1, 2), (2, 1)]


async def test_a_backoff_that_raises_means_no_wait(redis: Redis) -> None:
    def broken(failures: int) -> float:
        raise KeyError

    handler = Failing(ValueError(), ValueError())
    await fate_of(redis, handler, {"redelivery_backoff": broken}, retries=1, backoff=broken)
    assert handler.runs == [(1, 1), (1, 2), (2, 1)]


# --- time-outs ------------------------------------------------------------------------------------------------------


async def test_a_handler_that_takes_too_long_is_a_time_out(redis: Redis) -> None:
    stopped = asyncio.Event()

    async def slow(event: DvOrder) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()

    letter = await fate_of(redis, slow, {"max_deliveries": 1}, timeout=0.05)

    assert stopped.is_set()
    assert letter[b"error_type"] == b"rapids.exceptions.HandlerTimeoutError"
    assert b"0.05 s" in letter[b"error"]
    assert b"'slow'" in letter[b"error"]
    assert b"in slow" in letter[b"traceback"]


async def test_the_router_s_time_out_holds_unless_the_handler_has_its_own(redis: Redis) -> None:
    async def slow(event: DvOrder) -> None:
        await asyncio.sleep(0.2)

    letter = await fate_of(redis, slow, {"max_deliveries": 1, "handler_timeout": 0.05})
    assert letter[b"error_type"] == b"rapids.exceptions.HandlerTimeoutError"
    await redis.flushall()
    assert await fate_of(redis, slow, {"max_deliveries": 1, "handler_timeout": 0.05}, timeout=5) is None


async def test_a_time_out_of_the_handlers_own_is_not_ours(redis: Redis) -> None:
    letter = await fate_of(redis, Failing(TimeoutError("their server")), {"max_deliveries": 1}, timeout=5)
    assert (letter[b"error_type"], letter[b"error"]) == (b"TimeoutError", b"their server")


async def test_a_time_out_counts_as_a_failed_attempt(redis: Redis) -> None:
    runs: list[int] = []

    async def slow_at_first(event: DvOrder) -> None:
        runs.append(1)
        if len(runs) < 3:
            await asyncio.sleep(30)

    assert await fate_of(redis, slow_at_first, timeout=0.05, retries=2) is None
    assert len(runs) == 3


# --- what may be retried --------------------------------------------------------------------------------------------


async def test_an_error_that_is_listed_is_retried(redis: Redis) -> None:
    handler = Failing(ConnectionResetError(), ValueError())
    assert await fate_of(redis, handler, retries=2, retryable_exceptions=(ConnectionError, ValueError)) is None
    assert handler.runs == [(1, 1), (1, 2), (1, 3)]


async def test_an_error_that_is_not_listed_is_dead_at_once(redis: Redis) -> None:
    handler = Failing(ValueError("not that one"))
    letter = await fate_of(redis, handler, retries=5, retryable_exceptions=(ConnectionError,))
    assert handler.runs == [(1, 1)]
    assert (letter[b"reason"], letter[b"error_type"]) == (b"non_retryable", b"ValueError")
    assert letter[b"error"] == b"not that one"


async def test_an_empty_list_restricts_nothing(redis: Redis) -> None:
    handler = Failing(ValueError())
    assert await fate_of(redis, handler, retries=1, retryable_exceptions=()) is None
    assert handler.runs == [(1, 1), (1, 2)]


async def test_our_time_out_is_listed_by_time_out_error(redis: Redis) -> None:
    runs: list[int] = []

    async def slow_at_first(event: DvOrder) -> None:
        runs.append(1)
        if len(runs) == 1:
            await asyncio.sleep(30)

    assert await fate_of(redis, slow_at_first, timeout=0.05, retries=1, retryable_exceptions=(TimeoutError,)) is None
    assert len(runs) == 2


async def test_our_time_out_is_dead_at_once_where_it_is_not_listed(redis: Redis) -> None:
    async def slow(event: DvOrder) -> None:
        await asyncio.sleep(30)

    letter = await fate_of(redis, slow, timeout=0.05, retries=3, retryable_exceptions=(ValueError,))
    assert letter[b"reason"] == b"non_retryable"
    assert letter[b"error_type"] == b"rapids.exceptions.HandlerTimeoutError"


# --- what a handler may ask for -------------------------------------------------------------------------------------


async def test_non_retryable_error_is_dead_at_once(redis: Redis) -> None:
    handler = Failing(NonRetryableError("the card was declined"))
    letter = await fate_of(redis, handler, retries=5)
    assert handler.runs == [(1, 1)]
    assert (letter[b"reason"], letter[b"error"]) == (b"non_retryable", b"the card was declined")
    assert letter[b"error_type"] == b"rapids.exceptions.NonRetryableError"


async def test_non_retryable_error_around_a_cause_is_described_by_its_cause(redis: Redis) -> None:
    letter = await fate_of(redis, Failing(NonRetryableError("pay", KeyError("amount"), "event-1")))
    assert (letter[b"error_type"], letter[b"error"]) == (b"KeyError", b"'amount'")


async def test_retry_after_ends_the_delivery_and_sets_the_wait(redis: Redis) -> None:
    handler = Failing(RetryAfter(0.2, "busy"))
    assert await fate_of(redis, handler, {"redelivery_backoff": constant(30)}, retries=5) is None
    assert handler.runs == [(1, 1), (2, 1)]
    assert 0.19 < handler.times[1] - handler.times[0] < 1.0


async def test_each_handler_of_an_entry_waits_for_its_own_time(redis: Redis) -> None:
    patient, hasty = Failing(RetryAfter(1.0)), Failing(*(ValueError(number) for number in range(4)))
    router = make_router(redis, max_deliveries=4)
    router.on(DvOrder, name="patient")(patient)
    router.on(DvOrder, name="hasty")(hasty)
    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: letters(redis))
        assert patient.spent == [1], "it ran though its time had not come"
        await until_settled(redis)
    assert hasty.spent == [1, 2, 3, 4]
    assert patient.spent == [1, 1], "deliveries on which it did not run counted against it, or its own postponement"
    assert patient.times[1] - patient.times[0] > 0.99
    assert [letter[b"handler"] for letter in await letters(redis)] == [b"hasty"]
    await check_keys(redis)


async def test_retry_after_is_obeyed_though_it_is_not_listed(redis: Redis) -> None:
    handler = Failing(RetryAfter(0))
    assert await fate_of(redis, handler, retryable_exceptions=(ConnectionError,)) is None
    assert handler.runs == [(1, 1), (2, 1)]


async def test_retry_after_spends_no_delivery(redis: Redis) -> None:
    handler = Failing(*(RetryAfter(0, "busy") for _ in range(5)), ValueError(), RetryAfter(0), ValueError("at last"))
    letter = await fate_of(redis, handler, {"max_deliveries": 2})
    assert handler.runs == [(number, 1) for number in range(1, 9)]
    assert handler.spent == [1, 1, 1, 1, 1, 1, 2, 2]
    assert (letter[b"reason"], letter[b"error"]) == (b"max_deliveries_exceeded", b"at last")
    assert letter[b"deliveries"] == b"8"


async def test_retry_after_of_the_last_delivery_is_no_failure(redis: Redis) -> None:
    handler = Failing(RetryAfter(0), RetryAfter(0))
    assert await fate_of(redis, handler, {"max_deliveries": 1}) is None
    assert handler.spent == [1, 1, 1]


def grouped(*errors: Exception, depth: int = 1) -> ExceptionGroup[Exception]:
    group = ExceptionGroup("group", list(errors))
    return group if depth == 1 else grouped(group, KeyError("beside it"), depth=depth - 1)


@pytest.mark.parametrize("depth", [1, 2, 5])
async def test_non_retryable_error_in_a_group_is_dead_at_once(redis: Redis, depth: int) -> None:
    handler = Failing(grouped(RetryAfter(0), NonRetryableError("declined"), depth=depth))
    letter = await fate_of(redis, handler, retries=5)
    assert handler.runs == [(1, 1)]
    assert (letter[b"reason"], letter[b"error_type"]) == (b"non_retryable", b"ExceptionGroup")
    assert b"declined" in letter[b"traceback"]


@pytest.mark.parametrize("depth", [1, 2, 5])
async def test_of_several_waits_in_a_group_the_longest_holds(redis: Redis, depth: int) -> None:
    handler = Failing(grouped(RetryAfter(0), RetryAfter(0.3), RetryAfter(0.1), depth=depth))
    options = {"redelivery_backoff": constant(30), "max_deliveries": 1}
    assert await fate_of(redis, handler, options, retries=5) is None
    assert handler.runs == [(1, 1), (2, 1)]
    assert handler.spent == [1, 1]
    assert 0.29 < handler.times[1] - handler.times[0] < 10


async def test_what_a_task_group_s_task_asks_for_is_done(redis: Redis) -> None:
    asked: list[Exception] = [RetryAfter(0), NonRetryableError("declined")]

    async def ask() -> None:
        raise asked.pop(0)

    async def pay(event: DvOrder) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask())

    letter = await fate_of(redis, pay, {"max_deliveries": 1})
    assert (letter[b"reason"], letter[b"deliveries"]) == (b"non_retryable", b"2")


@pytest.mark.parametrize(
    ("errors", "attempts"),
    [((ConnectionError(),), 2), ((ConnectionError(), RetryAfter(0)), 2), ((ConnectionError(), ValueError()), 1)],
)
async def test_a_group_is_retried_if_all_its_errors_are_listed(
    redis: Redis, errors: tuple[Exception, ...], attempts: int
) -> None:
    handler = Failing(grouped(*errors))
    letter = await fate_of(redis, handler, retries=1, retryable_exceptions=(ConnectionError,))
    assert len(handler.runs) == attempts
    assert (letter is None) == (attempts == 2)


# --- errors of other kinds ------------------------------------------------------------------------------------------


class DvOddError(BaseException):
    """Not an `Exception`: `except Exception` does not see it."""


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError("theirs"), DvOddError("odd"), GeneratorExit(), StopIteration()]
)
async def test_no_error_of_a_handler_ends_the_router(redis: Redis, error: BaseException) -> None:
    handler = Failing(error)
    assert await fate_of(redis, handler, retries=1) is None
    assert handler.runs == [(1, 1), (1, 2)]


async def test_all_errors_of_an_exception_group_are_described(redis: Redis) -> None:
    letter = await fate_of(
        redis, Failing(ExceptionGroup("both", [ValueError("one"), KeyError("two")])), {"max_deliveries": 1}
    )
    assert letter[b"error_type"] == b"ExceptionGroup"
    assert b"one" in letter[b"traceback"]
    assert b"two" in letter[b"traceback"]


async def test_the_error_of_a_quick_retry_is_shown_without_the_one_before(redis: Redis) -> None:
    errors = [ValueError("first"), KeyError("second"), TypeError("third"), OSError("last")]
    left = list(errors)

    async def handle(event: DvOrder) -> None:
        await asyncio.sleep(0)
        raise left.pop(0)

    letter = await fate_of(redis, handle, {"max_deliveries": 2}, retries=1)
    assert b"last" in letter[b"traceback"]
    assert b"During handling" not in letter[b"traceback"]
    assert all(error.__context__ is None for error in errors)


async def test_an_error_that_cannot_be_described_is_a_dead_letter_too(redis: Redis) -> None:
    class DvUntellableError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    letter = await fate_of(redis, Failing(DvUntellableError()), {"max_deliveries": 1})
    assert b"DvUntellableError" in letter[b"error_type"]


async def test_each_failed_attempt_and_delivery_is_logged_with_what_finds_the_entry(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    router = make_router(redis)
    router.on(DvOrder, retries=1, name="fails")(Failing(ValueError("secret")))
    with caplog.at_level(logging.DEBUG, "rapids"):
        async with running(router):
            entry_id = await make_emitter(redis).emit(DvOrder(text="payload"))
            await until_settled(redis)
    [record] = [record for record in caplog.records if "attempt 1 of 2" in record.getMessage()]
    details = vars(record)
    assert (details["stream"], details["group"], details["entry_id"]) == (router.stream, router.group, entry_id)
    assert (details["handler"], details["deliveries"], details["error_type"]) == ("fails", 1, "ValueError")
    assert "payload" not in caplog.text


async def test_an_entry_delivered_too_often_is_dead_without_being_run(redis: Redis) -> None:
    """Its processes died: the count shows that, though no failure was recorded."""
    handler = Failing()
    router = make_router(redis, max_deliveries=2, claim_min_idle_ms=50)
    router.on(DvOrder)(handler)
    await make_emitter(redis).emit(DvOrder())
    await redis.xgroup_create(router.stream, router.group, "0")
    [[_, [[entry_id, _]]]] = await redis.xreadgroup(router.group, "dead", {router.stream: ">"})
    await redis.xclaim(router.stream, router.group, "dead", 0, [entry_id], retrycount=2)

    async with running(router):
        await eventually(lambda: letters(redis))
        await until_settled(redis)

    assert handler.runs == []
    [letter] = await letters(redis)
    assert (letter[b"reason"], letter[b"deliveries"]) == (b"max_deliveries_exceeded", b"3")


# --- where it failed ------------------------------------------------------------------------------------------------


async def test_a_letter_has_the_position_in_the_users_code(redis: Redis) -> None:
    async def pay(event: DvOrder) -> None:
        await asyncio.wait_for(declined(), 30)

    async def declined() -> None:
        raise NonRetryableError("declined")

    letter = await fate_of(redis, pay)
    line = declined.__code__.co_firstlineno + 1
    assert letter[b"position"].decode() == f"{__name__}:{line} {declined.__qualname__}"


async def test_a_time_out_has_the_position_of_the_handler(redis: Redis) -> None:
    async def pay(event: DvOrder) -> None:
        await asyncio.Event().wait()

    letter = await fate_of(redis, pay, {"max_deliveries": 1}, timeout=0.05)
    line = pay.__code__.co_firstlineno + 1
    assert letter[b"position"].decode() == f"{__name__}:{line} {pay.__qualname__}"


async def test_an_event_that_cannot_be_read_has_a_position_too(redis: Redis) -> None:
    await redis.xadd(STREAM, fields_of(DvOrder()) | {b"data": b"no JSON"})  # type: ignore[arg-type]
    router = make_router(redis)
    router.on(DvOrder)(Failing())
    async with running(router):
        (letter,) = await eventually(lambda: letters(redis))
    assert letter[b"position"].startswith(b"rapids._wire.entry_format:")
