"""What twenty thousand waiting and parked entries cost an idle group: almost nothing."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from rapids._storage.keys import PARKED, WAITING, Source
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, looks, make_router, running

HALF = 10_000
CHUNK = 5_000
FAR_AWAY_MS = 4_000_000_000_000


async def fill(redis: Redis) -> None:
    """A group with half of its entries waiting for a day that is far away, half of them parked."""
    source = Source(STREAM, GROUP)
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    for consumer in (WAITING, PARKED):
        for _ in range(HALF // CHUNK):
            pipeline = redis.pipeline(transaction=False)
            for _ in range(CHUNK):
                pipeline.xadd(STREAM, {"event_type": "dv.order"})
            ids = [entry_id.decode() for entry_id in await pipeline.execute()]
            await redis.xreadgroup(GROUP, consumer.decode(), {STREAM: ">"}, count=CHUNK)
            if consumer == WAITING:
                await redis.zadd(source.due, dict.fromkeys(ids, FAR_AWAY_MS))
            else:
                await redis.hset(source.parked, mapping=dict.fromkeys(ids, "[]"))


@pytest.mark.standalone("weighs all that one server answers")
async def test_twenty_thousand_waiting_or_parked_entries_are_not_looked_at(redis: Redis) -> None:
    await fill(redis)
    async with running(make_router(redis, claim_min_idle_ms=1)):
        looked = await looks(redis)
        await eventually(lambda: _looked_again(redis, looked), interval=0.3)
        await redis.config_resetstat()
        await eventually(lambda: _looked_again(redis, 0), interval=0.3)  # its own answers count too
        stats = await redis.info()
        commands = await redis.info("commandstats")

    assert stats["total_net_output_bytes"] < 50_000  # the ids alone are 300,000
    assert commands.get("cmdstat_xpending", {"calls": 0})["calls"] <= 20


async def _looked_again(redis: Redis, before: int) -> bool:
    return await looks(redis) >= before + 2
