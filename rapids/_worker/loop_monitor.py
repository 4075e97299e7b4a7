"""The pulse: whether the event loop turns, and whether what is there to be handled is begun."""

import asyncio
import time

from rapids._worker.acks import Acks
from rapids._worker.executor import Crew

__all__ = ["Pulse"]

INTERVAL = 0.5
"""Seconds between two beats. Nothing is asked of Redis."""

STALL = 3.0
"""Seconds for which the loop may stand still: half of what a consumer's name lasts without being kept."""

MEMORY = 10.0
"""Seconds for which a stall is remembered. While the loop stands still nobody can be told."""


class Pulse:
    """Beats on the event loop that everything of a router runs on."""

    def __init__(self, crew: Crew, acks: Acks) -> None:
        self._crew = crew
        self._acks = acks
        self._beat_at = time.monotonic()
        self._stall = 0.0
        self._stalled_at = 0.0
        self._idle_since: float | None = None
        self._idle_mark = 0.0

    async def run(self) -> None:
        """Beat until cancelled."""
        self._beat_at = time.monotonic()
        while True:
            await asyncio.sleep(INTERVAL)
            self._beat(time.monotonic())

    def _beat(self, now: float) -> None:
        if (late := now - self._beat_at - INTERVAL) > STALL:
            self._stall, self._stalled_at = late, now
        self._beat_at = now
        settled_at = self._acks.settled_at  # which moves when any handler has come to an end
        if not self._crew.has_idle_hands or self._idle_mark != settled_at:
            self._idle_since, self._idle_mark = None, settled_at
        elif self._idle_since is None:
            self._idle_since = now

    @property
    def stall(self) -> float:
        """Seconds for which the loop stood still just now or lately; 0 where that was not for long."""
        return self._stall if time.monotonic() - self._stalled_at < MEMORY else 0.0

    @property
    def idle_seconds(self) -> float:
        """For how long something has been there to be begun, and nothing was."""
        return 0.0 if self._idle_since is None else time.monotonic() - self._idle_since
