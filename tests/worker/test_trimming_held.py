"""Entries trimmed while a consumer holds them: what is in memory is not lost with them."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import EventRouter
from rapids.backoff import constant
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    check_keys,
    letters,
    looks,
    make_emitter,
    make_router,
    pending,
    running,
)


class Held:
    """A handler that waits until a test says whether it is to fail."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.go_on = asyncio.Event()
        self.fails = True

    async def __call__(self, event: DvOrder) -> None:
        self.seen.append(event.number)
        await self.go_on.wait()
        if self.fails:
            raise ValueError("no such account")


def router_with(redis: Redis, handler: Held, **options: Any) -> EventRouter:
    router = make_router(redis, **({"claim_min_idle_ms": 60, "claim_interval": 1, "block_ms": 20} | options))
    router.on(DvOrder, name="pay")(handler)
    return router


async def let_all_look(redis: Redis, times: int = 30) -> None:
    """Wait until everybody has looked for abandoned entries, more than once."""
    until = await looks(redis) + times
    await eventually(lambda: _looked(redis, until))


async def _looked(redis: Redis, until: int) -> bool:
    return await looks(redis) >= until


async def nothing_pending(redis: Redis) -> bool:
    return await pending(redis) == []


async def until_nothing_pending(redis: Redis) -> None:
    await eventually(lambda: nothing_pending(redis))


def losses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "lost" in record.getMessage()]


async def the_letter(redis: Redis) -> dict[str, str]:
    await eventually(lambda: letters(redis))
    [letter] = await letters(redis)
    return {as_text(name): as_text(value) for name, value in letter.items()}


# --- with other consumers of the group ------------------------------------------------------------------------------


@pytest.mark.parametrize("max_deliveries", [1, 5])
async def test_a_handler_that_outlives_its_entry_and_fails_leaves_a_letter(
    redis: Redis, caplog: pytest.LogCaptureFixture, max_deliveries: int
) -> None:
    held = Held()
    routers = [router_with(redis, held, max_deliveries=max_deliveries) for _ in range(2)]
    with caplog.at_level(logging.INFO, "rapids"):
        async with running(*routers):
            [entry_id] = await make_emitter(redis).emit([DvOrder(number=7, text="\u00fc")])
            await eventually(lambda: held.seen)
            await redis.xtrim(STREAM, maxlen=0, approximate=False)
            await let_all_look(redis)
            assert len(await pending(redis)) == 1, "a living process has it, and no other one may acknowledge it"
            held.go_on.set()
            letter = await the_letter(redis)
            await until_nothing_pending(redis)
    assert held.seen == [7]
    assert (letter["original_msg_id"], letter["handler"], letter["error_type"]) == (entry_id, "pay", "ValueError")
    assert '"number":7' in letter["data"]
    assert losses(caplog) == []
    await check_keys(redis)


