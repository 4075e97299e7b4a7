"""Canaries: replays in steps that grow, each after the outcomes of the one before, and stopped by those that fail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, NonRetryableError
from rapids._storage import keys
from rapids.audit import AuditLog
from rapids.control import GroupControl
from rapids.dead_letters import Canary, CanaryStep, Operation, Operations, Selector, canary
from rapids.exceptions import OperationRunningError
from tests.dead_letters.operation_runs import ALL, has_done, replayed, run, runner_process, write_many
from tests.support import eventually
from tests.worker.helpers import DLQ, GROUP, STREAM, DvOrder, check_keys, make_router, replay_stream, running

CAREFUL = Canary(share=0.0)


@asynccontextmanager
async def handled_by(redis: Redis, handle: Callable[[int], object], **options: Any) -> AsyncIterator[None]:
    """Replays are handled, each number by a function that may raise."""
    router = make_router(redis, **options)

    @router.on(DvOrder, name="pay")
    async def pay(event: DvOrder) -> None:
        handle(event.number)

    async with running(router):
        yield


def refuse(number: int) -> None:
    raise NonRetryableError(f"no {number}")


async def seen(operations: Operations, operation_id: str, is_seen: Callable[[Operation], object]) -> Operation:
    """The operation as soon as it is as wanted."""

    async def look() -> Operation | None:
        operation = await operations.get(operation_id)
        return operation if is_seen(operation) else None

    found = await eventually(look)
    assert found is not None
    return found


def steps(operation: Operation) -> list[tuple[int, ...]]:
    """Of each step: size, sent, handled, failed again, waiting."""
    assert operation.canary is not None
    return [(one.size, one.sent, one.handled, one.failed_again, one.waiting) for one in operation.canary.steps]


def why(operation: Operation) -> str:
    assert operation.canary is not None
    return operation.canary.why


@pytest.mark.parametrize(
    ("counts", "share", "is_last", "is_overdue", "expected"),
    [
        ((5, 3, 0, 0, 3), 0.1, False, True, "send"),  # outcomes of a step that is not complete are not overdue
        ((5, 5, 4, 0, 1), 0.1, False, False, "wait"),
        ((5, 5, 4, 0, 1), 0.1, False, True, "overdue"),
        ((5, 5, 5, 0, 0), 0.1, False, True, "passed"),
        ((5, 5, 4, 1, 0), 0.2, False, False, "passed"),  # not more than the share
        ((5, 5, 4, 1, 0), 0.19, False, False, "failed_again"),
        ((5, 2, 1, 1, 0), 0.19, False, False, "failed_again"),  # also before all are sent
        ((1, 1, 0, 1, 0), 0.0, False, False, "failed_again"),
        ((25, 25, 0, 25, 0), 1.0, False, False, "passed"),
        ((25, 4, 3, 1, 0), 0.25, True, False, "passed"),  # the share of those that were sent
        ((25, 4, 3, 1, 0), 0.24, True, False, "failed_again"),
        ((25, 4, 3, 0, 1), 0.24, True, False, "wait"),
        ((25, 0, 0, 0, 0), 0.0, True, False, "passed"),
    ],
)
def test_the_verdict_on_a_step(
    counts: tuple[int, ...], share: float, is_last: bool, is_overdue: bool, expected: str
) -> None:
    step = CanaryStep(1, *counts)
    assert canary.verdict(step, share, is_last=is_last, is_overdue=is_overdue) == expected


def test_steps_grow_up_to_a_maximum() -> None:
    assert canary.first_sizes(1) == (1,)
    assert canary.first_sizes(40) == (1, 5, 25, 9)
    assert canary.first_sizes(10_000) == (1, 5, 25, 125, 625, 3_125, 3_125, 2_969)
    assert len(canary.first_sizes(1_000_000)) == 20


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"share": 1.1}, ValueError, r"share must be a number from 0 to 1, not 1\.1"),
        ({"share": float("nan")}, ValueError, "share must be a number from 0 to 1, not nan"),
        ({"share": "half"}, TypeError, "share must be a number from 0 to 1, not 'half'"),
        ({"wait": 0}, ValueError, "wait must be a finite number of seconds above 0, not 0"),
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Canary(**options)


async def test_only_a_replay_to_one_group_can_have_a_canary(redis: Redis) -> None:
    operations = DeadLetterQueue(redis, DLQ).operations
    for start in (operations.start, operations.preview):
        with pytest.raises(ValueError, match=r"canary must be None, or kind 'replay' .* not kind='discard'"):
            await start("discard", ALL, canary=CAREFUL)
        with pytest.raises(ValueError, match=r"canary .* not scope='everyone', whose outcomes are not known"):
            await start("replay", ALL, scope="everyone", canary=CAREFUL)
        with pytest.raises(TypeError, match=r"canary must be a Canary or None, not 0\.1"):
            await start("replay", ALL, canary=0.1)  # type: ignore[arg-type]


async def test_steps_grow_while_replays_succeed_and_the_last_has_what_is_left(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await write_many(redis, 40)
    assert (await queue.operations.preview("replay", ALL, canary=CAREFUL)).steps == (1, 5, 25, 9)
    numbers: list[int] = []
    async with handled_by(redis, numbers.append):
        begun = await queue.operations.start("replay", ALL, canary=CAREFUL, rate=500)
        assert steps(begun) == [(1, 0, 0, 0, 0)]
        result = await queue.operations.run_until_ended(begun.id)
    assert (result.state, result.done, result.upto) == ("completed", 40, begun.upto)
    assert steps(result) == [(1, 1, 1, 0, 0), (5, 5, 5, 0, 0), (25, 25, 25, 0, 0), (9, 9, 9, 0, 0)]
    assert result.canary is not None
    assert (result.canary.stopped, result.canary.why, result.canary.failures) == (None, "", ())
    assert sorted(numbers) == list(range(40))
    assert not [key for key in await check_keys(redis) if key.endswith(":replays")]


async def test_it_stops_by_itself_shows_both_errors_and_continues_as_a_person_decides(redis: Redis) -> None:
    broken = {2, 4}

    def handle(number: int) -> None:
        if number in broken:
            refuse(number)

    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 50)
    async with handled_by(redis, handle):
        begun = await queue.operations.start("replay", ALL, canary=Canary(share=0.2), actor="ann")
        result = await queue.operations.run_until_ended(begun.id)
        assert (result.state, result.done, result.is_stopped) == ("paused", 6, True)
        assert result.canary is not None
        assert (result.canary.stopped, result.canary.failed_again) == ("failed_again", 2)
        assert why(result) == "2 of 5 replays of step 2 failed again: a share of 0.4, and 0.2 is allowed"
        failed = await queue.failed_again(result)
        assert [one.failure.letter_id for one in failed] == [ids[2], ids[4]]
        errors = [(one.letter and one.letter.error, one.new_letter and one.new_letter.error) for one in failed]
        assert errors == [("declined", "no 2"), ("declined", "no 4")]
        with pytest.raises(OperationRunningError):
            await queue.operations.start("replay", ALL)
        assert await queue.operations.run_until_ended(begun.id) == result, "it waits for a person"

        broken.clear()
        broken.add(40)
        assert why(await queue.operations.resume(begun.id)) == ""
        result = await queue.operations.run_until_ended(begun.id)
        assert (result.state, result.done) == ("completed", 50)
        assert [one[:2] for one in steps(result)] == [(1, 1), (5, 5), (5, 5), (25, 25), (14, 14)]
        assert result.canary is not None
        assert result.canary.failed_again == 3
    started, paused, resumed, ended = reversed((await AuditLog(redis, DLQ).list()).items)
    assert json.loads(started.details["canary"]) == {"share": 0.2, "wait": 3600.0}
    assert (paused.action, paused.actor) == ("operation_paused", "ann")
    assert paused.reason.startswith("2 of 5 replays of step 2 failed again")
    assert (resumed.action, ended.action) == ("operation_resumed", "operation_completed")
    await check_keys(redis)


async def test_without_its_canary_the_rest_is_replayed_without_waiting(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 30)
    begun = await queue.operations.start("replay", ALL, canary=CAREFUL)  # nobody handles anything
    async with run(queue.operations):
        await eventually(lambda: has_done(queue, begun, 1))
        left = await queue.operations.resume(begun.id, canary=False, actor="ann")  # it need not be paused
        assert left.canary is None
        result = await seen(queue.operations, begun.id, lambda one: one.is_ended)
    assert (result.state, result.done, result.upto) == ("completed", 30, begun.upto)
    assert await replayed(redis) == ids
    log = (await AuditLog(redis, DLQ).list()).items
    assert [(one.action, one.details.get("canary")) for one in log][1] == ("operation_resumed", "ended")


async def test_a_step_waits_for_outcomes_says_why_and_pauses_when_they_do_not_come(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    async with handled_by(redis, lambda _: None):
        ...  # it creates the group
    await GroupControl(redis, STREAM, GROUP).pause(actor="ann", reason="the bank is down")
    await write_many(redis, 10)
    begun = await queue.operations.start("replay", ALL, canary=Canary(share=0.0, wait=2.5))
    async with run(queue.operations), handled_by(redis, lambda _: None):
        waits = await seen(queue.operations, begun.id, why)
        reason = f"group '{GROUP}' is paused by 'ann': 'the bank is down'"
        assert why(waits) == f"waits for 1 of 1 outcomes of step 1: {reason}"
        stopped = await seen(queue.operations, begun.id, lambda one: one.is_stopped)
        assert stopped.canary is not None
        assert stopped.canary.stopped == "overdue"
        assert why(stopped) == f"{why(waits)}; it has waited for 2.5 s"
        await GroupControl(redis, STREAM, GROUP).resume()
        await queue.operations.resume(begun.id)
        ended = await seen(queue.operations, begun.id, lambda one: one.is_ended)
    assert (ended.state, ended.done, sum(one[2] for one in steps(ended))) == ("completed", 10, 10)


async def test_a_group_without_a_living_consumer_is_named(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    async with handled_by(redis, lambda _: None):
        pass
    await write_many(redis, 2)
    begun = await queue.operations.start("replay", ALL, canary=CAREFUL)
    async with run(queue.operations):
        waits = await seen(queue.operations, begun.id, why)
        assert why(waits) == f"waits for 1 of 1 outcomes of step 1: group '{GROUP}' has no consumer that is alive"
        assert (await queue.operations.cancel(begun.id)).state == "cancelled"
    assert not await redis.exists(keys.operation_replays(DLQ, begun.id))


async def test_a_replay_that_waits_for_its_next_delivery_has_no_outcome_yet(redis: Redis) -> None:
    tried: list[int] = []

    def handle(number: int) -> None:
        tried.append(number)
        if tried.count(number) == 1:
            raise ValueError("not yet")

    queue = DeadLetterQueue(redis, DLQ)
    await write_many(redis, 3)
    async with handled_by(redis, handle, redelivery_backoff=lambda _: 1.5), run(queue.operations):
        begun = await queue.operations.start("replay", ALL, canary=CAREFUL)
        waits = await seen(queue.operations, begun.id, why)
        assert "has 1 waiting for their next delivery" in why(waits)
        ended = await seen(queue.operations, begun.id, lambda one: one.is_ended)
    assert [one[2:] for one in steps(ended)] == [(1, 0, 0), (2, 0, 0)]


async def test_letters_that_others_move_meanwhile_do_not_count_and_their_failures_do(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 10)
    begun = await queue.operations.start("replay", ALL, canary=CAREFUL)
    await queue.discard(ids[0])
    await queue.replay(ids[1])
    async with run(queue.operations):
        await seen(queue.operations, begun.id, lambda one: one.done == 1)
    async with handled_by(redis, refuse):  # while nobody runs the operation
        [new] = (await eventually(lambda: _new_letter(queue, ids[2]))) or ()
        await queue.discard(new)
    stopped = await queue.operations.run_until_ended(begun.id)
    assert (stopped.done, stopped.is_stopped) == (1, True)
    [failed] = await queue.failed_again(stopped)
    assert failed.new_letter is not None
    assert (failed.failure.letter_id, failed.new_letter.id, failed.new_letter.error) == (ids[2], new, "no 2")


async def test_a_step_takes_the_next_letters_in_place_of_those_that_are_gone(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 10)
    begun = await queue.operations.start("replay", ALL, canary=CAREFUL)
    async with run(queue.operations):
        await eventually(lambda: has_done(queue, begun, 1))
        discard = await queue.operations.start("discard", Selector(ids=(ids[1], ids[4])))
        await seen(queue.operations, discard.id, lambda one: one.is_ended)
        async with handled_by(redis, lambda _: None):
            ended = await seen(queue.operations, begun.id, lambda one: one.is_ended)
    assert (ended.done, ended.skipped) == (8, 2)
    assert [one[:3] for one in steps(ended)] == [(1, 1, 1), (5, 5, 5), (2, 2, 2)]


async def _new_letter(queue: DeadLetterQueue, letter_id: str) -> tuple[str, ...]:
    return (await queue.get(letter_id)).replays[0].letters


async def test_a_parked_replay_has_failed_and_a_lost_one_is_unknown(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await write_many(redis, 10)
    async with handled_by(redis, refuse, dlq_stream=None):
        begun = await queue.operations.start("replay", ALL, canary=CAREFUL)
        stopped = await queue.operations.run_until_ended(begun.id)
        [failed] = await queue.failed_again(stopped)
    assert (failed.failure.outcome, failed.new_letter) == ("parked", None)
    await queue.operations.resume(begun.id)
    async with run(queue.operations):
        await seen(queue.operations, begun.id, lambda one: one.done == 2)
        await redis.delete(replay_stream())
        stopped = await seen(queue.operations, begun.id, lambda one: one.is_stopped)
    assert [one.failure.outcome for one in await queue.failed_again(stopped)] == ["unknown"]


async def test_if_the_last_step_fails_it_has_ended_and_says_so(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await write_many(redis, 1)
    async with handled_by(redis, refuse):
        begun = await queue.operations.start("replay", ALL, canary=CAREFUL)
        ended = await queue.operations.run_until_ended(begun.id)
    assert ended.canary is not None
    assert (ended.state, ended.canary.stopped, why(ended)) == (
        "completed",
        "failed_again",
        "1 of 1 replays of step 1 failed again: a share of 1, and 0 is allowed",
    )
    assert (await queue.operations.start("replay", ALL)).state == "running"


async def test_a_process_of_0_2_that_takes_it_over_replays_nothing(redis: Redis) -> None:
    operations = DeadLetterQueue(redis, DLQ).operations
    [_, last] = await write_many(redis, 2)
    begun = await operations.start("replay", ALL, canary=CAREFUL)
    assert begun.upto == last
    assert await redis.hget(keys.operation(DLQ, begun.id), "upto") == b"0-0", "all that 0.2 knows of the selection"


@pytest.mark.slow
async def test_killed_in_a_step_it_continues_there(redis: Redis, redis_url: str) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 40)
    begun = await queue.operations.start("replay", ALL, canary=CAREFUL, rate=10)
    numbers: list[int] = []
    async with handled_by(redis, numbers.append):
        async with runner_process(redis_url) as process:
            await eventually(lambda: has_done(queue, begun, 12))  # of the third step
            process.kill()
        async with run(queue.operations):
            ended = await seen(queue.operations, begun.id, lambda one: one.is_ended)
    assert (ended.state, ended.done, ended.skipped) == ("completed", 40, 0)
    assert steps(ended) == [(1, 1, 1, 0, 0), (5, 5, 5, 0, 0), (25, 25, 25, 0, 0), (9, 9, 9, 0, 0)]
    assert sorted(numbers) == list(range(len(ids)))
