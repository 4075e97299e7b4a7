"""What was given to a consumer and never arrived is taken again at once, as the same delivery."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from rapids import current_delivery
from rapids._storage import scripts
from rapids.backoff import constant
from tests.redis.proxy import proxy_to
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    letters,
    make_emitter,
    make_router,
    running,
    until_settled,
)

FAR_LEASE = 3_600_000
"""A lease that no test waits for (milliseconds)."""


def deliveries() -> int:
    delivery = current_delivery()
    assert delivery is not None
    return delivery.deliveries


async def load_scripts(redis: Redis) -> None:
    for name in ("claim", "settle"):
        await redis.script_load(scripts.load(name).source)


@pytest.mark.parametrize("block_ms", [300, 600_000])
@pytest.mark.parametrize("options", [{}, {"exclusive": True}, {"concurrency": 3, "order_by": type}])
async def test_entries_of_lost_reads_run_once_in_order_as_their_first_delivery(
    redis: Redis, redis_url: str, options: dict[str, object], block_ms: int
) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through, max_deliveries=1, claim_min_idle_ms=FAR_LEASE, block_ms=block_ms, **options)
        seen = list[tuple[int, int]]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append((event.number, deliveries()))

        async with running(router):
            for number in range(3):
                proxy.lost_words.append(b"lost-%d;" % number)
                await make_emitter(redis).emit(DvOrder(number=number, text=f"lost-{number};"))
                await eventually(lambda: not proxy.lost_words)
            await make_emitter(redis).emit([DvOrder(number=3), DvOrder(number=4)])
            await until_settled(redis)
        assert seen == [(number, 1) for number in range(5)]
        assert await letters(redis) == []


@pytest.mark.slow
async def test_an_entry_is_no_dead_letter_before_its_handler_has_begun_that_often(redis: Redis, redis_url: str) -> None:
    """The answer with it is lost again and again: that of the read, those that fetch it, those that claim it."""
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, seen = make_router(through, max_deliveries=2, claim_min_idle_ms=FAR_LEASE), list[int]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(deliveries())
            proxy.lost_words += [b"lost;"] * 3
            raise ValueError

        await load_scripts(redis)
        async with running(router):
            proxy.lost_words += [b"lost;"] * 3
            await make_emitter(redis).emit(DvOrder(text="lost;"))
            await eventually(lambda: letters(redis))
        assert seen == [1, 2]
        [letter] = await letters(redis)
        assert letter[b"deliveries"] == b"2"


@pytest.mark.parametrize("block_ms", [300, 600_000])
async def test_a_due_entry_whose_claim_was_lost_runs_as_the_delivery_that_it_is(
    redis: Redis, redis_url: str, block_ms: int
) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through, redelivery_backoff=constant(0.1), claim_min_idle_ms=FAR_LEASE, block_ms=block_ms)
        seen = list[int]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(deliveries())
            if len(seen) < 3:
                proxy.lost_words.append(b"lost;")
                raise ValueError

        await load_scripts(redis)
        async with running(router):
            await make_emitter(redis).emit(DvOrder(text="lost;"))
            await until_settled(redis)
        assert proxy.lost_words == []
        assert seen == [1, 2, 3]


@pytest.mark.parametrize("of", ["another process", "an earlier process of its name"])
async def test_a_lost_claim_of_an_abandoned_entry_counts_once(redis: Redis, redis_url: str, of: str) -> None:
    """The delivery to the process that died counts, and the claim. The answer that was lost does not."""
    await make_emitter(redis).emit(DvOrder(text="lost;"))
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "other" if of == "another process" else "me", {STREAM: ">"})
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, seen = make_router(through, consumer="me", claim_min_idle_ms=2_000), list[int]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(deliveries())

        await load_scripts(redis)
        proxy.lost_words += [b"lost;"] * 3
        async with running(router):
            await until_settled(redis)
        assert proxy.lost_words == []
        assert seen == [2]


async def test_a_trimmed_entry_of_a_lost_read_is_reported_as_lost(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, seen = make_router(through, claim_min_idle_ms=FAR_LEASE), list[int]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)

        async with running(router):
            proxy.lost_words.append(b"lost;")
            proxy.hold_up(b'"again":true')
            entry_id = await make_emitter(redis).emit(DvOrder(text="lost;"))
            await eventually(lambda: proxy.holds)
            await redis.xdel(STREAM, entry_id)
            proxy.let_through()
            await make_emitter(redis).emit(DvOrder(number=1))
            await until_settled(redis)
        assert seen == [1]
        assert "entries were trimmed from the stream before they were handled: 1 lost" in caplog.text
