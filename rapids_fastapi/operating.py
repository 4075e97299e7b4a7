"""Carrying out operations on dead letters while the application runs: those started here, and those left by others."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager

from rapids import DeadLetterQueue
from rapids.backoff import exponential

__all__ = ["operating"]

_logger = logging.getLogger("rapids")

_RESTART_DELAY = exponential(max_delay=60.0)
_LONG_ENOUGH = 60.0
"""Seconds a runner must have run for its next failure to count as the first one."""

_STOP_TIMEOUT = 5.0
"""Seconds for the letters under way. An operation that is cut off then is taken by another process a little later."""


@asynccontextmanager
async def operating(queues: Iterable[DeadLetterQueue]) -> AsyncGenerator[None]:
    """Carry out the operations of these queues for as long as the block; afterwards other processes may go on."""
    stop = asyncio.Event()
    tasks = {_started(queue, stop) for queue in queues}
    try:
        yield
    finally:
        stop.set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_STOP_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)


def _started(queue: DeadLetterQueue, stop: asyncio.Event) -> "asyncio.Task[None]":
    return asyncio.create_task(_supervised(queue, stop), name=f"rapids-operations:{queue.stream}")


async def _supervised(queue: DeadLetterQueue, stop: asyncio.Event) -> None:
    """Outages are ridden out by the runner itself; what ends it all the same is logged, and it is started again."""
    failures = 0
    while not stop.is_set():
        began = time.monotonic()
        try:
            await queue.operations.run(stop)
        except Exception as error:
            failures = 1 if time.monotonic() - began > _LONG_ENOUGH else failures + 1
            delay = _RESTART_DELAY(failures)
            _logger.exception("operations on %r are not run; another try in %.1f s: %s", queue.stream, delay, error)
            await _pause(stop, delay)


async def _pause(stop: asyncio.Event, delay: float) -> None:
    try:
        async with asyncio.timeout(delay):
            await stop.wait()
    except TimeoutError:
        pass
