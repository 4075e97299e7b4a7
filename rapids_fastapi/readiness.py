"""Readiness: whether this process gets its work done, asked by probes as often as they like."""

import asyncio
import logging
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from rapids import EventEmitter, EventRouter, RouterHealth
from rapids.exceptions import reason

__all__ = ["Readiness"]

_logger = logging.getLogger("rapids")

_FRESH = 1.0
"""Seconds for which an answer is given again, so that probes cost one look a second, however many there are."""

_PING_TIMEOUT = 2.0
"""Seconds Redis has to answer; a router's own look at it is bounded likewise."""


class Readiness:
    """Ready when the emitter's Redis answers, and every router is healthy. Why it is not is logged once, when that
    begins."""

    def __init__(self, emitter: EventEmitter, routers: Sequence[EventRouter]) -> None:
        self._emitter = emitter
        self._routers = routers
        self._turn = asyncio.Lock()
        self._checked_at: float | None = None
        self._is_ready = True
        self._unready_since = 0.0

    async def check(self) -> bool:
        """Whether it is ready, as of a second ago at the most. Those who ask at once share one look."""
        async with self._turn:
            if self._checked_at is None or time.monotonic() - self._checked_at > _FRESH:
                faults = await self._faults()
                self._checked_at = time.monotonic()
                self._note(faults)
            return self._is_ready

    async def _faults(self) -> list[str]:
        """What is wrong, in a few words each."""
        routers = asyncio.gather(*(router.health() for router in self._routers))
        unreachable, healths = await asyncio.gather(self._unreachable(), routers)
        return [*unreachable, *(_told(health) for health in healths if not health.ready)]

    async def _unreachable(self) -> list[str]:
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                await self._emitter.ping()
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            return [f"Redis does not answer: {reason(error) if str(error) else f'not within {_PING_TIMEOUT:g} s'}"]
        return []

    def _note(self, faults: Sequence[str]) -> None:
        was_ready, self._is_ready = self._is_ready, not faults
        if was_ready and faults:
            self._unready_since = time.monotonic()
            _logger.warning("not ready: %s", "; ".join(faults))
        elif faults == [] and not was_ready:
            _logger.warning("ready again after %.1f s", time.monotonic() - self._unready_since)


def _told(health: RouterHealth) -> str:
    return f"the router of group {health.group!r} on stream {health.stream!r}: {health.reason}: {health.message}"
