"""Exclusivity: of all consumers of a group, one is active at a time."""

import asyncio
import logging
import time
from collections.abc import Callable
from uuid import uuid4

from rapids._storage import groups
from rapids._worker.context import Member

__all__ = ["Exclusivity"]

logger = logging.getLogger("rapids.worker")

TTL_MS = 3_000
"""How long a group has nobody after the active consumer died."""

STANDBY_PAUSE = 0.5
"""Seconds between two looks of a consumer on standby."""


class Exclusivity:
    """Holds the group's key while this consumer is active, and waits for it otherwise. Without the option: always.

    An active consumer that stood still for longer than the key lasts asks for it before it begins anything. What it
    held is another's by then, and it lets go of all of it.
    """

    def __init__(self, member: Member, on_gained: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self._member = member
        self._key = member.sources[0].exclusive
        self._token = uuid4().hex
        self._on_gained = on_gained
        self._on_lost = on_lost
        self._held_at: float | None = None
        self.looked_at = time.monotonic()
        """When it last knew who is active (`time.monotonic()`, seconds)."""
        self.gained_at = 0.0
        """When this consumer became active."""
        self._is_wanted = member.settings.exclusive
        self.may_read = asyncio.Event()
        """Set once everything that others left is worked off; what is new comes after it."""
        if not self._is_wanted:
            self.may_read.set()

    @property
    def is_active(self) -> bool:
        """Whether this consumer works. Another may have taken over without its knowing: see `lasts`."""
        return not self._is_wanted or self._held_at is not None

    @property
    def lasts(self) -> bool:
        """Whether no other consumer can be active."""
        return not self._is_wanted or (self._held_at is not None and time.monotonic() - self._held_at < TTL_MS / 1000)

    async def run(self) -> None:
        """Hold the key, or wait for it, until cancelled."""
        while True:
            pause = TTL_MS / 3000 if await self.confirm() else STANDBY_PAUSE
            await asyncio.sleep(pause)

    async def confirm(self) -> bool:
        """Whether this consumer is the active one, or has just become it. Waits for Redis where it is away."""
        was_active = self._held_at is not None
        held = await self._member.outages.retry("holding the group", self._hold)
        self.looked_at = time.monotonic()
        if held and not was_active:
            logger.info("active: the only consumer of its group that is", extra=self._member.context)
            self.gained_at = time.monotonic()
            self._on_gained()
        elif was_active and not held:
            self._held_at = None
            self.may_read.clear()
            logger.error(
                "another consumer became active while this one stood still; on standby", extra=self._member.context
            )
            self._on_lost()
        return held

    def hold_reading(self) -> None:
        """Have what others left worked off before anything new is read: after a pause, what was handed back."""
        if self._is_wanted:
            self.may_read.clear()

    async def release(self) -> None:
        """Let another consumer be active at once. Raises `RedisError`."""
        if self._held_at is not None:
            await groups.release(self._member.commands, self._key, self._token)

    async def _hold(self) -> bool:
        asked_at = time.monotonic()
        held = await groups.hold(self._member.commands, self._key, self._token, ttl_ms=TTL_MS)
        if held:
            self._held_at = asked_at
        return held
