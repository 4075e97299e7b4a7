"""The background tasks of the application: its routers and operations, each restarted after a failure."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress

from rapids import DeadLetterQueue, EventRouter, RapidsError
from rapids.backoff import Backoff, exponential
from rapids.clients import RedisClient

__all__ = ["SupervisedRouter", "operations_running", "routers_running"]

RESTART_DELAY: Backoff = exponential(max_delay=30.0)

STABLE_AFTER = 60.0
"""Seconds. After a task ran for longer than this, its next failure counts as the first one."""

STOP_TIMEOUT = 5.0
"""Seconds that operations get at shutdown to finish their current step. Then they are cancelled, and another process
continues them."""

_logger = logging.getLogger("rapids")


async def _restart_on_failure(
    what: str, body: Callable[[], Awaitable[None]], stopping: asyncio.Event, is_fatal: Callable[[], bool]
) -> None:
    """Run the body until it returns or `stopping` is set.

    Routers and operations retry by themselves while Redis is unavailable. Any other failure is logged, and the body is
    restarted. The delay grows with each failure. A failure is raised instead if `is_fatal()` is true.
    """
    failures = 0
    while not stopping.is_set():
        began = time.monotonic()
        try:
            await body()
        except Exception:
            if is_fatal():
                raise
            failures = 1 if time.monotonic() - began > STABLE_AFTER else failures + 1
            delay = RESTART_DELAY(failures)
            _logger.exception("the %s failed, and will be restarted in %.1f s", what, delay)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await stopping.wait()
        else:
            break


class SupervisedRouter:
    """A router in a named task, restarted when it fails."""

    def __init__(self, router: EventRouter, redis: RedisClient) -> None:
        self.router = router
        self._redis = redis
        self._label = f"router of group {router.group!r} on stream {router.stream!r}"
        self._name = f"rapids-router:{router.group}@{router.stream}"
        self._stopping = asyncio.Event()
        self._has_started = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the router, and return when it reads its stream. Raises what `EventRouter.start` raises."""
        self._task = asyncio.create_task(
            _restart_on_failure(
                self._label, self._run, self._stopping, lambda: not self._has_started or self._stopping.is_set()
            ),
            name=self._name,
        )
        while not self._has_started:
            try:
                await self.router.wait_started()
                self._has_started = True
            except RapidsError:  # it has not begun to start, or its start failed; then its task has the error
                if self._task.done():
                    break
                await asyncio.sleep(0.01)
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Stop the router gracefully, and wait for its task. If this call is cancelled, the task is cancelled too."""
        self._stopping.set()
        if self._task is None:
            return
        try:
            await self.router.stop()
            await asyncio.wait({self._task})
        finally:
            self._task.cancel()
            await asyncio.wait({self._task})
            if not self._task.cancelled() and self._task.exception() is not None and self._has_started:
                _logger.error("the %s did not stop cleanly", self._label, exc_info=self._task.exception())

    async def _run(self) -> None:
        await self.router.start(None if self.router.configured else self._redis)
        if not self._stopping.is_set():
            _logger.warning("the %s was stopped by the application and stays stopped", self._label)


@asynccontextmanager
async def routers_running(
    routers: Sequence[EventRouter], redis: RedisClient
) -> AsyncGenerator[tuple[SupervisedRouter, ...]]:
    """Run the routers during the block. They start at the same time, and stop at the same time.

    If a router does not start, raises its error (of several, the first one), and stops the other routers.
    """
    running = tuple(SupervisedRouter(router, redis) for router in routers)
    try:
        try:
            async with asyncio.TaskGroup() as group:
                for router in running:
                    group.create_task(router.start())
        except ExceptionGroup as failures:
            # The log then has one short reason why the service does not start.
            raise failures.exceptions[0] from None
        yield running
    finally:
        for outcome in await asyncio.gather(*(router.stop() for router in running), return_exceptions=True):
            if isinstance(outcome, Exception):
                _logger.error("a router could not be stopped", exc_info=outcome)


@asynccontextmanager
async def operations_running(queues: Iterable[DeadLetterQueue]) -> AsyncGenerator[None]:
    """Run the operations of these queues during the block. After it, other processes may continue them."""
    stopping = asyncio.Event()
    tasks = {
        asyncio.create_task(
            _restart_on_failure(
                f"runner of operations on {queue.stream!r}",
                lambda queue=queue: queue.operations.run(stopping),
                stopping,
                lambda: False,
            ),
            name=f"rapids-operations:{queue.stream}",
        )
        for queue in queues
    }
    try:
        yield
    finally:
        stopping.set()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)
