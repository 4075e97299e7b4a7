"""The reclaimer: takes what other consumers abandoned, what this one left in an earlier life, and what is due."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence

from rapids.storage import groups
from rapids.storage.groups import Claimed, RawEntry
from rapids.storage.keys import Source
from rapids.worker.intake import Abandoned, Intake
from rapids.worker.leases import Leases
from rapids.worker.member import Member

__all__ = ["Reclaimer"]

logger = logging.getLogger("rapids.worker")

LONGEST_PAUSE = 1.0
PRUNES_PER_TTL = 4
SHORTEST_PAUSE = 0.02


class Reclaimer:
    """Looks at least once a second, whatever the load, and sooner when an entry falls due."""

    def __init__(self, member: Member, intake: Intake, leases: Leases) -> None:
        self._member = member
        self._settings = member.settings
        self._intake = intake
        self._leases = leases
        self._open: list[RawEntry] = []
        self._prune_at = 0.0
        self._turn_at = 0.0
        """When to look again (`time.monotonic()`, seconds)."""
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now rather than at the next turn."""
        self.expect(0.0)

    def expect(self, delay: float) -> None:
        """Something falls due in `delay` seconds: look then at the latest."""
        at = time.monotonic() + delay
        if at < self._turn_at:
            self._turn_at = at
            self._wake.set()

    async def recall(self) -> None:
        """Find what this consumer name left pending before. Call before the first read."""
        for source in self._member.sources:
            left = await groups.entries_of(self._member.commands, source, self._member.name)
            self._intake.announce(Abandoned(source, entry_id, min_idle_ms=0) for entry_id in left)

    async def claim(self, abandoned: Abandoned) -> RawEntry | None:
        """Take an abandoned entry over, if nobody was faster."""
        source = abandoned.source
        if self._leases.holds(source, abandoned.entry_id):
            return None
        asked_at, claimed = await self._member.outages.ride_out(
            "claiming", lambda: self._claim(source, abandoned), repair=self._member.repair
        )
        self._leases.take(claimed.entries, since=asked_at)
        self._report_ghosts(source, claimed.ghosts)
        return claimed.entries[0] if claimed.entries else None

    async def _claim(self, source: Source, abandoned: Abandoned) -> tuple[float, Claimed]:
        """What the claim brought, and when Redis may have done it: the answer may be found after a standstill."""
        asked_at = time.monotonic()
        ids, least = [abandoned.entry_id], abandoned.min_idle_ms
        return asked_at, await groups.claim(
            self._member.commands, source, self._member.name, ids=ids, min_idle_ms=least, due=0
        )

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._turn_at = math.inf
            pause = await self._member.outages.ride_out("reclaiming", self._turn, repair=self._member.repair)
            self._turn_at = min(self._turn_at, time.monotonic() + pause)
            await asyncio.sleep(SHORTEST_PAUSE)
            await self._next_turn()

    async def _next_turn(self) -> None:
        while (left := self._turn_at - time.monotonic()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                return

    async def _turn(self) -> float:
        """One look at every source; the seconds until the next one is worth it."""
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + self._settings.consumer_ttl / PRUNES_PER_TTL
            for source in self._member.sources:
                await self._prune(source)
        waits = [await self._look(source) for source in self._member.sources]
        return min([LONGEST_PAUSE, *waits])

    async def _look(self, source: Source) -> float:
        least = self._settings.claim_min_idle_ms
        idle = await groups.idle_entries(self._member.commands, source, min_idle_ms=least)
        self._intake.announce(
            Abandoned(source, entry_id, least) for entry_id in idle if not self._leases.holds(source, entry_id)
        )
        if (room := self._room()) == 0:
            return LONGEST_PAUSE
        asked_at = time.monotonic()
        due = await groups.claim(self._member.commands, source, self._member.name, ids=(), min_idle_ms=0, due=room)
        self._open += due.entries
        self._leases.take(due.entries, since=asked_at)
        self._intake.put(due.entries)
        self._report_ghosts(source, due.ghosts)
        return LONGEST_PAUSE if due.next_due_ms is None else due.next_due_ms / 1000

    async def _prune(self, source: Source) -> None:
        ttl_ms = round(self._settings.consumer_ttl * 1000)
        removed = await groups.prune_consumers(
            self._member.commands, source, names_of=self._member.sources[0], ttl_ms=ttl_ms
        )
        if removed:
            logger.info(
                "removed consumers that were gone and owned nothing: %s",
                ", ".join(removed),
                extra={**self._member.context, "stream": source.stream, "removed": removed},
            )

    def _room(self) -> int:
        """How many more to take: a batch of its own, beside what the reader brings, so that neither starves."""
        self._open = [entry for entry in self._open if self._leases.holds(entry.source, entry.entry_id)]
        return max(self._settings.batch_size - len(self._open), 0)

    def _report_ghosts(self, source: Source, ghosts: Sequence[str]) -> None:
        if ghosts:
            logger.error(
                "entries were trimmed from the stream before they were handled: %d lost",
                len(ghosts),
                extra={**self._member.context, "stream": source.stream, "lost": ghosts},
            )
