"""Keeping routers running: each in a task of its own, restarted when it dies, stopped together."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from rapids import EventRouter, RapidsError
from rapids.backoff import exponential
from rapids.clients import RedisClient

__all__ = ["SupervisedRouter", "supervised"]

_logger = logging.getLogger("rapids")

_RESTART_DELAY = exponential(max_delay=30.0)
_LONG_ENOUGH = 60.0
"""Seconds a router must have run for its next failure to count as the first one."""


class SupervisedRouter:
    """A router in a named task. Routers ride out Redis' outages themselves; what ends one all the same is logged and
    the router is started again, later each time."""

    def __init__(self, router: EventRouter, redis: RedisClient) -> None:
        self.router = router
        self._redis = redis
        self._label = f"router of group {router.group!r} on stream {router.stream!r}"
        self._name = f"rapids-router:{router.group}@{router.stream}"
        self._stopping = asyncio.Event()
        self._has_started = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the router and return once its reader turns. Raises what `EventRouter.start` raises."""
        self._task = asyncio.create_task(self._run(), name=self._name)
        started = asyncio.create_task(self._reads(), name=f"{self._name}:started")
        try:
            await asyncio.wait({self._task, started}, return_when=asyncio.FIRST_COMPLETED)
            if not started.done():
                await self._task
        finally:
            started.cancel()
            await asyncio.wait({started})
        self._has_started = True

    async def stop(self) -> None:
        """Stop the router gracefully and wait for its task. Being cancelled while waiting hurries it."""
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

    async def _reads(self) -> None:
        while True:
            try:
                return await self.router.wait_started()
            except RapidsError:
                # It has not begun to start, or its start failed: then its task ends and says why.
                await asyncio.sleep(0.01)

    async def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                await self.router.start(None if self.router.configured else self._redis)
            except Exception:
                if not self._has_started or self._stopping.is_set():
                    raise
                failures = 1 if time.monotonic() - began > _LONG_ENOUGH else failures + 1
                delay = _RESTART_DELAY(failures)
                _logger.exception("the %s died and is started again in %.1f s", self._label, delay)
                await self._pause(delay)
            else:
                if not self._stopping.is_set():
                    _logger.warning("the %s was stopped by the application and stays stopped", self._label)
                return

    async def _pause(self, delay: float) -> None:
        try:
            async with asyncio.timeout(delay):
                await self._stopping.wait()
        except TimeoutError:
            pass


@asynccontextmanager
async def supervised(
    routers: Sequence[EventRouter], redis: RedisClient
) -> AsyncGenerator[tuple[SupervisedRouter, ...]]:
    """The routers, running for as long as the block; started and stopped concurrently.

    Raises what the first router raises that does not start; those that did are stopped.
    """
    running = tuple(SupervisedRouter(router, redis) for router in routers)
    try:
        await _start(running)
        yield running
    finally:
        for outcome in await asyncio.gather(*(router.stop() for router in running), return_exceptions=True):
            if isinstance(outcome, Exception):
                _logger.error("a router could not be stopped", exc_info=outcome)


async def _start(routers: Sequence[SupervisedRouter]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            for router in routers:
                group.create_task(router.start())
    except ExceptionGroup as failures:
        # One line for whoever reads why the service does not start: the first reason is reason enough.
        raise failures.exceptions[0] from None
