"""Riding out Redis errors: every one of them, for as long as it lasts."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from redis.exceptions import RedisError

from rapids._core.counter_state import Counts
from rapids._core.redis_errors import reason
from rapids.backoff import exponential

__all__ = ["Failing", "Outages"]

T = TypeVar("T")

logger = logging.getLogger("rapids.worker")

_pause = exponential(base=1.6, max_delay=30.0)
_FIRST_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Failing:
    """An operation that Redis does not do."""

    operation: str
    since: float
    """`time.monotonic()`, seconds."""
    error: str
    """The latest one."""


class Outages:
    """Retries operations, and logs one line when an outage starts and one when it is over, however many they are."""

    def __init__(self, context: Mapping[str, object], counts: Counts) -> None:
        self._context = context
        self._counts = counts
        self._failing: dict[str, Failing] = {}

    async def ride_out(
        self,
        operation: str,
        attempt: Callable[[], Awaitable[T]],
        *,
        repair: Callable[[Exception], Awaitable[None]] | None = None,
        longest_pause: float = 2.0,
    ) -> T:
        """The attempt's result, however many Redis errors come before it.

        `repair` is told each error before the next attempt; it may raise Redis errors too. Pauses between attempts
        grow up to `longest_pause` seconds.
        """
        failures = 0
        while True:
            try:
                result = await attempt()
            except (RedisError, OSError) as error:
                failures += 1
                self.failed(operation, error)
                if repair is not None:
                    with suppress(RedisError, OSError):
                        await repair(error)
                await asyncio.sleep(self.pause(failures, longest_pause))
            else:
                self.worked(operation)
                return result

    @property
    def longest(self) -> "Failing | None":
        """The operation that has been failing for the longest time; None where none fails now."""
        return min(self._failing.values(), key=lambda failing: failing.since, default=None)

    def is_failing(self, operation: str) -> bool:
        """Whether an operation failed when it was tried last."""
        return operation in self._failing

    @staticmethod
    def pause(failures: int, longest: float = 2.0) -> float:
        """Seconds to wait after so many failures in a row."""
        return min(_FIRST_PAUSE * _pause(failures), longest)

    def failed(self, operation: str, error: Exception) -> None:
        """Note that an operation failed."""
        is_first = not self._failing
        since = self._failing[operation].since if operation in self._failing else time.monotonic()
        why = reason(error)
        self._failing[operation] = Failing(operation, since, f"{type(error).__name__}: {why}")
        if is_first:
            logger.error("Redis does not do as asked; waiting for it: %s: %s", operation, why, extra=self._context)
            self._counts.outage_started(operation, error)

    def worked(self, operation: str) -> None:
        """Note that an operation worked."""
        if operation in self._failing:
            del self._failing[operation]
            if not self._failing:
                lasted = self._counts.outage_ended()
                logger.warning("Redis is back after %.1f s", lasted, extra={**self._context, "outage_seconds": lasted})
