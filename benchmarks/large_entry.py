"""`python -m benchmarks.large_entry`: what a large entry at the head of a stream costs the server.

34 small events a second, after an entry of 10 kB and then of 10 MB.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from pathlib import Path

from redis.asyncio import Redis

from benchmarks.servers import private_server
from rapids import BaseEvent, EventEmitter, EventRouter

STREAM, GROUP = "head", "group"
SIZES = (10_000, 10_000_000)
RATE, SECONDS = 34, 10


class HeadThing(BaseEvent):
    text: str = ""


async def used_cpu(redis: Redis) -> float:
    found = await redis.info("cpu")
    return found["used_cpu_user"] + found["used_cpu_sys"]


async def percent(redis: Redis, size: int) -> float:
    """The server's processor time after an entry of so many bytes, in percent of one processor."""
    await redis.flushall()
    await EventEmitter(redis, STREAM, maxlen=None).emit([HeadThing(), HeadThing(text="x" * size)])
    await redis.xtrim(STREAM, maxlen=1, approximate=False)
    emitter, router = EventEmitter(redis, STREAM), EventRouter(redis, STREAM, GROUP)

    @router.on(HeadThing)
    async def handle(event: HeadThing) -> None: ...

    running = asyncio.create_task(router.start())
    await router.wait_started()
    before, began = await used_cpu(redis), time.monotonic()
    for _ in range(RATE * SECONDS):
        await emitter.emit(HeadThing())
        await asyncio.sleep(1 / RATE)
    spent = (await used_cpu(redis) - before) / (time.monotonic() - began)
    await router.stop()
    await running
    return spent * 100


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_entry", description=__doc__)
    parser.add_argument("--server", type=Path, help="another server's executable")
    async with private_server(parser.parse_args().server) as served, Redis.from_url(served.url) as redis:
        for size in SIZES:
            print(f"{size:>12,} bytes: {await percent(redis, size):5.1f} % of one processor")


if __name__ == "__main__":
    asyncio.run(main())
