"""Readiness: whether Redis answers this process and its routers are healthy. Probes may ask as often as they like."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from redis.exceptions import RedisError

from rapids.emitter import EventEmitter
from rapids.exceptions import reason
from rapids.router import EventRouter

__all__ = ["Readiness"]

_logger = logging.getLogger("rapids")

_FRESH = 1.0
"""Seconds for which a result is reused, so that any number of probes causes at most one check a second."""

_PING_TIMEOUT = 2.0
"""Seconds within which Redis must answer. A router's own check has the same limit."""


class Readiness:
    """Ready if the emitter's Redis answers, and every router is healthy. When that changes, it is logged once, with the
    reasons.

    `held_back`: why the routers were not started yet; empty when they are.
    """

    def __init__(
        self, emitter: EventEmitter, routers: Sequence[EventRouter], held_back: Callable[[], str] = str
    ) -> None:
        self._emitter = emitter
        self._routers = routers
        self._held_back = held_back
        self._turn = asyncio.Lock()
        self._checked_at: float | None = None
        self._is_ready = True
        self._unready_since = 0.0

    async def check(self) -> bool:
        """Whether it is ready; the result may be one second old. Calls at the same time share one check."""
        async with self._turn:
            if self._checked_at is None or time.monotonic() - self._checked_at > _FRESH:
                faults = await self._faults()
                self._checked_at = time.monotonic()
                was_ready, self._is_ready = self._is_ready, not faults
                if was_ready and faults:
                    self._unready_since = self._checked_at
                    _logger.warning("not ready: %s", "; ".join(faults))
                elif not was_ready and not faults:
                    _logger.warning("ready again after %.1f s", self._checked_at - self._unready_since)
            return self._is_ready

    async def _faults(self) -> list[str]:
        """Each problem, in a few words."""
        routers = asyncio.gather(*(router.health() for router in self._routers))
        faults: list[str] = []
        try:
            async with asyncio.timeout(_PING_TIMEOUT):
                await self._emitter.ping()
        except (RedisError, OSError) as error:  # a TimeoutError is an OSError
            faults.append(f"Redis unavailable: {reason(error) if str(error) else f'no answer in {_PING_TIMEOUT:g} s'}")
        if held_back := self._held_back():
            return [*faults, held_back]
        return faults + [
            f"the router of group {health.group!r} on stream {health.stream!r}: {health.reason}: {health.message}"
            for health in await routers
            if not health.ready
        ]
