"""Waiting out outages of Redis, until told to halt."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from redis.exceptions import RedisError

from rapids.backoff import exponential
from rapids.reasons import reason
from rapids.storage.connection import is_outage

__all__ = ["HaltedError", "Patience"]

T = TypeVar("T")

logger = logging.getLogger("rapids.operations")

LONGEST_PAUSE = 2.0
_pause = exponential(base=1.6, max_delay=40.0)
_FIRST_PAUSE = 0.05


class HaltedError(Exception):
    """Told to halt while waiting."""


class Patience:
    """Tries again while Redis is away. Logs one line when an outage begins and one when it is over."""

    def __init__(self, halt: asyncio.Event, context: Mapping[str, object]) -> None:
        self._halt = halt
        self._context = context
        self._failures = 0
        self._since: float | None = None

    async def wait_out(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """The attempt's result, however many outages come before it.

        Raises `HaltedError` when told to halt while Redis is away, and any error that is no outage.
        """
        while True:
            try:
                result = await attempt()
            except (RedisError, OSError) as error:
                await self.failed(error)
            else:
                self.worked()
                return result

    async def failed(self, error: Exception) -> None:
        """Wait after an error, longer each time. Raises it if it is no outage, `HaltedError` when told to halt."""
        if not is_outage(error):
            raise error
        self._failures += 1
        if self._since is None:
            self._since = time.monotonic()
            logger.error("Redis does not do as asked; waiting for it: %s", reason(error), extra=self._context)
        await self.sleep(min(_FIRST_PAUSE * _pause(self._failures), LONGEST_PAUSE))

    def worked(self) -> None:
        """Redis did as asked."""
        if self._since is not None:
            logger.warning("Redis is back after %.1f s", time.monotonic() - self._since, extra=self._context)
            self._failures, self._since = 0, None

    async def sleep(self, seconds: float) -> None:
        """Wait. Raises `HaltedError` when told to halt meanwhile, or before."""
        if self._halt.is_set():
            raise HaltedError
        if seconds > 0:
            try:
                async with asyncio.timeout(seconds):
                    await self._halt.wait()
            except TimeoutError:
                return
            raise HaltedError
