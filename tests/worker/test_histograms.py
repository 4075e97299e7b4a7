"""Histograms of how long handlers run, and of how long entries waited for them, on a real server."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from rapids import EventRouter, RapidsError
from rapids.counters import HISTOGRAMS, Distribution
from tests.support import eventually, ignore
from tests.worker.helpers import GROUP, STREAM, DvOrder, DvPayment, emit_orders, make_router, running, until_settled


def measured(router: EventRouter, name: str, **labels: str) -> Distribution:
    [found] = [
        one for one in router.counters.distributions if one.name == name and labels.items() <= one.labels.items()
    ]
    return found


async def test_each_run_of_a_handler_is_measured_and_each_entry_once(redis: Redis) -> None:
    ids = await emit_orders(redis, *range(5))
    router = make_router(redis, max_deliveries=3)
    router.use_histograms()
    failures = 2

    @router.on(DvOrder)
    async def quick(event: DvOrder) -> None: ...

    @router.on(DvOrder, retries=1)
    async def slow(event: DvOrder) -> None:
        nonlocal failures
        await asyncio.sleep(0.03)
        if event.number == 0 and failures:
            failures -= 1
            raise RuntimeError("one delivery, two attempts")

    async with running(router):
        await until_settled(redis)

    assert router.counters.total("failed") == 1
    once, again = measured(router, "handling", handler="quick"), measured(router, "handling", handler="slow")
    assert (sum(once.counts), sum(again.counts)) == (5, 6), "an entry delivered again runs only what failed"
    assert again.sum >= 7 * 0.03, "quick retries are part of a run"
    assert again.counts[: HISTOGRAMS["handling"].bounds.index(0.025) + 1] == (0,) * 5
    delay = measured(router, "delay")
    assert sum(delay.counts) == len(ids), "also of an entry that was delivered again"
    assert delay.sum >= 0.0
    assert delay.labels == {"stream": STREAM, "group": GROUP, "event_type": "dv.order"}
    assert once.labels == {**delay.labels, "handler": "quick"}


async def test_an_entry_of_a_consumer_that_is_gone_waited_since_it_was_appended(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    now_ms = (await redis.time())[0] * 1000
    fields = (await redis.xrange(STREAM, *(await emit_orders(redis, 1)) * 2))[0][1]
    await redis.delete(STREAM)
    await redis.xadd(STREAM, fields, id=f"{now_ms - 60_000}-0")
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "gone", {STREAM: ">"})
    router = make_router(redis, claim_min_idle_ms=200)
    router.use_histograms()
    router.on(DvOrder)(ignore)

    async with running(router):
        await until_settled(redis)

    delay = measured(router, "delay")
    assert 60 <= delay.sum < 600
    assert sum(delay.counts) == delay.counts[HISTOGRAMS["delay"].bounds.index(300.0)] == 1


async def test_a_router_measures_nothing_unless_it_is_told_to_before_it_starts(redis: Redis) -> None:
    router = make_router(redis)
    router.on(DvPayment)(ignore)
    async with running(router):
        await emit_orders(redis, 1)
        await eventually(lambda: router.counters.total("acked") == 1)
        with pytest.raises(RapidsError, match=r"^use_histograms\(\) must come before the router runs"):
            router.use_histograms()
    assert router.counters.distributions == ()
