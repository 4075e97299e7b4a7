"""Count the instructions of bytecode that an event takes, with the package that is installed: `URL ROW`.

It runs with both versions of the package, as all contenders do. Needs Python 3.12 or newer.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType
from typing import Any, ClassVar

from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter, EventRouter

STREAM = "counted"
COUNT = 2_000
"""Events that are counted, after as many that are not."""
LIST = 100


class Counted(BaseEvent):
    event_type: ClassVar[str] = "bench.counted"
    number: int
    customer: str = "c-1"
    amount: float = 12.5


class Instructions:
    """Counts while it is switched on, by function."""

    def __init__(self) -> None:
        self.by_function = Counter[str]()
        monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore] # of Python 3.12
        monitoring.use_tool_id(monitoring.PROFILER_ID, "instructions")
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION, self._note)
        self._monitoring = monitoring

    def _note(self, code: CodeType, _: int) -> None:
        self.by_function[code.co_qualname] += 1  # type: ignore[attr-defined,unused-ignore]

    def switch(self, *, on: bool) -> None:
        monitoring = self._monitoring
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.INSTRUCTION if on else 0)

    @contextmanager
    def counted(self) -> Iterator[None]:
        self.switch(on=True)
        try:
            yield
        finally:
            self.switch(on=False)


async def emit(redis: Redis, instructions: Instructions, size: int) -> None:
    """Emit lists of `size` events, or single ones."""
    emitter = EventEmitter(redis, STREAM)
    lists = [[Counted(number=number) for number in range(size)] for _ in range(COUNT // size)]

    async def emit_all() -> None:
        for events in lists:
            await emitter.emit(events if size > 1 else events[0])

    await emit_all()
    with instructions.counted():
        await emit_all()


async def consume(redis: Redis, instructions: Instructions, handlers: int) -> None:
    """Handle a backlog in batches of 100, with so many handlers that do nothing."""
    router, done, ended = EventRouter(stream=STREAM, group="counted", batch_size=100), 0, asyncio.Event()

    async def handle(event: Counted) -> None:
        nonlocal done
        done += 1
        if done == COUNT * handlers:
            instructions.switch(on=True)
        elif done == 2 * COUNT * handlers:
            instructions.switch(on=False)
        elif done == 3 * COUNT * handlers:
            ended.set()

    for number in range(handlers):
        router.on(Counted, name=f"handler-{number}")(handle)
    emitter = EventEmitter(redis, STREAM)
    for first in range(0, 3 * COUNT, LIST):
        await emitter.emit([Counted(number=number) for number in range(first, first + LIST)])
    running = asyncio.create_task(router.start(redis))
    await ended.wait()
    await router.stop()
    await running


ROWS = {
    "emit-one": (emit, 1),
    "emit-lists": (emit, LIST),
    "consume-batch": (consume, 1),
    "three-handlers": (consume, 3),
}


async def main(url: str, row: str) -> None:
    run, argument = ROWS[row]
    instructions = Instructions()
    async with Redis.from_url(url) as redis:
        await redis.flushall()
        await run(redis, instructions, argument)
    by_function = {name: round(count / COUNT, 1) for name, count in instructions.by_function.most_common()}
    print(json.dumps({"total": round(instructions.by_function.total() / COUNT, 1), "by_function": by_function}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
