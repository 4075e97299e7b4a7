"""The reclaimer: takes what other consumers abandoned, what this one left in an earlier life, and what is due."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence

from rapids.settings import RouterSettings
from rapids.storage import groups
from rapids.storage.connection import Commands
from rapids.storage.groups import Claimed, RawEntry
from rapids.storage.keys import Source
from rapids.worker.intake import Intake
from rapids.worker.leases import Leases
from rapids.worker.outages import Outages

__all__ = ["Reclaimer"]

logger = logging.getLogger("rapids.worker")

LONGEST_PAUSE = 1.0
SHORTEST_PAUSE = 0.02


class Reclaimer:
    """Looks at least once a second, whatever the load, and sooner when an entry falls due."""

    def __init__(
        self,
        commands: Commands,
        sources: Sequence[Source],
        consumer: str,
        settings: RouterSettings,
        intake: Intake,
        leases: Leases,
        outages: Outages,
        repair: Callable[[Exception], Awaitable[None]],
        context: Mapping[str, object],
    ) -> None:
        self._commands = commands
        self._sources = sources
        self._consumer = consumer
        self._settings = settings
        self._intake = intake
        self._leases = leases
        self._outages = outages
        self._repair = repair
        self._context = context
        self._open: list[RawEntry] = []
        self._earlier: dict[Source, deque[bytes]] = {}
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now rather than at the next turn."""
        self._wake.set()

    async def recall(self) -> None:
        """Find what this consumer name left pending before. Call before the first read."""
        for source in self._sources:
            self._earlier[source] = deque(await groups.entries_of(self._commands, source, self._consumer))

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            pause = await self._outages.ride_out("reclaiming", self._turn, repair=self._repair)
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), pause)
            except TimeoutError:
                continue
            await asyncio.sleep(SHORTEST_PAUSE)

    async def _turn(self) -> float:
        """One look at every source; the seconds until the next one is worth it."""
        waits = [await self._look(source) for source in self._sources]
        return max(min([LONGEST_PAUSE, *waits]), SHORTEST_PAUSE)

    async def _look(self, source: Source) -> float:
        room = self._room()
        if room == 0:
            return LONGEST_PAUSE
        earlier = self._earlier.get(source, deque[bytes]())
        if earlier:
            mine = [earlier.popleft() for _ in range(min(room, len(earlier)))]
            self._accept(await groups.claim(self._commands, source, self._consumer, ids=mine, min_idle_ms=0, due=0))
            return 0.0
        least = self._settings.claim_min_idle_ms
        idle = await groups.idle_entries(self._commands, source, min_idle_ms=least)
        abandoned = [entry_id for entry_id, _ in idle if not self._leases.holds(source, entry_id)]
        claimed = await groups.claim(
            self._commands, source, self._consumer, ids=abandoned[:room], min_idle_ms=least, due=room
        )
        self._accept(claimed)
        more = len(abandoned) > room or claimed.next_due_ms == 0
        return 0.0 if more else LONGEST_PAUSE if claimed.next_due_ms is None else claimed.next_due_ms / 1000

    def _room(self) -> int:
        """How many more to take: a batch of its own, beside what the reader brings, so that neither starves."""
        self._open = [entry for entry in self._open if self._leases.holds(entry.source, entry.entry_id)]
        return max(self._settings.batch_size - len(self._open), 0)

    def _accept(self, claimed: Claimed) -> None:
        self._open += claimed.entries
        self._leases.take(claimed.entries)
        self._intake.put(claimed.entries)
        if claimed.ghosts:
            logger.error(
                "%d entries were trimmed from the stream before they were handled: lost",
                len(claimed.ghosts),
                extra={**self._context, "lost": claimed.ghosts},
            )
