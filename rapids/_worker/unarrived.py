"""Entries that were given to this consumer and never arrived, since the answer was lost: taken again at once."""

import asyncio
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from redis.exceptions import RedisError

from rapids._core.entry_id import order
from rapids._storage import groups, streams
from rapids._storage.client.commands import Arrivals
from rapids._storage.groups import PendingEntry
from rapids._storage.keys import Source
from rapids._worker.context import WorkerContext
from rapids._worker.gate import Gate
from rapids._worker.inflight import HeldEntry, Inflight
from rapids._worker.intake import Intake
from rapids._worker.losses import report_ghosts

__all__ = ["Unarrived"]

LATE = 1.0
"""Seconds by which the server may get a read later than it was sent."""


class Unarrived:
    """Finds them among the entries that are pending for this consumer: this process does not hold them, and no read is
    under way whose answer has them. No handler of theirs has begun, so they are taken as the same delivery."""

    def __init__(
        self, context: WorkerContext, gate: Gate, inflight: Inflight, intake: Intake, arrivals: Arrivals
    ) -> None:
        """`arrivals`: those on the connection that reads."""
        self._context = context
        self._gate = gate
        self._inflight = inflight
        self._intake = intake
        self.arrivals = arrivals
        self._since = time.monotonic()
        self._until = -math.inf
        self._turn = asyncio.Lock()
        self.is_expected = False
        """Whether there may be any."""
        self.reading_since: float | None = None
        """When the read that is under way was sent (`time.monotonic()`, seconds); None if there is none."""
        self.claiming: set[tuple[Source, bytes]] = set()
        """The entries that executors claim now."""

    def expect(self) -> None:
        """Note that an answer was lost. The server may answer a lost read for as long as the read waits there."""
        self._until = time.monotonic() + self._context.settings.block_ms / 1000 + LATE
        self.is_expected = True

    def was_given_here(self, found: PendingEntry) -> bool:
        """Whether it was given to this process, not to an earlier one of its name or before another took over all."""
        since = max(self._since, self._inflight.lost_all_at)
        return found.consumer == self._context.name.encode() and found.idle_ms / 1000 < time.monotonic() - since

    def includes(self, source: Source, found: PendingEntry) -> bool:
        """Whether an entry that was just found as pending is one of them."""
        entry_id = found.entry_id
        if self._inflight.get(source, entry_id) is not None or (source, entry_id) in self.claiming:
            return False
        return self.was_given_here(found) and not self._is_on_its_way(source, found)

    def _is_on_its_way(self, source: Source, found: PendingEntry) -> bool:
        """Whether the read that is under way may have it."""
        since, last = self.reading_since, self._inflight.last_read.get(source, "0-0")
        if since is None or found.deliveries > 1 or order(found.entry_id) <= order(last):
            return False
        return found.idle_ms / 1000 <= time.monotonic() - since

    async def on_its_way(self, source: Source) -> list[bytes]:
        """The ids of entries that may be on their way now, if an answer takes long to arrive: their leases are to be
        renewed, or others would take them over. Raises `RedisError`."""
        if self.reading_since is None or self.arrivals.first_at is None:
            return []
        pending = await groups.entries_of(self._context.commands, source, self._context.name.encode())
        return [
            found.entry_id
            for found in pending
            if self._inflight.get(source, found.entry_id) is None and self._is_on_its_way(source, found)
        ]

    async def take(self) -> None:
        """Hold and queue all that are found now, in the order of each stream. Raises `RedisError`."""
        async with self._turn:
            began_at = time.monotonic()
            commands, name, term = self._context.commands, self._context.name, self._gate.term
            for source in self._context.sources:
                pending = await groups.entries_of(commands, source, name.encode())
                ids = [found.entry_id for found in pending if self.includes(source, found)]
                if ids:
                    asked_at = time.monotonic()
                    claimed = await groups.claim(
                        commands, source, name, ids=ids, min_idle_ms=0, due=0, again=True, term=term
                    )
                    if claimed is None or self._gate.term is not term:
                        break  # another consumer is or was the active one: what is still here is found as abandoned
                    await self._queue(self._inflight.add_claimed(claimed.entries, since=asked_at))
                    report_ghosts(self._context, source, claimed.ghosts, "pending")
            self.is_expected = began_at < self._until

    async def _queue(self, taken: Sequence[HeldEntry]) -> None:
        """Queue entries that are held without their fields: executors fetch these when they get to them.

        If their keys matter, they are fetched before, as far as that works now: later entries of a key must not come
        before them. If interrupted, they are queued all the same: one that is held and not queued would never run.
        """
        try:
            if self._context.settings.order_by is not None:
                await self._fetch(taken)
        finally:
            self._intake.put(taken)

    async def _fetch(self, taken: Iterable[HeldEntry]) -> None:
        commands, counts = self._context.fetching, self._context.counts
        with suppress(RedisError, OSError):
            for held in taken:
                entry = held.entry
                fields = await streams.entry(commands, entry.source.stream, entry.entry_id)
                if fields is not None:
                    held.entry = entry._replace(fields=fields)
                    counts.delivered([held.entry])
