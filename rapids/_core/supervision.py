"""Duties: the tasks of a router, each started again when it fails, and ended when the router wants it."""

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from rapids._core.cancellations import forget_cancellations

__all__ = ["Duties", "Stop"]

logger = logging.getLogger("rapids.worker")

RESTART_PAUSE = 0.5
"""Seconds before a duty that failed starts again."""

OFTEN = 3
OFTEN_WITHIN = 10.0
"""A duty that failed so often in so many seconds does not do its work."""


@dataclass(frozen=True, slots=True)
class Stop:
    """How far a router's stop has come."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Handlers under way may finish; none is begun."""
    interrupts: asyncio.Event = field(default_factory=asyncio.Event)
    """Their time is over: they are cancelled, and that is no failure of theirs."""


class Duties:
    """Named tasks, supervised."""

    def __init__(self, prefix: str, stop: Stop, context: Mapping[str, object]) -> None:
        self.prefix = prefix
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.started_at = 0.0
        """When the last of them was begun (`time.monotonic()`, seconds)."""
        self._stop = stop
        self._context = context
        self._ending: set[str] = set()
        self._failures: dict[str, deque[float]] = {}

    def start(self, duty: str, body: Callable[[], Awaitable[None]]) -> None:
        """Begin a duty."""
        self.started_at = time.monotonic()
        self.tasks[duty] = asyncio.create_task(self._supervised(duty, body), name=f"{self.prefix}:{duty}")

    @property
    def broken(self) -> tuple[str, ...]:
        """Those that have ended, or fail again and again, without the router's wanting it."""
        since = time.monotonic() - OFTEN_WITHIN
        failing = {duty for duty, at in self._failures.items() if len(at) == OFTEN and at[0] > since}
        return tuple(
            duty for duty, task in self.tasks.items() if duty in failing or (task.done() and duty not in self._ending)
        )

    async def _supervised(self, duty: str, body: Callable[[], Awaitable[None]]) -> None:
        """Run a duty to its end. An error in it is our bug: it is logged with its trace, and the duty starts anew.

        So does one that was cancelled by anybody but us: a handler can reach the executor's task, and an event loop
        that goes down cancels everything, while settlements are still to be written.
        """
        while True:
            try:
                return await body()
            except asyncio.CancelledError as error:
                if duty in self._ending:
                    raise
                forget_cancellations()
                if self._stop.asked.is_set():
                    continue
                self._report(duty, error)
            except Exception as error:
                self._report(duty, error)
            await asyncio.sleep(RESTART_PAUSE)

    def _report(self, duty: str, error: BaseException) -> None:
        self._failures.setdefault(duty, deque(maxlen=OFTEN)).append(time.monotonic())
        extra = {**self._context, "duty": duty}
        try:
            logger.error("the %s failed and is started again", duty, exc_info=error, extra=extra)
        except Exception:
            sys.stderr.write(f"rapids: the {duty} failed, and so did the log handlers: {error!r}\n")

    def ending(self, duties: Iterable[str]) -> None:
        """Cancelling these is the router's own doing from now on."""
        self._ending.update(duties)

    async def end(self, duty: str) -> None:
        """Cancel a duty, if this router has it, and wait for its end."""
        self._ending.add(duty)
        task = self.tasks.get(duty)
        while task is not None and not task.done():
            # More than once: before Python 3.12 `asyncio.wait_for`, which redis-py sends with, may swallow one.
            task.cancel()
            await asyncio.wait([task], timeout=0.05)

    async def end_all(self) -> None:
        """End all of them, one after another."""
        self.ending(self.tasks)
        for duty in self.tasks:
            await self.end(duty)
