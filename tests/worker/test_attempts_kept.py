"""Every failed attempt, from the handler into its dead letter: over deliveries, processes, stops and crashes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis

from rapids import Attempt, DeadLetter, DeadLetterQueue
from rapids._core.outcomes import Ledger
from rapids._storage.keys import Source
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError, RetryAfter
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    DvPayment,
    as_text,
    check_keys,
    fields_of,
    make_emitter,
    make_router,
    pending,
    running,
    until_settled,
)


class Failing:
    """A handler that raises errors that are numbered."""

    def __init__(self) -> None:
        self.runs = 0

    async def __call__(self, event: Any) -> None:
        self.runs += 1
        raise ValueError(f"error {self.runs}")


async def letter_of(redis: Redis) -> DeadLetter:
    """The only letter, once it is there."""
    queue = DeadLetterQueue(redis, DLQ)
    [letter] = await eventually(lambda: _items(queue))
    return letter


async def _items(queue: DeadLetterQueue) -> tuple[DeadLetter, ...]:
    return (await queue.list()).items


def attempts_of(letter: DeadLetter) -> list[tuple[int, int, str]]:
    return [(attempt.delivery, attempt.attempt, attempt.error) for attempt in letter.attempts]


async def test_a_letter_has_every_attempt_including_the_last_one(redis: Redis) -> None:
    router = make_router(redis, consumer="worker-1", max_deliveries=3, redelivery_backoff=constant(0.05))
    router.on(DvOrder, retries=1)(Failing())
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await until_settled(redis)

    letter = await letter_of(redis)
    assert attempts_of(letter) == [
        *((1, 1, "error 1"), (1, 2, "error 2")),
        *((2, 1, "error 3"), (2, 2, "error 4")),
        *((3, 1, "error 5"), (3, 2, "error 6")),
    ]
    assert letter.attempts_left_out == 0
    assert (letter.error, letter.deliveries) == ("error 6", 3)
    assert {(one.consumer, one.error_type, one.recorded) for one in letter.attempts} == {
        ("worker-1", "ValueError", True)
    }
    moments = [one.at for one in letter.attempts if one.at is not None]
    assert len(moments) == 6
    assert before <= moments[0]
    assert moments == sorted(moments)
    assert moments[2] - moments[1] >= timedelta(seconds=0.04)
    assert moments[-1] <= datetime.now(UTC)
    await check_keys(redis)


async def test_a_failure_that_is_not_retried_has_one_attempt(redis: Redis) -> None:
    router = make_router(redis, consumer="worker-1")

    @router.on(DvOrder)
    async def pay(event: DvOrder) -> None:
        raise NonRetryableError("declined")

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        letter = await letter_of(redis)

    (attempt,) = letter.attempts
    assert attempt == Attempt(1, 1, attempt.at, "worker-1", "rapids.exceptions.NonRetryableError", "declined")


async def test_an_unreadable_entry_has_one_attempt(redis: Redis) -> None:
    await redis.xadd(STREAM, fields_of(DvOrder()) | {b"data": b"no JSON"})  # type: ignore[arg-type]
    router = make_router(redis, consumer="worker-1")
    router.on(DvOrder)(Failing())
    async with running(router):
        letter = await letter_of(redis)
    (attempt,) = letter.attempts
    assert (attempt.delivery, attempt.attempt, attempt.consumer) == (1, 1, "worker-1")
    assert letter.error.startswith(attempt.error)


async def test_each_attempt_names_its_consumer(redis: Redis) -> None:
    handler = Failing()

    def router_of(consumer: str) -> Any:
        router = make_router(redis, consumer=consumer, max_deliveries=2, redelivery_backoff=constant(1.0))
        router.on(DvOrder, name="pay")(handler)
        return router

    async with running(router_of("first")):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: handler.runs == 1)
    async with running(router_of("second")):
        letter = await letter_of(redis)

    assert [(attempt.delivery, attempt.consumer) for attempt in letter.attempts] == [(1, "first"), (2, "second")]


async def test_a_delivery_whose_process_died_is_marked_as_unrecorded(redis: Redis) -> None:
    entry_id = await make_emitter(redis).emit(DvOrder())
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    await redis.execute_command("XCLAIM", STREAM, GROUP, "dead", 0, entry_id, "IDLE", 90_000, "RETRYCOUNT", 2)
    router = make_router(redis, consumer="worker-1", max_deliveries=3, claim_min_idle_ms=1_000)
    router.on(DvOrder)(Failing())
    async with running(router):
        letter = await letter_of(redis)

    assert [(one.delivery, one.recorded, one.consumer) for one in letter.attempts] == [
        *((1, False, ""), (2, False, "")),
        (3, True, "worker-1"),
    ]
    assert letter.attempts[0] == Attempt(1)


async def test_failures_before_a_stop_are_kept_though_the_delivery_does_not_count(redis: Redis) -> None:
    handler = Failing()

    def router_of(consumer: str, seconds: float) -> Any:
        router = make_router(redis, consumer=consumer, max_deliveries=1)
        router.on(DvOrder, name="pay", retries=1, backoff=constant(seconds))(handler)
        return router

    async with running(router_of("first", 60)):  # stops while it waits for the second attempt
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: handler.runs == 1)
    [entry] = await pending(redis)
    assert entry["times_delivered"] == 0
    async with running(router_of("second", 0)):
        letter = await letter_of(redis)

    assert [(one.delivery, one.attempt, one.consumer) for one in letter.attempts] == [
        *((1, 1, "first"), (1, 1, "second")),
        (1, 2, "second"),
    ]


async def test_failures_before_an_interruption_are_kept_too(redis: Redis) -> None:
    runs = list[str]()

    def router_of(consumer: str) -> Any:
        router = make_router(redis, consumer=consumer, max_deliveries=1, shutdown_timeout=0)

        @router.on(DvOrder, retries=1)
        async def pay(event: DvOrder) -> None:
            runs.append(consumer)
            if len(runs) == 2:
                await asyncio.Event().wait()
            raise ValueError(f"error {len(runs)}")

        @router.on(DvOrder)
        async def ship(event: DvOrder) -> None: ...

        return router

    async with running(router_of("first")):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: len(runs) == 2)
    async with running(router_of("second")):
        letter = await letter_of(redis)

    assert attempts_of(letter) == [(1, 1, "error 1"), (1, 1, "error 3"), (1, 2, "error 4")]
    assert letter.handler == "pay"


async def test_a_time_out_is_an_attempt_and_so_is_a_wait_that_was_asked_for(redis: Redis) -> None:
    router, runs = make_router(redis, max_deliveries=1), list[int]()

    @router.on(DvOrder, timeout=0.05)
    async def pay(event: DvOrder) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise RetryAfter(0.01, "the bank asks for patience")
        await asyncio.Event().wait()

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        letter = await letter_of(redis)

    assert [one.error_type for one in letter.attempts] == [
        "rapids.exceptions.RetryAfter",
        "rapids.exceptions.HandlerTimeoutError",
    ]


async def test_very_many_attempts_and_their_texts_are_bounded(redis: Redis) -> None:
    router = make_router(redis, max_deliveries=2)

    @router.on(DvOrder, retries=29, backoff=constant(0))
    async def pay(event: DvOrder) -> None:
        raise ValueError("x" * 10_000)

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        letter = await letter_of(redis)

    assert (len(letter.attempts), letter.attempts_left_out) == (20, 40)
    assert {len(one.error) for one in letter.attempts} == {300}
    assert letter.attempts[-1].attempt == 30


async def test_a_handler_that_succeeds_in_the_end_leaves_no_attempts(redis: Redis) -> None:
    router, runs = make_router(redis, dlq_stream=DLQ), list[int]()

    @router.on(DvOrder)
    async def pay(event: DvOrder) -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ConnectionError

    @router.on(DvOrder)
    async def ship(event: DvOrder) -> None:
        if len(runs) > 2:
            raise NonRetryableError("too late")
        raise RetryAfter(0.01)

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        letter = await letter_of(redis)
        await until_settled(redis)

    assert letter.handler == "ship"
    assert [one.delivery for one in letter.attempts] == [1, 2, 3]
    await check_keys(redis)


async def test_a_parked_entry_keeps_its_attempts_with_its_ledger(redis: Redis) -> None:
    router = make_router(redis, dlq_stream=None, max_deliveries=2)
    router.on(DvPayment, name="pay")(Failing())
    source = Source(STREAM, GROUP)
    async with running(router):
        entry_id = await make_emitter(redis).emit(DvPayment())
        await eventually(lambda: redis.hexists(source.parked, entry_id))

    ((handler, log),) = Ledger.load(await redis.hget(source.ledger, entry_id)).attempts
    assert handler == "pay"
    assert [one.error for one in log.kept] == ["error 1", "error 2"]


async def test_the_letter_of_a_replay_has_the_attempts_of_the_replay(redis: Redis) -> None:
    router = make_router(redis, max_deliveries=2)
    router.on(DvOrder, name="pay")(Failing())
    queue = DeadLetterQueue(redis, DLQ)
    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        first = await letter_of(redis)
        await queue.replay(first.id)
        second = await letter_of(redis)

    assert second.replay_of == first.id
    assert attempts_of(second) == [(1, 1, "error 3"), (2, 1, "error 4")]
    assert attempts_of(await queue.get(first.id)) == attempts_of(first) == [(1, 1, "error 1"), (2, 1, "error 2")]


async def test_without_a_failure_no_attempts_are_written(redis: Redis) -> None:
    router, handled = make_router(redis), list[str]()

    @router.on(DvOrder)
    async def pay(event: DvOrder) -> None:
        handled.append(as_text(event.id))

    async with running(router):
        await make_emitter(redis).emit([DvOrder() for _ in range(20)])
        await until_settled(redis)
        assert not await redis.exists(Source(STREAM, GROUP).ledger)
    assert len(handled) == 20
