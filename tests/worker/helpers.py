"""What the tests of delivery share: events, a router with short times, and ways to look at what it left in Redis."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis, RedisCluster

from rapids import BaseEvent, EventEmitter, EventRouter
from rapids._storage.keys import Source, default_dlq
from rapids._wire.encoding import encode
from rapids.backoff import constant
from tests.support import PATIENCE, eventually, ignore

STREAM = "dv:events"
GROUP = "dv-group"
DLQ = default_dlq(STREAM)


class DvOrder(BaseEvent):
    number: int = 0
    text: str = ""


class DvPayment(BaseEvent):
    number: int = 0


class DvShipment(BaseEvent):
    number: int = 0


def make_router(redis: Redis | None, **options: Any) -> EventRouter:
    """A router of this suite's stream and group, which repeats at once and looks for abandoned entries soon."""
    defaults: dict[str, Any] = {
        "stream": STREAM,
        "group": GROUP,
        "block_ms": 500,
        "redelivery_backoff": constant(0.01),
        "default_backoff": constant(0.01),
        "dlq_stream": DLQ,
        "shutdown_timeout": 5.0,
    }
    return EventRouter(redis, **(defaults | options))


def make_idle_router(redis: Redis | None, **options: Any) -> EventRouter:
    """A router with a handler for events that no test emits: one without handlers does not start."""
    router = make_router(redis, **options)
    router.on("no.such.event")(ignore)
    return router


def make_emitter(redis: Redis, **options: Any) -> EventEmitter:
    return EventEmitter(redis, stream=STREAM, **options)


async def emit_orders(redis: Redis, *numbers: int) -> list[str]:
    return await make_emitter(redis).emit([DvOrder(number=number) for number in numbers])


async def start(router: EventRouter, redis: Redis | None = None) -> asyncio.Task[None]:
    """Start a router in a task, and return once it runs. Raises what `start` raised if it does not.

    A router without handlers, which would not start, gets one for events that no test emits.
    """
    if not router.handler_names:
        router.on("no.such.event")(ignore)
    task = asyncio.create_task(router.start(redis))
    await eventually(lambda: router.running or task.done())
    if task.done():
        await task
    return task


@asynccontextmanager
async def running(*routers: EventRouter, redis: Redis | None = None) -> AsyncIterator[None]:
    """Run routers inside the block; afterwards each has stopped, without an error."""
    tasks = [await start(router, redis) for router in routers]
    try:
        yield
    finally:
        await asyncio.wait_for(asyncio.gather(*(router.stop() for router in routers)), 30)
        await asyncio.wait_for(asyncio.gather(*tasks), 30)


def fields_of(event: BaseEvent) -> dict[bytes, bytes]:
    """The fields of an event's entry."""
    flat = encode(event, correlation_id=event.correlation_id, causation_id=event.causation_id)
    return dict(zip(flat[::2], flat[1::2], strict=True))


async def add(redis: Redis, fields: Sequence[bytes], stream: str = STREAM) -> str:
    """Append raw fields, which may repeat."""
    return as_text(await redis.execute_command("XADD", stream, "*", *fields))


async def letters(redis: Redis, dlq: str = DLQ) -> list[dict[bytes, bytes]]:
    """The letters in a dead-letter stream, oldest first."""
    return [fields for _, fields in await redis.xrange(dlq)]


async def pending(redis: Redis, stream: str = STREAM, group: str = GROUP) -> list[dict[str, Any]]:
    """The group's pending entries."""
    return await redis.xpending_range(stream, group, "-", "+", 10_000)


async def settled(redis: Redis, stream: str = STREAM, group: str = GROUP) -> bool:
    """Whether the group was given everything there is, and has settled it."""
    groups = {as_text(row["name"]): row for row in await redis.xinfo_groups(stream)}
    last = (await redis.xinfo_stream(stream))["last-generated-id"]
    return groups[group]["pending"] == 0 and groups[group]["last-delivered-id"] == last


async def until_settled(redis: Redis, stream: str = STREAM, group: str = GROUP, timeout: float = PATIENCE) -> None:
    await eventually(lambda: settled(redis, stream, group), timeout)


async def consumers(redis: Redis, stream: str = STREAM, group: str = GROUP) -> dict[str, int]:
    """The consumers of the group and how many entries are pending for each."""
    return {as_text(row["name"]): row["pending"] for row in await redis.xinfo_consumers(stream, group)}


