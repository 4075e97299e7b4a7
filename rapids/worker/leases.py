"""Leases: while this process lives, nothing it holds looks abandoned to the group."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping

from rapids.storage import groups
from rapids.storage.connection import Commands
from rapids.storage.groups import RawEntry
from rapids.storage.keys import Source
from rapids.worker.outages import Outages

__all__ = ["Leases"]

logger = logging.getLogger("rapids.worker")

CHUNK = 500
"""Entries renewed by one call of the script, which holds up the server while it runs."""

MINIMUM_INTERVAL = 0.01


class Leases:
    """Everything this process holds, from when it was taken until its settlement is written."""

    def __init__(
        self, commands: Commands, consumer: str, claim_min_idle_ms: int, outages: Outages, context: Mapping[str, object]
    ) -> None:
        self._commands = commands
        self._consumer = consumer
        self._interval = max(claim_min_idle_ms / 3000, MINIMUM_INTERVAL)
        self._outages = outages
        self._context = context
        self._held: dict[Source, set[bytes]] = {}
        self.renewed_at = 0.0
        """When something was last renewed (`time.monotonic()`, seconds)."""

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def take(self, entries: Iterable[RawEntry]) -> None:
        """Hold entries from now on."""
        for entry in entries:
            self._held.setdefault(entry.source, set()).add(entry.entry_id)

    def drop(self, entry: RawEntry) -> None:
        """Hold an entry no longer."""
        self._held.get(entry.source, set[bytes]()).discard(entry.entry_id)

    def holds(self, source: Source, entry_id: bytes) -> bool:
        return entry_id in self._held.get(source, ())

    async def run(self) -> None:
        """Renew, three times in the time after which an entry counts as abandoned. Ends when cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            for source in list(self._held):
                await self._renew(source)

    async def _renew(self, source: Source) -> None:
        ids = list(self._held[source])
        for first in range(0, len(ids), CHUNK):
            chunk = ids[first : first + CHUNK]
            lost = await self._outages.ride_out(
                "renewing leases",
                lambda chunk=chunk: groups.renew(self._commands, source, self._consumer, chunk),
                longest_pause=self._interval,
            )
            self.renewed_at = time.monotonic()
            for entry_id in lost:
                self._lose(source, entry_id)

    def _lose(self, source: Source, entry_id: bytes) -> None:
        if self.holds(source, entry_id):  # not settled while the question was under way
            self._held[source].discard(entry_id)
            logger.warning(
                "lease lost: another consumer has the entry now",
                extra={**self._context, "stream": source.stream, "entry_id": entry_id.decode()},
            )
