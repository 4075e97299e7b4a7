"""Answers of Redis that are lost or late: no entry is lost, and none is settled twice."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from rapids import current_delivery
from rapids._storage import scripts
from rapids._worker import worker
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError, RedisUnavailableError
from tests.redis.proxy import proxy_to
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    calls,
    emit_orders,
    letters,
    make_router,
    running,
    until_settled,
)

SETTLE = scripts.load("settle").sha.encode()


async def test_a_kept_entry_due_before_the_lost_answer_was_noticed_runs_once_more_only(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ANSWER_TIMEOUT", 1.5)
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, seen, go_on = make_router(through, redelivery_backoff=constant(0.05)), [], asyncio.Event()

        def swallow(reply: bytes) -> bytes:
            """From the answer to the settlement on: sooner, and the settlement might not get through either."""
            proxy.swallows = True
            return b""

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            delivery = current_delivery()
            assert delivery is not None
            seen.append(delivery.deliveries)
            if delivery.deliveries == 1:
                proxy.rewrite_reply_to(SETTLE, swallow)
                raise ValueError
            await go_on.wait()

        other = make_router(redis, redelivery_backoff=constant(0.05), consumer="other", block_ms=200)

        @other.on(DvOrder)
        async def handle_too(event: DvOrder) -> None:
            seen.append(-1)

        await redis.script_load(scripts.load("settle").source)
        async with running(router):
            await asyncio.sleep(0.3)  # the first look for due entries is over: nothing else is to wait for its answer
            await emit_orders(redis, 0)
            await eventually(lambda: redis.exists(f"{{{STREAM}}}:rapids:due:{GROUP}"))
            await asyncio.sleep(1.2)
            proxy.swallows = False
            await eventually(lambda: len(seen) == 2)
            async with running(other):
                await looked(redis, 4)
                go_on.set()
                await until_settled(redis)
        assert seen == [1, 2]


async def looked(redis: Redis, times: int) -> None:
    """Wait until routers have looked so many times for what is abandoned or due."""
    before = await _looks(redis)
    await eventually(lambda: _has_looked(redis, before + times))


async def _looks(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if name.startswith("cmdstat_xinfo"))


async def _has_looked(redis: Redis, times: int) -> bool:
    return await _looks(redis) >= times


async def test_a_delivery_whose_answer_was_lost_runs_although_the_earlier_one_was_being_settled(
    redis: Redis, redis_url: str
) -> None:
    """The settlement comes too late for its delivery. The entry must not count as held until the process ends."""
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        options = {"consumer": "me", "redelivery_backoff": constant(0.05), "claim_min_idle_ms": 300}
        router, seen = make_router(through, **options), list[int]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            delivery = current_delivery()
            assert delivery is not None
            seen.append(delivery.deliveries)
            if delivery.deliveries == 1:
                proxy.hold_up(SETTLE)
                raise ValueError

        await redis.script_load(scripts.load("settle").source)
        async with running(router):
            await emit_orders(redis, 0)
            await eventually(lambda: proxy.holds)
            [(entry_id, _)] = await redis.xrange(STREAM)
            # As the reclaimer does with an entry that is due, when the answer is lost.
            await redis.xclaim(STREAM, GROUP, "me", 0, [entry_id])  # nothing, if the settlement was sent again by now
            proxy.let_through()
            await until_settled(redis)
        assert seen == [1, 2]


@pytest.mark.parametrize("parks", [True, False])
async def test_a_settlement_is_logged_although_its_answer_was_lost(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, parks: bool
) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through, dlq_stream=None if parks else DLQ)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            proxy.lose_reply_to(SETTLE)
            raise NonRetryableError("no")

        async with running(router):
            await redis.script_load(scripts.load("settle").source)
            await emit_orders(redis, 0)
            await eventually(lambda: "Redis is back" in caplog.text)
    wanted = "parked" if parks else "dead letter of handler"
    lines = [r.getMessage() for r in caplog.records]
    assert any(wanted in line for line in lines), "\n".join(lines)


async def test_a_letter_whose_answer_was_lost_is_not_written_again(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            proxy.lose_reply_to(SETTLE)
            raise NonRetryableError("no")

        await redis.script_load(scripts.load("settle").source)  # else the reply lost is NOSCRIPT
        async with running(router):
            await emit_orders(redis, 0)
            await eventually(lambda: "Redis is back" in caplog.text)
        assert len(await letters(redis)) == 1


async def test_an_entry_whose_read_lost_its_answer_still_runs_at_max_deliveries_1(redis: Redis, redis_url: str) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, seen = make_router(through, max_deliveries=1, claim_min_idle_ms=300), []

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)

        async with running(router):
            proxy.lose_reply_to(b"XREADGROUP")
            await eventually(lambda: not proxy.loses_next_reply)
            await emit_orders(redis, 0)
            await until_settled(redis)
        assert seen == [0], [letter[b"error"] for letter in await letters(redis)]


async def test_a_read_may_block_for_longer_than_other_answers_may_take(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker, "ANSWER_TIMEOUT", 0.3)
    router = make_router(redis, block_ms=700)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    await redis.config_resetstat()
    async with running(router):
        await eventually(lambda: _reads(redis, 4))
    assert "Redis unavailable" not in caplog.text


async def _reads(redis: Redis, count: int) -> bool:
    return (await calls(redis))["xreadgroup"] >= count


@pytest.mark.parametrize("command", [b"PING", b"CREATE", b"EVALSHA", b"SET", b"XLEN", b"XPENDING"])
async def test_a_start_that_loses_any_answer_raises_redis_unavailable(redis_url: str, command: bytes) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as client:
        router = make_router(client)

        @router.on(DvOrder)
        async def ignore(event: DvOrder) -> None: ...

        proxy.lose_reply_to(command)
        with pytest.raises(RedisUnavailableError):
            await asyncio.wait_for(router.start(), 30)
