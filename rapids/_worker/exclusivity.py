"""Exclusivity: of all consumers of a group, one is active at a time."""

import asyncio
import logging
import time
from uuid import uuid4

from rapids._storage import groups
from rapids._worker.context import WorkerContext
from rapids._worker.gate import Gate
from rapids._worker.inflight import Inflight
from rapids._worker.intake import Intake

__all__ = ["Exclusivity"]

logger = logging.getLogger("rapids.worker")

TTL_MS = 3_000
"""For how many milliseconds a group has no active consumer after the active one died."""

STANDBY_PAUSE = 0.5
"""Seconds between two attempts of a consumer on standby to become active."""


class Exclusivity:
    """Holds the group's key while this consumer is active, and waits for it otherwise.

    If an active consumer stood still for longer than the key lasts, it asks for the key before it begins an entry. If
    another consumer has the key, that one has also taken the entries, so this one drops all of them.
    """

    def __init__(self, context: WorkerContext, gate: Gate, inflight: Inflight, intake: Intake) -> None:
        self._context = context
        self._gate = gate
        self._inflight = inflight
        self._intake = intake
        self._key = context.sources[0].exclusive
        self._token = uuid4().hex
        self.looked_at = time.monotonic()
        """When it last knew who is active (`time.monotonic()`, seconds)."""
        self.gained_at = 0.0
        """When this consumer became active."""

    async def run(self) -> None:
        """Hold the key, or wait for it, until cancelled."""
        while True:
            pause = TTL_MS / 3000 if await self.confirm() else STANDBY_PAUSE
            await asyncio.sleep(pause)

    async def confirm(self) -> bool:
        """Whether this consumer is active, or has just become active. Retries while Redis is unavailable."""
        was_active = self._gate.is_active
        held = await self._context.outages.retry("holding the group", self._hold)
        self.looked_at = time.monotonic()
        if held and not was_active:
            logger.info("this consumer is now the active one of its group", extra=self._context.log)
            self.gained_at = time.monotonic()
            self._context.next_look.now()
        elif was_active and not held:
            logger.error(
                "another consumer became active while this one stood still; on standby", extra=self._context.log
            )
            self._gate.stand_by()
            self._intake.drain()
            self._inflight.lose_all()
        return held

    async def release(self) -> None:
        """Release the key, so that another consumer becomes active at once. Raises `RedisError`."""
        if self._context.settings.exclusive and self._gate.is_active:
            await groups.release(self._context.commands, self._key, self._token)

    async def _hold(self) -> bool:
        asked_at = time.monotonic()
        held = await groups.hold(self._context.commands, self._key, self._token, ttl_ms=TTL_MS)
        self._context.clock.see(held.now_ms, asked_at)
        if held.is_ours:
            self._gate.be_active(asked_at + TTL_MS / 1000)
        return held.is_ours
