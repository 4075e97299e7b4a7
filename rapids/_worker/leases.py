"""Leases: while this process lives, nothing it holds looks abandoned to the group."""

import asyncio
import logging
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Literal, TypeAlias

from redis.exceptions import RedisError

from rapids._storage import groups
from rapids._storage.keys import Source
from rapids._worker.context import Member
from rapids._worker.inflight import HeldEntry, Inflight, State

__all__ = ["Leases", "Registered"]

logger = logging.getLogger("rapids.worker")

CHUNK = 500
"""Entries renewed by one call of the script, which holds up the server while it runs."""

MINIMUM_INTERVAL = 0.01

Registered: TypeAlias = Literal["ours", "another's", "trimmed"]


class Leases:
    """Renews the leases of everything this process holds."""

    def __init__(self, member: Member, inflight: Inflight) -> None:
        self._member = member
        self._inflight = inflight
        self._identity = member.identity
        self._duration = member.settings.claim_min_idle_ms / 1000
        self._interval = max(self._duration / 3, MINIMUM_INTERVAL)
        self.losses = 0
        """How often the group was found to be lost."""
        self._ticked_at = time.monotonic()
        self._stood_still_at = -math.inf
        self.renewed_at = 0.0
        """When something was last renewed (`time.monotonic()`, seconds)."""

    def certain(self, held: HeldEntry) -> bool:
        """Whether no other consumer can have taken an entry."""
        now = time.monotonic()
        return self._inflight.lease_lasts(held, now) and self._identity.lasts_at(now)

    async def still_ours(self, held: HeldEntry) -> bool:
        """Whether an entry may be begun. Asks Redis only if this process stood still for so long that it might not.

        That is how a process that was stopped and continued does not run what others took over meanwhile.
        """
        if not self._member.identity.lasts:
            await self._member.outages.retry("keeping the consumer name", self.keep_name)
        if held.state is not State.LOST and not self._inflight.lease_lasts(held, time.monotonic()):
            await self._renew_chunk(held.entry.source, [held.entry.entry_id])
        return held.state is not State.LOST

    async def register_again(self, source: Source) -> None:
        """Tell a group that was made anew what this process holds of it. Raises `RedisError`."""
        self.losses += 1
        ids = self._inflight.ids(source)
        for first in range(0, len(ids), CHUNK):
            await self._register(source, ids[first : first + CHUNK])

    async def _register(self, source: Source, ids: Sequence[bytes]) -> None:
        # What is being settled is the settler's business: it may be acknowledged, and would be pending for ever.
        if open_ := [held.entry.entry_id for held in self._inflight.open(source, ids)]:
            self._inflight.registering += 1
            try:
                _, others = await groups.register(self._member.commands, source, self._member.name, open_)
            finally:
                self._inflight.registering -= 1
            self._lose(source, others)

    async def registered(self, held: HeldEntry) -> "Registered":
        """Whether an entry that is not pending could be made so: its group was made anew without it.

        That is certain only while its lease lasts; else another consumer may have taken and settled it, unless the
        group was made again since. If it is not in the stream any more either, somebody let go of it because of that,
        and cannot have handled it. Raises `RedisError`.
        """
        source, entry_id = held.entry.source, held.entry.entry_id
        is_certain = self._inflight.lease_lasts(held, time.monotonic())
        if not await self._missing(source, [held]):
            return "another's"
        ours, others = await groups.register(self._member.commands, source, self._member.name, [entry_id])
        return "ours" if ours else "trimmed" if is_certain and not others else "another's"

    async def keep_name(self) -> None:
        """Keep this consumer's name. Where another process took it, all that is held is its own by now.

        Raises `RedisError`.
        """
        identity = self._member.identity
        if await identity.keep():
            return
        taken, lost = identity.name, len(self._inflight)
        self._inflight.lose_all()
        self._member.context["consumer"] = await identity.change()
        logger.error(
            "another process took the consumer name %r while this one stood still, and %d entries with it; going by %r",
            *(taken, lost, identity.name),
            extra={**self._member.context, "lost_leases": lost},
        )

    async def run(self) -> None:
        """Renew, three times in the time after which an entry counts as abandoned. Ends when cancelled."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(self._interval)
            self._ticked_at = time.monotonic()
            self._notice_standstill(self._ticked_at - before - self._interval)
            for source in self._member.sources:
                await self._renew(source)

    def given_out(self, asked_at: float) -> float:
        """When Redis may have given out what an answer found just now brings (`time.monotonic()`, seconds).

        A moment ago; but if this process stood still meanwhile, the answer may have been waiting ever since it was
        asked for.
        """
        now = time.monotonic()
        is_late = now - self._ticked_at > 1.5 * self._interval
        return asked_at if is_late or self._stood_still_at >= asked_at else now

    def _notice_standstill(self, late: float) -> None:
        if late > self._interval / 2:
            self._stood_still_at = self._ticked_at
        if late + self._interval >= self._duration and len(self._inflight):
            logger.warning(
                "the event loop stood still for %.1f s: leases of %d entries may have lapsed",
                *(late, len(self._inflight)),
                extra={**self._member.context, "standstill_seconds": late},
            )

    async def _renew(self, source: Source) -> None:
        ids = self._inflight.ids(source)
        for first in range(0, len(ids), CHUNK):
            await self._renew_chunk(source, ids[first : first + CHUNK])

    async def _renew_chunk(self, source: Source, ids: Sequence[bytes]) -> None:
        asked_at = time.monotonic()
        refused = await self._member.outages.retry(
            "renewing leases",
            lambda: groups.renew(self._member.commands, source, self._member.name, ids),
            repair=self._member.repair,
            max_pause=self._interval,
        )
        self.renewed_at = time.monotonic()
        # What is being settled may have been acknowledged by that, though no answer has come yet.
        lost = self._inflight.open(source, refused)
        missing = await self._member.outages.retry(
            "renewing leases", lambda: self._missing(source, lost), max_pause=self._interval
        )
        self.losses += bool(missing)
        kept = set(ids).difference(refused).union(missing)
        self._inflight.renewed(source, kept, asked_at)
        self._lose(source, {held.entry.entry_id for held in lost}.difference(missing))
        with suppress(RedisError, OSError):  # at the next renewal they are missing again
            await self._register(source, missing)

    async def _missing(self, source: Source, lost: Sequence[HeldEntry]) -> list[bytes]:
        """Those of the entries that are not pending because the group was made anew, without them.

        Nobody can have taken what our lease lasted for. What it had lapsed for another may have taken and settled; but
        where the group was made again since, rather once too often than not at all. Raises `RedisError`.
        """
        now = time.monotonic()
        lasting = {held.entry.entry_id for held in lost if self._inflight.lease_lasts(held, now)}
        if len(lasting) == len(lost):
            return [held.entry.entry_id for held in lost]
        made_at = time.monotonic() - await groups.since_made_again(self._member.commands, source)
        return [
            held.entry.entry_id
            for held in lost
            if self._inflight.get(source, held.entry.entry_id) is held  # not settled while that was asked
            and (held.entry.entry_id in lasting or held.lease_at < made_at)
        ]

    def _lose(self, source: Source, ids: Iterable[bytes]) -> None:
        for entry_id in ids:
            held = self._inflight.get(source, entry_id)
            if held is not None and self._inflight.lose(held):  # not settled while the question was under way
                logger.warning(
                    "lease lost: another consumer has the entry now, or has settled it",
                    extra={**self._member.context, "stream": source.stream, "entry_id": entry_id.decode()},
                )
