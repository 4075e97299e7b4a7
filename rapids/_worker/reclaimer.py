"""The reclaimer: takes what other consumers abandoned, what this one left in an earlier life, and what is due."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence

from rapids._core.entry_id import order
from rapids._storage import groups, streams
from rapids._storage.client.connections import Reply
from rapids._storage.groups import Claimed, RawEntry
from rapids._storage.keys import Source
from rapids._worker.context import Member
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.inflight import HeldEntry, Inflight
from rapids._worker.intake import Abandoned, Intake
from rapids._worker.ledger_cleanup import Leftovers
from rapids._worker.losses import report_lost
from rapids._worker.pause_state import Pausing
from rapids.observers import Trimmed

__all__ = ["Reclaimer"]

logger = logging.getLogger("rapids.worker")

LONGEST_PAUSE = 1.0
PRUNES_PER_TTL = 4
SHORTEST_PAUSE = 0.02

NO_ROOM = math.inf
"""Instead of a wait: whether anything is due was not looked at."""


class Reclaimer:
    """Looks at least once a second, whatever the load, and sooner when an entry falls due."""

    def __init__(
        self,
        member: Member,
        intake: Intake,
        inflight: Inflight,
        exclusivity: Exclusivity,
        pausing: Pausing,
        on_turn: Callable[[], None],
    ) -> None:
        self._exclusivity = exclusivity
        self._pausing = pausing
        self._on_turn = on_turn
        self._member = member
        self._settings = member.settings
        self._intake = intake
        self._inflight = inflight
        self._leftovers = Leftovers(member)
        self._prune_at = 0.0
        self._turn_at = 0.0
        """When to look again (`time.monotonic()`, seconds)."""
        self._wake = asyncio.Event()
        self.turned_at = time.monotonic()
        """When it last took a turn (`time.monotonic()`, seconds)."""

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
            left = await groups.entries_of(self._member.commands, source, self._member.name.encode())
            self._intake.announce(Abandoned(source, entry_id, 0, count) for entry_id, count in left)

    async def claim(self, abandoned: Abandoned) -> HeldEntry | None:
        """Take an abandoned entry over, if nobody was faster."""
        source = abandoned.source
        if self._inflight.get(source, abandoned.entry_id) is not None:
            return None
        asked_at, claimed = await self._member.outages.retry(
            "claiming", lambda: self._claim(source, abandoned), repair=self._member.repair
        )
        held = self._inflight.add_claimed(claimed.entries, since=asked_at)
        self._report_ghosts(source, claimed.ghosts, "pending")
        return held[0] if held else None

    async def _claim(self, source: Source, abandoned: Abandoned) -> tuple[float, Claimed]:
        """What the claim brought, and when Redis may have done it: the answer may be found after a standstill."""
        asked_at = time.monotonic()
        # Where one consumer is active at a time, the others are at work on nothing.
        names_of = None if self._settings.exclusive else self._member.sources[0]
        return asked_at, await groups.claim(
            *(self._member.commands, source, self._member.name),
            ids=[abandoned.entry_id],
            min_idle_ms=abandoned.min_idle_ms,
            due=0,
            names_of=names_of,
        )

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._turn_at = math.inf
            pause = await self._member.outages.retry("reclaiming", self._turn, repair=self._member.repair)
            self.turned_at = time.monotonic()
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
        await self._leftovers.turn()
        self._on_turn()
        if not self._exclusivity.is_active:
            return LONGEST_PAUSE
        consumers = await self._pausing.look()
        if self._pausing.is_paused:
            return LONGEST_PAUSE
        looks = zip(self._member.sources, consumers, strict=True)
        waits = [await self._look(source, rows) for source, rows in looks]
        wait = min([LONGEST_PAUSE, *waits])
        nothing_is_due = all(0 < wait < NO_ROOM for wait in waits)
        self._pausing.looked(nothing_is_due=nothing_is_due)
        if not self._exclusivity.may_read.is_set():
            if nothing_is_due and self._intake.is_empty and not len(self._inflight):
                self._exclusivity.may_read.set()  # everything that others left is worked off
            return SHORTEST_PAUSE
        return wait

    async def _look(self, source: Source, consumers: Reply) -> float:
        # Where one consumer is active at a time, what another has pending is abandoned, however short a time ago.
        least = 1 if self._settings.exclusive else self._settings.claim_min_idle_ms
        idle = await groups.idle_entries(self._member.commands, source, consumers, min_idle_ms=least)
        if self._settings.exclusive:  # of several consumers, each in its own order
            idle.sort(key=lambda found: order(found[0]))
        self._intake.announce(
            Abandoned(source, entry_id, least, count)
            for entry_id, count in idle
            if self._inflight.get(source, entry_id) is None
        )
        if (room := self._intake.room_for_due) == 0:
            return NO_ROOM
        asked_at = time.monotonic()
        due = await groups.claim(
            *(self._member.commands, source, self._member.name),
            ids=(),
            min_idle_ms=0,
            due=room,
        )
        self._intake.put_due(self._inflight.add_claimed(due.entries, since=asked_at))
        self._report_ghosts(source, due.ghosts, "pending")
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

    async def peek(self, abandoned: Abandoned) -> RawEntry | None:
        """An abandoned entry as it is, without claiming it; None where it is not in the stream any more."""
        source, entry_id, member = abandoned.source, abandoned.entry_id, self._member
        fields = await member.outages.retry(
            "looking at an entry", lambda: streams.entry(member.commands, source.stream, entry_id)
        )
        return None if fields is None else RawEntry(source, entry_id, fields, abandoned.deliveries)

    async def fetch(self, held: HeldEntry) -> bool:
        """Bring the payload of a held entry back. False where it was trimmed away meanwhile: then it is lost."""
        entry, member = held.entry, self._member
        source = entry.source
        fields = await member.outages.retry(
            "fetching", lambda: streams.entry(member.commands, source.stream, entry.entry_id)
        )
        if (
            fields is None
        ):  # not there, or not where it was looked for: the master of before a failover may have answered
            fields = await member.outages.retry(
                "fetching", lambda: groups.drop_ghost(member.commands, source, entry.entry_id)
            )
        if fields is not None:
            held.entry = entry._replace(fields=fields)
            return True
        self._inflight.drop(held)
        self._report_ghosts(source, [entry.entry_id.decode()], "held")
        return False

    def _report_ghosts(self, source: Source, ghosts: Sequence[str], when: Trimmed) -> None:
        if ghosts:
            message = "entries were trimmed from the stream before they were handled: %d lost"
            report_lost(self._member, len(ghosts), message, len(ghosts), stream=source.stream, lost=ghosts)
            self._member.counts.lost(len(ghosts), when, entry_ids=ghosts, stream=source.stream)
