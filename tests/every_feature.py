"""All that Rapids does for one event and another, once, over whatever leads to Redis."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis

from rapids import DeadLetterQueue, EventEmitter
from rapids.dead_letters import Canary, OperationKind, Selector
from rapids.exceptions import NonRetryableError
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    add,
    letters,
    make_router,
    replay_stream,
    running,
    until_settled,
)


async def use_every_feature(
    client: Redis, redis: Redis, *, stream: str = STREAM, dlq: str = DLQ, block_ms: int = 500, **options: Any
) -> None:
    """Emit, read, fail, wait, reclaim, dead-letter, list, replay, discard, restore, operate, lag, stop: by one client.

    `redis` is for what others do, and for looking at what is left. `options` are the router's.
    """
    seen: list[Any] = []
    router = make_router(client, stream=stream, dlq_stream=dlq, claim_min_idle_ms=1_000, block_ms=block_ms, **options)
    works = False

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append((event.number, event.text))
        if event.number == 1 and not works:
            raise NonRetryableError("no")
        if event.number == 2 and seen.count((2, "é")) < 3:
            raise ValueError

    await EventEmitter(redis, stream).emit(DvOrder(number=0))
    await redis.xgroup_create(stream, GROUP, "0")
    [[_, [[entry_id, _]]]] = await redis.xreadgroup(GROUP, "dead", {stream: ">"})
    await redis.xclaim(stream, GROUP, "dead", 0, [entry_id], idle=60_000, justid=True)
    async with running(router):
        ids = await EventEmitter(client, stream).emit([DvOrder(number=number, text="é") for number in (1, 2, 3)])
        assert len(ids) == 3
        await add(redis, [b"event_type", b"dv.order", b"data", b"\xff"], stream)
        await until_settled(redis, stream)
        assert sorted(seen) == [(0, ""), (1, "é"), (2, "é"), (2, "é"), (2, "é"), (3, "é")]

        queue = DeadLetterQueue(client, dlq)
        page = await queue.list()
        assert [letter.handler for letter in page.items] in (["", "handle"], ["handle", ""])
        assert {letter.data for letter in page.items} == {b"\xff", '{"number":1,"text":"é"}'.encode()}
        works = True
        [replayed] = [letter.id for letter in page.items if letter.handler]
        [unread] = [letter.id for letter in page.items if not letter.handler]
        await queue.replay(replayed)
        await eventually(lambda: seen.count((1, "é")) == 2)
        await queue.discard(unread)
        assert (await queue.restore(unread)).state == "dead"
        assert [letter.id for letter in (await queue.list()).items] == [unread]
        assert [change.action for change in (await queue.get(unread)).history] == ["discarded", "restored"]

        strange = await add(redis, [b"original_stream", b"", b"data", b"{}"], dlq)
        wanted: tuple[tuple[OperationKind, int], ...] = (("replay", 0), ("discard", 1))
        for kind, done in wanted:
            canary = Canary() if kind == "replay" else None
            begun = await queue.operations.start(kind, Selector(ids=(strange,)), canary=canary)
            result = await queue.operations.run_until_ended(begun.id)
            assert (result.state, result.done, result.failed) == ("completed", done, 1 - done)
        assert len((await queue.operations.list()).items) == 2

        lag = await router.get_consumer_lag()
        assert (lag.stream_length, lag.pending_count) == (5, 0)
        assert lag.lag in (0, None)  # which Redis 6.2 does not know
        assert lag.last_delivered_id
        await eventually(lambda: _is_empty(redis, replay_stream(stream)))
    assert len(await letters(redis, dlq)) == 1


async def _is_empty(redis: Redis, stream: str) -> bool:
    return await redis.xlen(stream) == 0
