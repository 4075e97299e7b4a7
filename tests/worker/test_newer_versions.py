"""Entries of a newer schema version than their class: they are not read as an older one."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue
from rapids.backoff import constant
from tests.support import eventually
from tests.worker.helpers import DLQ, STREAM, add, fields_of, letters, make_router, running, until_settled


class DvVersioned(BaseEvent):
    schema_version: ClassVar[int] = 2

    number: int = 0


async def add_version(redis: Redis, version: int, number: int) -> None:
    fields: dict[bytes, bytes] = fields_of(DvVersioned(number=number)) | {b"schema_version": b"%d" % version}
    await add(redis, [part for field in fields.items() for part in field])


@pytest.mark.parametrize("options", [{}, {"concurrency": 2, "order_by": lambda event: event.number}], ids=["", "keys"])
async def test_a_newer_entry_is_delivered_again_and_becomes_a_letter(redis: Redis, options: dict[str, Any]) -> None:
    seen: list[int] = []
    router = make_router(redis, max_deliveries=3, **options)

    @router.on(DvVersioned)
    async def first(event: DvVersioned) -> None:
        seen.append(event.number)

    @router.on("dv.*")
    async def second(event: DvVersioned) -> None:
        seen.append(-event.number)

    for version in (1, 2, 3):
        await add_version(redis, version, version)
    async with running(router):
        await until_settled(redis)
    assert sorted(seen) == [-2, -1, 1, 2]
    found = await letters(redis)
    assert sorted(letter[b"handler"] for letter in found) == [b"first", b"second"]
    for letter in found:
        assert (letter[b"deliveries"], letter[b"reason"]) == (b"3", b"non_retryable")
        assert letter[b"error"] == b"its schema version is 3, and the class DvVersioned of this process has 2"


async def test_a_process_that_has_the_newer_class_takes_it(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    router = make_router(redis, redelivery_backoff=constant(0.05), max_deliveries=1_000)

    @router.on(DvVersioned)
    async def handle(event: DvVersioned) -> None:
        seen.append(event.number)

    await add_version(redis, 3, 1)
    async with running(router):
        await eventually(lambda: _is_waiting(redis))
        assert seen == []
    monkeypatch.setattr(DvVersioned, "schema_version", 3)
    async with running(router):
        await until_settled(redis)
    assert seen == [1]
    assert await letters(redis) == []


async def _is_waiting(redis: Redis) -> bool:
    return await redis.zcard("{dv:events}:rapids:due:dv-group") > 0


async def test_a_replay_of_a_newer_entry_is_not_read_either(redis: Redis) -> None:
    seen: list[int] = []
    router = make_router(redis, max_deliveries=1)

    @router.on(DvVersioned)
    async def handle(event: DvVersioned) -> None:
        seen.append(event.number)

    await add_version(redis, 3, 1)
    queue = DeadLetterQueue(redis, DLQ)
    async with running(router):
        [letter] = await eventually(lambda: letters(redis))
        [page_letter] = (await queue.list()).items
        await queue.replay(page_letter.id)
        await eventually(lambda: _replayed(redis, letter[b"letter_id"]))
    assert seen == []


async def _replayed(redis: Redis, before: bytes) -> bool:
    return [letter for letter in await letters(redis) if letter[b"letter_id"] != before] != []


async def test_a_newer_entry_that_no_class_could_read_is_a_letter_at_once(redis: Redis) -> None:
    router = make_router(redis)

    @router.on(DvVersioned)
    async def handle(event: DvVersioned) -> None: ...

    fields: dict[bytes, bytes] = fields_of(DvVersioned()) | {b"schema_version": b"3", b"data": b"no JSON"}
    await redis.xadd(STREAM, fields)  # type: ignore[arg-type]
    async with running(router):
        await until_settled(redis)
    [letter] = await letters(redis)
    assert (letter[b"reason"], letter[b"deliveries"]) == (b"deserialization_error", b"1")