async def infos(redis: Redis, section: str) -> list[dict[str, Any]]:
    """A section of INFO of every master."""
    answer = await redis.info(section, **everywhere(redis))
    return list(answer.values()) if isinstance(redis, RedisCluster) else [answer]


async def blocked(redis: Redis) -> int:
    """How many clients wait for something, on all masters together."""
    return sum([info["blocked_clients"] for info in await infos(redis, "clients")])


async def calls(redis: Redis) -> Counter[str]:
    """How often each command was called, on all masters together."""
    counted = Counter[str]()
    for stats in await infos(redis, "commandstats"):
        counted.update({name.removeprefix("cmdstat_"): row["calls"] for name, row in stats.items()})
    return counted


async def looks(redis: Redis) -> int:
    """How often routers looked for abandoned entries, each time in both of their streams, and for a pause."""
    return (await calls(redis))["hmget"]


def replay_stream(stream: str = STREAM, group: str = GROUP) -> str:
    return Source(stream, group).replays().stream


EXPECTED_KEYS = (
    r"rapids:routers",  # a thousand of them, with a TTL
    r"dv:events|\{dv:events\}:dlq",
    r"\{dv:events\}:rapids:replay:dv-group\w*",
    r"\{dv:events\}:rapids:(consumer|handlers):dv-group\w*:.+",  # has a TTL
    r"\{dv:events\}(:rapids:replay:dv-group\w*)?:rapids:(ledger|due|parked):dv-group\w*",  # bounded by the pending list
    r"\{dv:events\}:rapids:trimming",  # has a TTL
    r"\{dv:events\}:rapids:rates:dv-group\w*",  # so many records, and has a TTL
    r"\{dv:events\}(:rapids:replay:dv-group\w*)?:rapids:made-again:dv-group\w*",  # likewise
    r"\{dv:events\}:rapids:paused:dv-group\w*",  # one for a group, while it is paused
    r"\{dv:events\}:dlq:rapids:(archive|archived|failed-again|audit)",  # capped, and has a TTL
    r"\{dv:events\}:dlq:rapids:(operations|operating:(replay|discard|restore))",  # has a TTL
    r"\{dv:events\}:dlq:rapids:operation:[0-9a-f]{32}(:errors|:replays)?",  # a hundred of them, with a TTL
    r"\{dv:events\}:dlq:rapids:restored",  # no more than there are letters
    r"\{dv:events\}:rapids:audit",  # capped, and has a TTL
    r"\{dv:events\}:dlq:rapids:index(:fingerprints|:[0-9a-f]{16}|:others)?",  # twice the letters, 1,000 fingerprints
)
WITH_TTL = (
    r"rapids:routers",
    r"\{dv:events\}:rapids:(audit|consumer:.*|handlers:.*|rates:.*|trimming|(.*:)?made-again:.*)",
    r"\{dv:events\}:dlq:rapids:(archive|archived|failed-again|audit|operat.*)",
)
OF_PENDING = r".*:rapids:(ledger|due|parked):.*"


async def all_keys(redis: Redis | RedisCluster, pattern: str = "*") -> set[str]:
    """Every key there is, on whichever server."""
    return {as_text(key) for key in await redis.keys(pattern, **everywhere(redis))}


def everywhere(redis: Redis | RedisCluster) -> dict[str, Any]:
    """For a command that is to reach every server that takes writes."""
    if not isinstance(redis, RedisCluster):
        return {}
    # Of commands it does not know redis-py asks which nodes by name; those it knows it sends without knowing the nodes.
    return {"target_nodes": redis.get_primaries() or RedisCluster.PRIMARIES}


async def check_keys(redis: Redis, *, settled: bool = True) -> set[str]:
    """Every key is one that is expected and bounded; once all is settled, nothing is left that belonged to an entry."""
    keys = await all_keys(redis)
    for key in keys:
        assert any(re.fullmatch(pattern, key) for pattern in EXPECTED_KEYS), f"unexpected key {key}"
        if any(re.fullmatch(pattern, key) for pattern in WITH_TTL):
            assert await redis.pttl(key) > 0, f"{key} never expires"
        if settled:
            assert not re.fullmatch(OF_PENDING, key), f"{key} is left"
    return keys


def as_text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw
