"""Supervision of long-lived tasks: restarts after failures, ends by their owner, and cancellations by others."""

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Stop", "TaskSupervisor", "end_task", "raise_if_cancelled", "shed_cancellations"]

RESTART_PAUSE = 0.5
"""Seconds before a task that failed is restarted."""

OFTEN = 3
OFTEN_WITHIN = 10.0
"""A task that failed this often in this many seconds counts as broken."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The progress of a router's stop."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the stop was requested: running handlers may finish, and none is begun."""
    interrupts: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the time of running handlers is over: they are cancelled, and that does not count as a failure."""


class TaskSupervisor:
    """Named tasks: one that fails is restarted, until it ends by itself or its owner ends it.

    `stopping`: once it is set, a task that was cancelled by others continues at once, without a log line.
    """

    def __init__(
        self, prefix: str, stopping: asyncio.Event, logger: logging.Logger, context: Mapping[str, object]
    ) -> None:
        self.prefix = prefix
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.started_at = 0.0
        """When the last task was started (`time.monotonic()`, seconds)."""
        self._stopping = stopping
        self._logger = logger
        self._context = context
        self._ending: set[str] = set()
        self._failures: dict[str, deque[float]] = {}

    def start(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        """Start a task."""
        self.started_at = time.monotonic()
        self.tasks[name] = asyncio.create_task(self._supervised(name, body), name=f"{self.prefix}:{name}")

    @property
    def broken(self) -> tuple[str, ...]:
        """The tasks that have ended or fail repeatedly, although their owner did not end them."""
        since = time.monotonic() - OFTEN_WITHIN
        failing = {name for name, at in self._failures.items() if len(at) == OFTEN and at[0] > since}
        return tuple(
            name for name, task in self.tasks.items() if name in failing or (task.done() and name not in self._ending)
        )

    async def _supervised(self, name: str, body: Callable[[], Awaitable[None]]) -> None:
        """Run a task to its end.

        An error in it is a bug of Rapids: it is logged with its traceback, and the task restarted.

        A task also restarts if it was not Rapids that cancelled it: a handler can cancel the executor's task, and an
        event loop that shuts down cancels all tasks, while settlements are still to be written.
        """
        while True:
            try:
                return await body()
            except asyncio.CancelledError as error:
                if name in self._ending:
                    raise
                _forget_cancellations()
                if self._stopping.is_set():
                    continue
                self._report(name, error)
            except Exception as error:
                self._report(name, error)
            await asyncio.sleep(RESTART_PAUSE)

    def _report(self, name: str, error: BaseException) -> None:
        self._failures.setdefault(name, deque(maxlen=OFTEN)).append(time.monotonic())
        extra = {**self._context, "task": name}
        try:
            self._logger.error("the %s failed and is restarted", name, exc_info=error, extra=extra)
        except Exception:
            sys.stderr.write(f"rapids: the {name} failed, and so did the log handlers: {error!r}\n")

    def ending(self, names: Iterable[str]) -> None:
        """Note that the owner ends these tasks from now on."""
        self._ending.update(names)

    async def end(self, name: str) -> None:
        """Cancel the task of this name, if there is one, and wait for its end."""
        self._ending.add(name)
        if (task := self.tasks.get(name)) is not None:
            await end_task(task)

    async def end_all(self) -> None:
        """End all tasks, one after another."""
        self.ending(self.tasks)
        for name in self.tasks:
            await self.end(name)


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait for its end. Its error is not raised here."""
    while not task.done():
        # Repeated: before Python 3.12, `asyncio.wait_for`, which redis-py uses to send, may lose a cancellation.
        task.cancel()
        await asyncio.wait([task], timeout=0.05)
    if not task.cancelled():
        task.exception()  # otherwise asyncio reports that the error was never retrieved


def raise_if_cancelled() -> None:
    """Raise if the task was cancelled. Before Python 3.12, `asyncio.wait_for`, which redis-py uses to send, may lose a
    cancellation, but the task's count of them stays."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _forget_cancellations() -> None:
    """Clear the cancellations of the current task, so that it continues."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def shed_cancellations() -> None:
    """Remove cancellations that a handler left on its task. The task belongs to Rapids, and they would end later work.

    Before Python 3.13, a TaskGroup leaves one when a child of it fails. A `cancel()` of the current task may not have
    been raised yet.
    """
    task = asyncio.current_task()
    if task is None or not task.cancelling():
        return
    with suppress(asyncio.CancelledError):
        await asyncio.sleep(0)
    _forget_cancellations()
