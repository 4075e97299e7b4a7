"""Leases: while this process lives, nothing it holds looks abandoned to the group."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence

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
        self._lasts = claim_min_idle_ms / 1000
        self._interval = max(self._lasts / 3, MINIMUM_INTERVAL)
        self._outages = outages
        self._context = context
        self._held: dict[Source, dict[bytes, float]] = {}
        """For each entry, when its lease was last known to be ours (`time.monotonic()`, seconds)."""
        self.renewed_at = 0.0
        """When something was last renewed (`time.monotonic()`, seconds)."""

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def take(self, entries: Iterable[RawEntry], *, since: float | None = None) -> None:
        """Hold entries from now on. `since`: when Redis may have given them out (`time.monotonic()`, seconds)."""
        at = time.monotonic() if since is None else since
        for entry in entries:
            self._held.setdefault(entry.source, {})[entry.entry_id] = at

    def drop(self, entry: RawEntry) -> None:
        """Hold an entry no longer."""
        self._held.get(entry.source, {}).pop(entry.entry_id, None)

    def holds(self, source: Source, entry_id: bytes) -> bool:
        return entry_id in self._held.get(source, ())

    async def still_ours(self, entry: RawEntry) -> bool:
        """Whether an entry may be begun. Asks Redis only if this process stood still for so long that it might not.

        That is how a process that was stopped and continued does not run what others took over meanwhile.
        """
        known = self._held.get(entry.source, {}).get(entry.entry_id)
        if known is not None and time.monotonic() - known >= self._lasts:
            await self._renew_chunk(entry.source, [entry.entry_id])
        return self.holds(entry.source, entry.entry_id)

    async def register_again(self, source: Source) -> None:
        """Tell a group that was made anew what this process holds of it. Raises `RedisError`."""
        ids = list(self._held.get(source, ()))
        for first in range(0, len(ids), CHUNK):
            await groups.register(self._commands, source, self._consumer, ids[first : first + CHUNK])

    async def run(self) -> None:
        """Renew, three times in the time after which an entry counts as abandoned. Ends when cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(self._interval)
            self._notice_standstill(time.monotonic() - before - self._interval)
            for source in list(self._held):
                await self._renew(source)

    def _notice_standstill(self, late: float) -> None:
        if late + self._interval >= self._lasts and len(self):
            logger.warning(
                "the event loop stood still for %.1f s: leases of %d entries may have lapsed",
                *(late, len(self)),
                extra={**self._context, "standstill_seconds": late},
            )

    async def _renew(self, source: Source) -> None:
        ids = list(self._held[source])
        for first in range(0, len(ids), CHUNK):
            await self._renew_chunk(source, ids[first : first + CHUNK])

    async def _renew_chunk(self, source: Source, ids: Sequence[bytes]) -> None:
        asked_at = time.monotonic()
        lost = await self._outages.ride_out(
            "renewing leases",
            lambda: groups.renew(self._commands, source, self._consumer, ids),
            longest_pause=self._interval,
        )
        self.renewed_at = time.monotonic()
        held = self._held[source]
        held.update({entry_id: asked_at for entry_id in ids if entry_id in held})
        for entry_id in lost:
            if held.pop(entry_id, None) is not None:  # not settled while the question was under way
                logger.warning(
                    "lease lost: another consumer has the entry now",
                    extra={**self._context, "stream": source.stream, "entry_id": entry_id.decode()},
                )