async def test_a_handler_that_outlives_its_entry_and_succeeds_is_not_reported_as_lost(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    held.fails = False
    with caplog.at_level(logging.INFO, "rapids"):
        async with running(*(router_with(redis, held) for _ in range(2))):
            await make_emitter(redis).emit(DvOrder())
            await eventually(lambda: held.seen)
            await redis.xtrim(STREAM, maxlen=0, approximate=False)
            await let_all_look(redis)
            held.go_on.set()
            await until_nothing_pending(redis)
    assert losses(caplog) == []
    assert await letters(redis) == []


async def test_a_letter_is_written_though_a_foreign_consumer_acknowledged_the_entry(redis: Redis) -> None:
    """As consumers of other versions do with trimmed entries, and Redis itself when one is claimed."""
    held = Held()
    async with running(router_with(redis, held, claim_min_idle_ms=60_000)):
        [entry_id] = await make_emitter(redis).emit([DvOrder(number=7)])
        await eventually(lambda: held.seen)
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        await redis.xack(STREAM, GROUP, entry_id)
        held.go_on.set()
        letter = await the_letter(redis)
    assert (letter["original_msg_id"], letter["handler"]) == (entry_id, "pay")
    assert held.seen == [7]
    await check_keys(redis)


async def test_no_letter_is_written_for_an_entry_that_another_consumer_took(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have handled it before it was trimmed."""
    held = Held()
    with caplog.at_level(logging.WARNING, "rapids"):
        async with running(router_with(redis, held)):
            [entry_id] = await make_emitter(redis).emit([DvOrder()])
            await eventually(lambda: held.seen)
            await redis.xclaim(STREAM, GROUP, "other", 0, [entry_id])
            await eventually(lambda: "lease lost" in caplog.text)
            await redis.xack(STREAM, GROUP, entry_id)
            await redis.xtrim(STREAM, maxlen=0, approximate=False)
            held.go_on.set()
            await eventually(lambda: "settled by another consumer" in caplog.text)
    assert await letters(redis) == []


async def test_an_entry_of_a_dead_process_is_still_reported_as_lost(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    [entry_id] = await make_emitter(redis).emit([DvOrder()])
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    await redis.xtrim(STREAM, maxlen=0, approximate=False)
    with caplog.at_level(logging.ERROR, "rapids"):
        async with running(router_with(redis, Held())):
            await until_nothing_pending(redis)
    assert [record.lost for record in caplog.records if hasattr(record, "lost")] == [[entry_id]]


async def test_an_exclusive_consumer_acknowledges_trimmed_entries_of_another_one(redis: Redis) -> None:
    """Else it would wait for that one, which is on standby, before it read anything new."""
    await make_emitter(redis).emit(DvOrder(number=1))
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "other", {STREAM: ">"})
    await redis.set("{dv:events}:rapids:consumer:dv-group:other", "alive", px=60_000)
    await redis.xtrim(STREAM, maxlen=0, approximate=False)
    held = Held()
    async with running(router_with(redis, held, exclusive=True)):
        await make_emitter(redis).emit(DvOrder(number=2))
        await eventually(lambda: held.seen == [2])
        held.go_on.set()


# --- deliveries that were to come -----------------------------------------------------------------------------------


async def test_without_a_dead_letter_stream_the_entry_is_reported_as_lost(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    with caplog.at_level(logging.ERROR, "rapids"):
        async with running(router_with(redis, held, dlq_stream=None)):
            await make_emitter(redis).emit(DvOrder())
            await eventually(lambda: held.seen)
            await redis.xtrim(STREAM, maxlen=0, approximate=False)
            held.go_on.set()
            await until_nothing_pending(redis)
    assert len(losses(caplog)) == 1
    await check_keys(redis)


async def test_each_handler_that_was_to_run_again_has_its_letter(redis: Redis) -> None:
    router = make_router(redis, redelivery_backoff=constant(0.01))
    trimmed = asyncio.Event()

    @router.on(DvOrder)
    async def done(event: DvOrder) -> None: ...

    @router.on(DvOrder)
    async def first(event: DvOrder) -> None:
        raise KeyError("first")

    @router.on(DvOrder)
    async def second(event: DvOrder) -> None:
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        trimmed.set()
        raise ValueError("second")

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await trimmed.wait()
        await until_nothing_pending(redis)
    dead = {as_text(letter[b"handler"]): as_text(letter[b"error_type"]) for letter in await letters(redis)}
    assert dead == {"first": "KeyError", "second": "ValueError"}
    for letter in await letters(redis):
        assert letter[b"reason"] == b"non_retryable"
        assert b"trimmed from the stream" in letter[b"error"]


async def test_a_stop_writes_a_letter_for_an_entry_that_it_cannot_release(redis: Redis) -> None:
    """The running one is interrupted, the next one never begins: neither can be delivered again."""
    held = Held()
    router = router_with(redis, held, block_ms=500, shutdown_timeout=0.05)
    async with running(router):
        ids = await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
        await eventually(lambda: held.seen)
        await eventually(lambda: _has_pending(redis, 2))
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
    found = {as_text(letter[b"original_msg_id"]): as_text(letter[b"handler"]) for letter in await letters(redis)}
    assert found == {ids[0]: "pay", ids[1]: ""}
    await until_nothing_pending(redis)
    await check_keys(redis)


async def _has_pending(redis: Redis, count: int) -> bool:
    return len(await pending(redis)) == count
