"""`python -m benchmarks.sizing`: the memory of the server that entries take, by what has become of them.

Each line is the growth of `used_memory` on a private server, divided by the entries (or letters) it is for.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue, EventEmitter, EventRouter
from rapids.backoff import constant
from rapids.clients import open_client

COUNT = 10_000
STREAM, GROUP, DLQ = "sizing", "group", "{sizing}:dlq"
SIZES = (200, 1_000, 10_000)


class SizedThing(BaseEvent):
    text: str


@dataclass(frozen=True, slots=True)
class Line:
    what: str
    size: int
    bytes_each: float


async def used(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])


async def emit(redis: Redis, size: int) -> None:
    emitter = EventEmitter(redis, stream=STREAM, maxlen=None)
    for _ in range(COUNT // 1_000):
        await emitter.emit([SizedThing(text="x" * size) for _ in range(1_000)])


@asynccontextmanager
async def failing(redis: Redis, *, max_deliveries: int) -> AsyncIterator[EventRouter]:
    """A router whose handler fails; what is to be tried again waits for an hour."""
    router = EventRouter(
        redis, STREAM, GROUP, batch_size=100, dlq_stream=DLQ, dlq_maxlen=None,
        max_deliveries=max_deliveries, redelivery_backoff=constant(3_600),
    )  # fmt: skip

    @router.on(SizedThing)
    async def fail(event: SizedThing) -> None:
        raise ValueError("the card was declined")

    task = asyncio.create_task(router.start())
    try:
        yield router
    finally:
        await router.stop()
        await task


async def until(redis: Redis, key: str, command: str) -> None:
    while await redis.execute_command(command, key) < COUNT:
        await asyncio.sleep(0.05)


async def measure(redis: Redis, size: int) -> list[Line]:
    lines: list[Line] = []

    async def note(what: str, before: int) -> int:
        now = await used(redis)
        lines.append(Line(what, size, (now - before) / COUNT))
        return now

    await redis.execute_command("FLUSHALL", "SYNC")
    start = await used(redis)
    await emit(redis, size)
    stored = await note("an entry in the stream", start)
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "somebody", {STREAM: ">"}, count=COUNT)
    await note("more while it is pending", stored)
    await redis.xgroup_destroy(STREAM, GROUP)
    stored = await used(redis)
    async with failing(redis, max_deliveries=2):
        await until(redis, "{sizing}:rapids:due:group", "ZCARD")
    await note("more while it waits for a retry", stored)

    await redis.execute_command("FLUSHALL", "SYNC")
    await emit(redis, size)
    stored = await used(redis)
    async with failing(redis, max_deliveries=1):
        await until(redis, DLQ, "XLEN")
    dead = await note("a dead letter", stored)
    queue = DeadLetterQueue(redis, DLQ)
    letters = [entry_id.decode() for entry_id, _ in await redis.xrange(DLQ)]
    for letter_id in letters:
        await queue.discard(letter_id)
    await note("more once it is archived (the space of its letter is reused)", dead)
    return lines


async def main() -> int:
    async with open_client("embedded:") as redis:
        assert isinstance(redis, Redis)
        info = await redis.info("server")
        version = info.get("valkey_version") or info["redis_version"]
        print(f"{COUNT:,} events each, on the embedded server ({version}); bytes each\n")
        lines = [line for size in SIZES for line in await measure(redis, size)]
    print(f"| {'':62} |" + "".join(f" {size:>7,} B |" for size in SIZES))
    print(f"| {'-' * 62} |" + " --------: |" * len(SIZES))
    for what in dict.fromkeys(line.what for line in lines):
        print(f"| {what:62} |" + "".join(f" {line.bytes_each:9,.0f} |" for line in lines if line.what == what))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
