"""Handlers, and other code of the user, that would end the process: `sys.exit`, as argparse calls it, and the like."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import field_validator
from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue
from rapids._core.failures import Failure
from rapids.delivery import Delivery
from rapids.exceptions import EditRefusedError
from rapids.observers import Detail
from tests.worker.helpers import (
    DLQ,
    STREAM,
    DvOrder,
    emit_orders,
    fields_of,
    letters,
    make_router,
    running,
    until_settled,
)

ENDINGS = [SystemExit(2), KeyboardInterrupt(), GeneratorExit()]


@pytest.mark.parametrize("error", ENDINGS, ids=repr)
async def test_an_exit_of_a_handler_is_its_failure_and_its_neighbours_run(redis: Redis, error: BaseException) -> None:
    attempts, seen = list[int](), list[int]()
    router = make_router(redis, max_deliveries=2)

    @router.on(DvOrder, retries=1)
    async def handle(event: DvOrder) -> None:
        if event.number == 1:
            attempts.append(event.number)
            raise error
        seen.append(event.number)

    @router.on(DvOrder)
    async def other(event: DvOrder) -> None:
        seen.append(-event.number)

    await emit_orders(redis, 0, 1, 2)
    async with running(router):
        await until_settled(redis)

    [letter] = await letters(redis)
    assert (letter[b"handler"], letter[b"reason"]) == (b"handle", b"max_deliveries_exceeded")
    assert letter[b"error_type"].decode() == type(error).__name__
    assert len(attempts) == 4, "two attempts on each of two deliveries"
    assert sorted(seen) == [-2, -1, 0, 0, 2], "the others run, and once each"


async def test_argparse_of_a_handler_leaves_a_letter(redis: Redis) -> None:
    import argparse

    router = make_router(redis, max_deliveries=1)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        argparse.ArgumentParser(prog="odd").parse_args(["--no-such-option"])

    await emit_orders(redis, 1)
    async with running(router):
        await until_settled(redis)
    [letter] = await letters(redis)
    assert (letter[b"error_type"], letter[b"error"]) == (b"SystemExit", b"2")


@pytest.mark.parametrize("error", ENDINGS, ids=repr)
async def test_an_exit_of_a_middleware_is_a_failure(redis: Redis, error: BaseException) -> None:
    async def leave(delivery: Delivery, call_next: Callable[[Delivery], Awaitable[None]]) -> None:
        raise error

    router = make_router(redis, max_deliveries=1, middleware=[leave])

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    await emit_orders(redis, 1)
    async with running(router):
        await until_settled(redis)
    [letter] = await letters(redis)
    assert letter[b"error_type"].decode() == type(error).__name__


@pytest.mark.parametrize("error", [*ENDINGS, asyncio.CancelledError("theirs")], ids=repr)
async def test_an_exit_of_other_code_of_the_user_ends_no_task(redis: Redis, error: BaseException) -> None:
    """`order_by`, backoffs and observers are plain functions that the tasks of a router call."""

    def order_by(event: Any) -> str:
        if event.number == 1:
            raise error
        return "key"

    def backoff(failures: int) -> float:
        raise error

    def observer(detail: Detail) -> None:
        raise error

    seen: list[int] = []
    router = make_router(
        redis, concurrency=2, order_by=order_by, redelivery_backoff=backoff, max_deliveries=2, observers=[observer]
    )

    @router.on(DvOrder, retries=1, backoff=backoff)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 2:
            raise ValueError

    await emit_orders(redis, 1, 2, 3)
    async with running(router):
        await until_settled(redis)
    assert {letter[b"error_type"].decode() for letter in await letters(redis)} == {
        Failure.of(error).error_type,
        "ValueError",
    }
    assert sorted(seen) == [2, 2, 2, 2, 3]


leaves: list[BaseException] = []


class DvLeaving(BaseEvent):
    number: int = 0

    @field_validator("number")
    @classmethod
    def leave(cls, number: int) -> int:
        if leaves and number == 1:
            raise leaves[0]
        return number


@pytest.mark.parametrize("error", [*ENDINGS, asyncio.CancelledError("theirs")], ids=repr)
async def test_an_exit_of_a_validator_is_an_entry_that_cannot_be_read(
    redis: Redis, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2):
        await redis.xadd(STREAM, fields_of(DvLeaving(number=number)))  # type: ignore[arg-type]
    monkeypatch.setattr(f"{__name__}.leaves", [error])
    seen: list[int] = []
    router = make_router(redis)

    @router.on(DvLeaving)
    async def handle(event: DvLeaving) -> None:
        seen.append(event.number)

    async with running(router):
        await until_settled(redis)
    [letter] = await letters(redis)
    assert letter[b"reason"] == b"deserialization_error"
    assert type(error).__name__.encode() in letter[b"error"]
    assert seen == [2]


@pytest.mark.parametrize("error", ENDINGS, ids=repr)
async def test_an_exit_of_a_validator_does_not_end_who_checks_or_replays_a_letter(
    redis: Redis, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    await redis.xadd(STREAM, fields_of(DvLeaving(number=1)))  # type: ignore[arg-type]
    monkeypatch.setattr(f"{__name__}.leaves", [error])
    router = make_router(redis)

    @router.on(DvLeaving)
    async def handle(event: DvLeaving) -> None: ...

    async with running(router):
        await until_settled(redis)
    queue = DeadLetterQueue(redis, DLQ)
    [letter] = (await queue.list()).items
    assert letter.check_parsing().outcome == "invalid"
    with pytest.raises(EditRefusedError, match=type(error).__name__):
        await queue.replay(letter.id, data={"number": 1})


WORKER = Path(__file__).with_name("ending_worker.py")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["signal", "interrupt", "task", "group"])
async def test_a_process_that_an_entry_ends_has_spent_a_delivery(redis: Redis, redis_address: str, way: str) -> None:
    """A signal's own exit still ends the process, and so does the exit of a task that the handler started."""
    await emit_orders(redis, 1, 2)
    for _ in range(2):
        worker = await asyncio.create_subprocess_exec(
            sys.executable, str(WORKER), redis_address, way, cwd=WORKER.parents[2]
        )
        await asyncio.wait_for(worker.wait(), 60)
    [letter] = await letters(redis)
    expected = b"KeyboardInterrupt" if way == "interrupt" else b"SystemExit"
    assert (letter[b"handler"], letter[b"error_type"]) == (b"handle", expected)
    assert (await redis.lrange("begun", 0, -1)).count(b"1") == 2
