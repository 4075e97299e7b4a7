"""Leases: while this process lives, the group does not count its entries as abandoned."""

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Literal, NamedTuple, TypeAlias

from redis.exceptions import RedisError

from rapids._core.entry_id import order
from rapids._core.redis_errors import is_no_group, is_no_stream
from rapids._storage import groups, streams
from rapids._storage.keys import Source
from rapids._worker.context import WorkerContext
from rapids._worker.gate import Gate
from rapids._worker.inflight import HeldEntry, Inflight, State
from rapids._worker.unarrived import Unarrived

__all__ = ["Leases", "Moment", "Registered"]

logger = logging.getLogger("rapids.worker")

CHUNK = 500
"""Entries renewed by one call of the script, which blocks the server while it runs."""

MINIMUM_INTERVAL = 0.01

Registered: TypeAlias = Literal["ours", "another's", "trimmed"]


class Moment(NamedTuple):
    """When something was sent: the losses of a group noticed until then, and the monotonic time (seconds)."""

    losses: int
    at: float


class Leases:
    """Renews the leases of all held entries, and registers them with a group that was recreated."""

    def __init__(self, context: WorkerContext, gate: Gate, inflight: Inflight, unarrived: Unarrived) -> None:
        self._context = context
        self._gate = gate
        self._inflight = inflight
        self._unarrived = unarrived
        self._duration = context.settings.claim_min_idle_ms / 1000
        self._interval = max(self._duration / 3, MINIMUM_INTERVAL)
        self._losses = 0
        """How many times this process noticed that a group was lost."""
        self._keeping_name = asyncio.Lock()
        self.renewed_at = 0.0
        """When a lease was last renewed (`time.monotonic()`, seconds)."""

    async def confirm(self, held: HeldEntry) -> None:
        """Ask Redis whether this consumer still has its name and the lease of an entry, if they may have lapsed."""
        now = time.monotonic()
        if now >= self._gate.name_until:
            await self._context.outages.retry("keeping the consumer name", self.keep_name)
        if held.state is not State.LOST and not self._inflight.lease_lasts(held, now):
            await self._renew_chunk(held.entry.source, [held.entry.entry_id])

    async def repair(self, error: Exception) -> None:
        """Recreate the groups if an error says that they are lost: at the place up to which this process has read.

        Any process may be the first to recreate them. Each process registers its own entries. Raises `RedisError`.
        """
        if not (is_no_group(error) or is_no_stream(error)):
            return
        self._losses += 1
        for source in self._context.sources:
            own = self._inflight.last_read.get(source)
            last = await streams.last_id(self._context.commands, source.stream)
            start = "0-0" if own is None or last is None else min(own, last, key=order)
            # Whether all entries up to there had been delivered to the lost group.
            delivered = own is not None and last is not None and start == own
            if await groups.recreate(self._context.commands, source, start, delivered=delivered):
                logger.error(
                    "the group was lost and is recreated at %s; earlier entries of processes that have ended may be "
                    "missing, and so may ledgers and waiting times if the server lost its data",
                    start,
                    extra={**self._context.log, "stream": source.stream},
                )
            ids = self._inflight.ids(source)
            for first in range(0, len(ids), CHUNK):
                await self._register(source, ids[first : first + CHUNK])

    async def _register(self, source: Source, ids: Sequence[bytes]) -> None:
        # Not those that are being settled: an entry that is already acknowledged would stay pending forever.
        if open_ := [held.entry.entry_id for held in self._inflight.open(source, ids)]:
            self._inflight.registering += 1
            try:
                _, others = await groups.register(self._context.commands, source, self._context.name, open_)
            finally:
                self._inflight.registering -= 1
            self._lose(source, others)

    async def registered(self, held: HeldEntry) -> "Registered":
        """Register an entry that is not pending, if its group was recreated without it, and return whose it is.

        This is certain only while its lease lasts. Otherwise another consumer may have taken and settled it, unless
        the group was recreated since. If it is no longer in the stream either, nobody can have handled it. Raises
        `RedisError`.
        """
        source, entry_id = held.entry.source, held.entry.entry_id
        is_certain = self._inflight.lease_lasts(held, time.monotonic())
        if not await self._missing(source, [held]):
            return "another's"
        ours, others = await groups.register(self._context.commands, source, self._context.name, [entry_id])
        return "ours" if ours else "trimmed" if is_certain and not others else "another's"

    def moment(self) -> Moment:
        """Now, for `was_lost_since`."""
        return Moment(self._losses, time.monotonic())

    async def was_lost_since(self, source: Source, moment: Moment) -> bool:
        """Whether the group was lost since then, as far as this process noticed or Redis remembers: another process may
        have recreated it before this one read again. True if nobody can tell. Raises `RedisError`.
        """
        if self._losses != moment.losses:
            return True
        return await self._recreated_at(source) >= moment.at

    async def _recreated_at(self, source: Source) -> float:
        """When the group was recreated, by the monotonic clock, and not earlier than it was: then an entry would never
        run. Minus infinity if that did not happen recently, infinity if nobody can tell. Raises `RedisError`.
        """
        age = await groups.since_recreated(self._context.commands, source)
        return math.inf if self._context.clock.steps and age < math.inf else time.monotonic() - age

    async def keep_name(self) -> None:
        """Keep this consumer's name. If another process has taken it, that process has all held entries too.

        Raises `RedisError`.
        """
        identity = self._context.identity
        async with self._keeping_name:  # several ask at once after a standstill: one of them takes another name
            if await identity.keep():
                return
            taken, lost = identity.name, len(self._inflight)
            self._inflight.lose_all()
            self._context.log["consumer"] = await identity.change()
        logger.error(
            "another process took the consumer name %r while this one stood still, and %d entries with it; new name %r",
            taken,
            lost,
            identity.name,
            extra={**self._context.log, "lost_leases": lost},
        )

    async def run(self) -> None:
        """Renew the leases until cancelled, three times in the time after which an entry counts as abandoned.

        They are also renewed as soon as a step of the server's clock is noticed.
        """
        self._inflight.tick_interval, self._inflight.ticked_at = self._interval, time.monotonic()
        clock = self._context.clock
        steps = clock.steps
        while True:
            before = time.monotonic()
            await clock.step(steps, within=self._interval)
            if clock.steps != steps:  # they look as if they had ended: a process that has just started may take them
                steps = clock.steps
                self._inflight.doubt()
                await self._context.outages.retry("keeping the consumer name", self.keep_name)
            now = time.monotonic()
            self._inflight.ticked_at = now
            late = now - before - self._interval
            if late > self._interval / 2:
                self._inflight.stood_still_at = now
            if late + self._interval >= self._duration and len(self._inflight):
                logger.warning(
                    "the event loop stood still for %.1f s: leases of %d entries may have lapsed",
                    late,
                    len(self._inflight),
                    extra={**self._context.log, "standstill_seconds": late},
                )
            for source in self._context.sources:
                ids = self._inflight.ids(source)
                with suppress(RedisError, OSError):
                    ids += await self._unarrived.on_its_way(source)
                for first in range(0, len(ids), CHUNK):
                    await self._renew_chunk(source, ids[first : first + CHUNK])

    async def _renew_chunk(self, source: Source, ids: Sequence[bytes]) -> None:
        asked_at = time.monotonic()
        refused = await self._context.outages.retry(
            "renewing leases",
            lambda: groups.renew(self._context.commands, source, self._context.name, ids),
            repair=self.repair,
            max_pause=self._interval,
        )
        self.renewed_at = time.monotonic()
        # An entry that is being settled may be acknowledged already, although the answer has not come yet.
        lost = self._inflight.open(source, refused)
        missing = await self._context.outages.retry(
            "renewing leases", lambda: self._missing(source, lost), max_pause=self._interval
        )
        self._losses += bool(missing)
        kept = set(ids).difference(refused).union(missing)
        self._inflight.renewed(source, kept, asked_at)
        self._lose(source, {held.entry.entry_id for held in lost}.difference(missing))
        with suppress(RedisError, OSError):  # at the next renewal they are missing again
            await self._register(source, missing)

    async def _missing(self, source: Source, lost: Sequence[HeldEntry]) -> list[bytes]:
        """Those of the entries that are not pending because the group was recreated without them.

        Nobody can have taken an entry while its lease lasted. After it lapsed, another consumer may have taken and
        settled the entry. If the group was recreated since, nobody can tell: the entry is registered, and may run twice
        rather than never. Raises `RedisError`.
        """
        now = time.monotonic()
        lasting = {held.entry.entry_id for held in lost if self._inflight.lease_lasts(held, now)}
        if len(lasting) == len(lost):
            return [held.entry.entry_id for held in lost]
        made_at = await self._recreated_at(source)
        return [
            held.entry.entry_id
            for held in lost
            if self._inflight.get(source, held.entry.entry_id) is held  # not settled in the meantime
            and (held.entry.entry_id in lasting or held.lease_at < made_at)
        ]

    def _lose(self, source: Source, ids: Iterable[bytes]) -> None:
        for entry_id in ids:
            held = self._inflight.get(source, entry_id)
            if held is not None and self._inflight.lose(held):  # not settled while the question was under way
                logger.warning(
                    "lease lost: another consumer has the entry now, or has settled it",
                    extra={**self._context.log, "stream": source.stream, "entry_id": entry_id.decode()},
                )
