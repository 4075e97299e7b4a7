"""Which modules of the package run while one event is emitted, delivered or replayed."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from types import FrameType
from typing import Any, ClassVar, TypeAlias

from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue, EventEmitter, EventRouter, LetterFilter, NonRetryableError, Selector
from tests.support import eventually

__all__ = ["Calls", "Way", "bulk_replay", "delivery", "emit"]

Way: TypeAlias = Callable[[Redis], Awaitable["Calls"]]

STREAM = "house:orders"
GROUP = "billing"
WARM = 3
MEASURED = 7
DLQ = f"{{{STREAM}}}:dlq"


class HouseOrder(BaseEvent):
    event_type: ClassVar[str] = "house.order"

    number: int


@dataclass
class Calls:
    """The modules of each call of our own code, in order."""

    modules: list[str] = field(default_factory=list[str])

    @property
    def passed(self) -> list[str]:
        return sorted(set(self.modules))

    @property
    def changes(self) -> int:
        """How often a call is in another module than the call before it."""
        return sum(before != after for before, after in pairwise(self.modules))


@contextmanager
def recorded() -> Iterator[Calls]:
    """Records this thread's calls: coroutines that continue count too."""
    calls = Calls()

    def record(frame: FrameType, event: str, argument: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.partition(".")[0] == "rapids":
            calls.modules.append(module)

    sys.setprofile(record)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@asynccontextmanager
async def running(router: EventRouter) -> AsyncIterator[None]:
    task = asyncio.create_task(router.start())
    try:
        await router.wait_started()
        yield
    finally:
        await router.stop()
        await task


async def emit(redis: Redis) -> Calls:
    """One emit, after others."""
    emitter = EventEmitter(redis, stream=STREAM)
    for number in range(WARM):
        await emitter.emit(HouseOrder(number=number))
    with recorded() as calls:
        await emitter.emit(HouseOrder(number=WARM))
    await emitter.drain()
    return calls


async def delivery(redis: Redis) -> Calls:
    """One entry from the read to its acknowledgement, after others, while the group is otherwise idle.

    Of several, the one with the fewest modules: the periodic tasks of a router run during some of them.
    """
    router, handled = EventRouter(redis, STREAM, GROUP), list[int]()

    @router.on(HouseOrder)
    async def charge(event: HouseOrder) -> None:
        handled.append(event.number)

    async def is_settled() -> bool:
        return bool(handled) and (await redis.xpending(STREAM, GROUP))["pending"] == 0

    emitter = EventEmitter(redis, stream=STREAM)
    await emitter.emit(HouseOrder(number=1))
    await emitter.drain()
    entry = (await redis.xrange(STREAM))[0][1]
    async with running(router):
        await eventually(is_settled)
        measured = list[Calls]()
        for _ in range(WARM + MEASURED):
            handled.clear()
            with recorded() as calls:
                await redis.xadd(STREAM, entry)  # no emitter of ours
                await eventually(is_settled, interval=0.001)
            measured.append(calls)
    return min(measured[WARM:], key=lambda calls: (len(calls.passed), calls.changes))


async def bulk_replay(redis: Redis) -> Calls:
    """One operation that replays three dead letters, from its start to its end, after another one."""
    router = EventRouter(redis, STREAM, GROUP, dlq_stream=DLQ)

    @router.on(HouseOrder)
    async def charge(event: HouseOrder) -> None:
        raise NonRetryableError("declined")

    async def has_failed() -> bool:
        return await redis.xlen(DLQ) == WARM + 3

    async with running(router):
        emitter = EventEmitter(redis, stream=STREAM)
        await emitter.emit([HouseOrder(number=number) for number in range(WARM + 3)])
        await eventually(has_failed)
    operations = DeadLetterQueue(redis, DLQ).operations
    everything = Selector(filter=LetterFilter())
    warm = await operations.start("replay", everything, max_items=WARM)
    await operations.run_until_ended(warm.id)
    with recorded() as calls:
        started = await operations.start("replay", everything, actor="house", reason="counted")
        ended = await operations.run_until_ended(started.id)
    assert (ended.state, ended.done) == ("completed", 3)
    await emitter.drain()
    return calls
