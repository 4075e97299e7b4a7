"""Retries while Redis is unavailable, until the outage ends."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from logging import Logger
from typing import TypeVar

from redis.exceptions import RedisError

from rapids._core.counter_state import Counts
from rapids._core.redis_errors import is_outage, reason
from rapids.backoff import exponential

__all__ = ["Failing", "HaltedError", "Outages", "Retries"]

T = TypeVar("T")

MAX_PAUSE = 2.0
"""The longest pause between two attempts, in seconds."""
FIRST_PAUSE = 0.05

_pause = exponential(base=1.6, max_delay=40.0)


@dataclass(frozen=True, slots=True)
class Failing:
    """An operation that fails at Redis."""

    operation: str
    since: float
    """`time.monotonic()`, seconds."""
    error: str
    """The latest error."""


class Outages:
    """Retries operations. Logs one line when an outage starts and one when it ends, even if many operations fail."""

    def __init__(self, logger: Logger, context: Mapping[str, object], counts: Counts | None = None) -> None:
        self._logger = logger
        self._context = context
        self._counts = counts
        self.failing: dict[str, Failing] = {}
        """The operations whose last attempt failed, by name."""
        self._since = 0.0

    async def retry(
        self,
        operation: str,
        attempt: Callable[[], Awaitable[T]],
        *,
        after: Exception | None = None,
        repair: Callable[[Exception], Awaitable[None]] | None = None,
        max_pause: float = MAX_PAUSE,
    ) -> T:
        """Try until an attempt succeeds, and return its result.

        `after`: the error of an attempt that was already made. `repair` is called with each error before the next
        attempt; it may raise Redis errors too. Pauses between attempts grow up to `max_pause` seconds.
        """
        failures = 0
        while True:
            try:
                if after is not None:
                    error, after = after, None
                    raise error
                result = await attempt()
            except (RedisError, OSError) as error:
                failures += 1
                self.failed(operation, error)
                if repair is not None:
                    with suppress(RedisError, OSError):
                        await repair(error)
                await asyncio.sleep(self.pause(failures, max_pause))
            else:
                self.worked(operation)
                return result

    @property
    def longest(self) -> Failing | None:
        """The operation that has been failing for the longest time; None if none fails now."""
        return min(self.failing.values(), key=lambda failing: failing.since, default=None)

    @staticmethod
    def pause(failures: int, longest: float = MAX_PAUSE) -> float:
        """Seconds to wait after this number of consecutive failures."""
        return min(FIRST_PAUSE * _pause(failures), longest)

    def failed(self, operation: str, error: Exception) -> None:
        """Note that an operation failed."""
        is_first, now = not self.failing, time.monotonic()
        since = self.failing[operation].since if operation in self.failing else now
        why = reason(error)
        self.failing[operation] = Failing(operation, since, f"{type(error).__name__}: {why}")
        if is_first:
            self._since = now
            self._logger.error("Redis unavailable, retrying: %s: %s", operation, why, extra=self._context)
            if self._counts is not None:
                self._counts.outage_started(operation, error)

    def worked(self, operation: str) -> None:
        """Note that an operation worked."""
        if self.failing.pop(operation, None) is not None and not self.failing:
            lasted = time.monotonic() - self._since if self._counts is None else self._counts.outage_ended()
            extra = {**self._context, "outage_seconds": lasted}
            self._logger.warning("Redis is back after %.1f s", lasted, extra=extra)

    def ended(self, operation: str) -> None:
        """Note that an operation is no longer retried."""
        self.failing.pop(operation, None)


class HaltedError(Exception):
    """The work was halted while it waited."""


class Retries:
    """The retries of one operation. They end with the first error that is no outage, or when they are halted."""

    def __init__(self, outages: Outages, operation: str, halt: asyncio.Event) -> None:
        self._outages = outages
        self._operation = operation
        self._halt = halt
        self._failures = 0

    async def run(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until an attempt succeeds, and return its result.

        Raises `HaltedError` if halted while Redis is unavailable, and any error that is no outage.
        """
        has_failed = False
        while True:
            try:
                result = await attempt()
            except (RedisError, OSError) as error:
                has_failed = True
                await self.failed(error)
            else:
                if has_failed:  # a server that refuses writes still answers reads
                    self.worked()
                return result

    async def failed(self, error: Exception) -> None:
        """Wait after an error, longer each time. Raises the error if it is no outage, `HaltedError` if halted."""
        if not is_outage(error):
            raise error
        self._failures += 1
        self._outages.failed(self._operation, error)
        await self.sleep(self._outages.pause(self._failures))

    def worked(self) -> None:
        """Note that an attempt worked."""
        self._failures = 0
        self._outages.worked(self._operation)

    async def sleep(self, seconds: float) -> None:
        """Wait. Raises `HaltedError` if halted before or during the wait."""
        if not self._halt.is_set() and seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._halt.wait()
        if self._halt.is_set():
            self._outages.ended(self._operation)
            raise HaltedError
