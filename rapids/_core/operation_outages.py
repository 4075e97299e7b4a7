"""Waiting out outages of Redis, until told to halt."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from redis.exceptions import RedisError

from rapids._core.redis_errors import reason
from rapids._storage.client.connections import is_outage
from rapids.backoff import exponential

__all__ = ["HaltedError", "Outage", "Patience"]

T = TypeVar("T")

logger = logging.getLogger("rapids.operations")

LONGEST_PAUSE = 2.0
_pause = exponential(base=1.6, max_delay=40.0)
_FIRST_PAUSE = 0.05


class HaltedError(Exception):
    """Told to halt while waiting."""


class Outage:
    """Redis being away, as several find it at once. Logs one line when it begins and one when it is over for all."""

    def __init__(self, context: Mapping[str, object]) -> None:
        self._context = context
        self._waiting: set[Patience] = set()
        self._since = 0.0

    def met(self, by: "Patience", error: Exception) -> None:
        """Somebody waits."""
        if not self._waiting:
            self._since = time.monotonic()
            logger.error("Redis does not do as asked; waiting for it: %s", reason(error), extra=self._context)
        self._waiting.add(by)

    def is_over(self, by: "Patience") -> None:
        """Somebody does not wait any more."""
        if by in self._waiting:
            self._waiting.discard(by)
            if not self._waiting:
                logger.warning("Redis is back after %.1f s", time.monotonic() - self._since, extra=self._context)

    def is_given_up(self, by: "Patience") -> None:
        """Somebody has halted."""
        self._waiting.discard(by)


class Patience:
    """Tries again while Redis is away, until told to halt."""

    def __init__(self, halt: asyncio.Event, outage: Outage) -> None:
        self._halt = halt
        self._outage = outage
        self._failures = 0

    async def wait_out(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The attempt's result, however many outages come before it.

        Raises `HaltedError` when told to halt while Redis is away, and any error that is no outage.
        """
        has_failed = False
        while True:
            try:
                result = await attempt()
            except (RedisError, OSError) as error:
                has_failed = True
                await self.failed(error)
            else:
                if has_failed:  # a server that takes no writes still answers questions
                    self.worked()
                return result

    async def failed(self, error: Exception) -> None:
        """Wait after an error, longer each time. Raises it if it is no outage, `HaltedError` when told to halt."""
        if not is_outage(error):
            raise error
        self._failures += 1
        self._outage.met(self, error)
        await self.sleep(min(_FIRST_PAUSE * _pause(self._failures), LONGEST_PAUSE))

    def worked(self) -> None:
        """Redis did as asked."""
        self._failures = 0
        self._outage.is_over(self)

    async def sleep(self, seconds: float) -> None:
        """Wait. Raises `HaltedError` when told to halt meanwhile, or before."""
        if self._halt.is_set():
            self._outage.is_given_up(self)
            raise HaltedError
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._halt.wait()
            except TimeoutError:
                return
            self._outage.is_given_up(self)
            raise HaltedError
