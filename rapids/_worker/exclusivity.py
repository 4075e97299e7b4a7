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
"""How long a group has nobody after the active consumer died."""

STANDBY_PAUSE = 0.5
"""Seconds between two looks of a consumer on standby."""


class Exclusivity:
    """Holds the group's key while this consumer is active, and waits for it otherwise. Without the option: always.

    An active consumer that stood still for longer than the key lasts asks for it before it begins anything. What it
    held is another's by then, and it drops all of it.
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
        """Whether this consumer is the active one, or has just become it. Waits for Redis where it is away."""
        was_active = self._gate.is_active
        held = await self._context.outages.retry("holding the group", self._hold)
        self.looked_at = time.monotonic()
        if held and not was_active:
            logger.info("active: the only consumer of its group that is", extra=self._context.log)
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
        """Let another consumer be active at once. Raises `RedisError`."""
        if self._context.settings.exclusive and self._gate.is_active:
            await groups.release(self._context.commands, self._key, self._token)

    async def _hold(self) -> bool:
        asked_at = time.monotonic()
        held = await groups.hold(self._context.commands, self._key, self._token, ttl_ms=TTL_MS)
        if held:
            self._gate.be_active(asked_at + TTL_MS / 1000)
        return held
