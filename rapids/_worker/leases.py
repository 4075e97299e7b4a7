"""Leases: while this process lives, nothing it holds looks abandoned to the group."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Literal, TypeAlias

from redis.exceptions import RedisError

from rapids._storage import groups
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._worker.context import Member

__all__ = ["Leases", "Registered"]

logger = logging.getLogger("rapids.worker")

CHUNK = 500
"""Entries renewed by one call of the script, which holds up the server while it runs."""

MINIMUM_INTERVAL = 0.01

Registered: TypeAlias = Literal["ours", "another's", "trimmed"]


class Leases:
    """Everything this process holds, from when it was taken until its settlement is written."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._counts = member.counts
        self._identity = member.identity
        self._duration = member.settings.claim_min_idle_ms / 1000
        self._interval = max(self._duration / 3, MINIMUM_INTERVAL)
        self._held: dict[Source, dict[bytes, float]] = {source: {} for source in member.sources}
        """For each entry, when its lease was last known to be ours (`time.monotonic()`, seconds)."""
        self._settling: dict[Source, set[bytes]] = {source: set() for source in member.sources}
        self.is_acked_soon: Callable[[Source, bytes], bool] = lambda _source, _entry_id: False
        """Whether an entry's acknowledgement is on its way."""
        self._registering = 0
        self.losses = 0
        """How often the group was found to be lost."""
        self._ticked_at = time.monotonic()
        self._stood_still_at = -math.inf
        self.renewed_at = 0.0
        """When something was last renewed (`time.monotonic()`, seconds)."""

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def take(self, entries: Sequence[RawEntry], *, since: float | None = None) -> None:
        """Hold entries from now on. `since`: when Redis may have given them out (`time.monotonic()`, seconds)."""
        at = time.monotonic() if since is None else since
        for entry in entries:
            self._held[entry.source][entry.entry_id] = at
        self._counts.delivered(entries)

    def take_new(self, source: Source, entries: Sequence[RawEntry], *, since: float) -> list[RawEntry]:
        """Hold those of the entries of one source that are not held yet, and give them back."""
        held = self._held[source]
        new = [entry for entry in entries if entry.entry_id not in held]
        held.update(dict.fromkeys([entry.entry_id for entry in new], since))
        self._counts.delivered(new)
        return new

    def drop(self, entry: RawEntry) -> None:
        """Hold an entry no longer."""
        self.drop_all(entry.source, (entry.entry_id,))

    def drop_all(self, source: Source, ids: Sequence[bytes]) -> int:
        """Hold entries no longer; how many of them were held until now."""
        held, settling = self._held[source], self._settling[source]
        before = len(held)
        for entry_id in ids:
            held.pop(entry_id, None)
        if settling:
            settling.difference_update(ids)
        return before - len(held)

    def give_up(self, entry: RawEntry) -> None:
        """Hold an entry no longer, as it is another's."""
        if self.drop_all(entry.source, (entry.entry_id,)):
            self._counts.lease_lost(entry.source, entry.entry_id)

    def settling(self, entry: RawEntry) -> None:
        """Note that an entry's settlement is being written: from now on it may be acknowledged at any time."""
        self._settling[entry.source].add(entry.entry_id)

    def holds(self, source: Source, entry_id: bytes) -> bool:
        return entry_id in self._held[source]

    @property
    def is_registering(self) -> bool:
        """Whether a lost group is being told what is held: what is acknowledged elsewhere meanwhile might come first,
        and the entry be registered after it, for good."""
        return self._registering > 0

    def certain(self, entry: RawEntry) -> bool:
        """Whether an entry is held, and no other consumer can have taken it."""
        known = self._held[entry.source].get(entry.entry_id)
        now = time.monotonic()
        return known is not None and now - known < self._duration and self._identity.lasts_at(now)

    def lasts(self, source: Source, entry_id: bytes) -> bool:
        """Whether the lease cannot have lapsed, so that no other consumer can have taken the entry."""
        known = self._held[source].get(entry_id)
        return known is not None and time.monotonic() - known < self._duration

    @property
    def freshest(self) -> float:
        """When any lease was last known to be ours (`time.monotonic()`, seconds); minus infinity where none is held."""
        return max((at for held in self._held.values() for at in held.values()), default=-math.inf)

    async def still_ours(self, entry: RawEntry) -> bool:
        """Whether an entry may be begun. Asks Redis only if this process stood still for so long that it might not.

        That is how a process that was stopped and continued does not run what others took over meanwhile.
        """
        if not self._member.identity.lasts:
            await self._member.outages.ride_out("keeping the consumer name", self.keep_name)
        if self.holds(entry.source, entry.entry_id) and not self.lasts(entry.source, entry.entry_id):
            await self._renew_chunk(entry.source, [entry.entry_id])
        return self.holds(entry.source, entry.entry_id)

    async def register_again(self, source: Source) -> None:
        """Tell a group that was made anew what this process holds of it. Raises `RedisError`."""
        self.losses += 1
        ids = list(self._held[source])
        for first in range(0, len(ids), CHUNK):
            await self._register(source, ids[first : first + CHUNK])

    async def _register(self, source: Source, ids: Sequence[bytes]) -> None:
        # What is being settled is the settler's business: it may be acknowledged, and would be pending for ever.
        if open_ := [entry_id for entry_id in ids if not self._is_closing(source, entry_id)]:
            self._registering += 1
            try:
                _, others = await groups.register(self._member.commands, source, self._member.name, open_)
            finally:
                self._registering -= 1
            self._lose(source, others)

    def _is_closing(self, source: Source, entry_id: bytes) -> bool:
        """Whether an entry may be acknowledged at any time, or has been and the answer is on its way."""
        return entry_id in self._settling[source] or self.is_acked_soon(source, entry_id)

    async def registered(self, entry: RawEntry) -> "Registered":
        """Whether an entry that is not pending could be made so: its group was made anew without it.

        That is certain only while its lease lasts; else another consumer may have taken and settled it, unless the
        group was made again since. If it is not in the stream any more either, somebody let go of it because of that,
        and cannot have handled it. Raises `RedisError`.
        """
        source, entry_id = entry.source, entry.entry_id
        is_certain = self.lasts(source, entry_id)
        if not await self._missing(source, [entry_id]):
            return "another's"
        ours, others = await groups.register(self._member.commands, source, self._member.name, [entry_id])
        return "ours" if ours else "trimmed" if is_certain and not others else "another's"

    def lose_all(self) -> None:
        """Hold nothing any more: all of it is another's, or will be."""
        for source, held in self._held.items():
            lost = list(held)
            held.clear()
            for entry_id in lost:
                self._counts.lease_lost(source, entry_id)

    async def keep_name(self) -> None:
        """Keep this consumer's name. Where another process took it, all that is held is its own by now.

        Raises `RedisError`.
        """
        identity = self._member.identity
        if await identity.keep():
            return
        taken, lost = identity.name, len(self)
        self.lose_all()
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
            for source in list(self._held):
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
        if late + self._interval >= self._duration and len(self):
            logger.warning(
                "the event loop stood still for %.1f s: leases of %d entries may have lapsed",
                *(late, len(self)),
                extra={**self._member.context, "standstill_seconds": late},
            )

    async def _renew(self, source: Source) -> None:
        ids = list(self._held[source])
        for first in range(0, len(ids), CHUNK):
            await self._renew_chunk(source, ids[first : first + CHUNK])

    async def _renew_chunk(self, source: Source, ids: Sequence[bytes]) -> None:
        asked_at = time.monotonic()
        lost = await self._member.outages.ride_out(
            "renewing leases",
            lambda: groups.renew(self._member.commands, source, self._member.name, ids),
            repair=self._member.repair,
            longest_pause=self._interval,
        )
        self.renewed_at = time.monotonic()
        # What is being settled may have been acknowledged by that, though no answer has come yet.
        closing = {entry_id for entry_id in lost if self._is_closing(source, entry_id)}
        lost = [entry_id for entry_id in lost if entry_id not in closing]
        missing = await self._member.outages.ride_out(
            "renewing leases", lambda: self._missing(source, lost), longest_pause=self._interval
        )
        self.losses += bool(missing)
        held = self._held[source]
        held.update({entry_id: asked_at for entry_id in ids if entry_id in held and entry_id not in closing})
        self._lose(source, set(lost).difference(missing))
        with suppress(RedisError, OSError):  # at the next renewal they are missing again
            await self._register(source, missing)

    async def _missing(self, source: Source, lost: Sequence[bytes]) -> list[bytes]:
        """Those of the entries that are not pending because the group was made anew, without them.

        Nobody can have taken what our lease lasted for. What it had lapsed for another may have taken and settled; but
        where the group was made again since, rather once too often than not at all. Raises `RedisError`.
        """
        lasting = [entry_id for entry_id in lost if self.lasts(source, entry_id)]
        if len(lasting) == len(lost):
            return lasting
        made_at = time.monotonic() - await groups.since_made_again(self._member.commands, source)
        held, certain = self._held[source], set(lasting)
        still_held = [entry_id for entry_id in lost if entry_id in held]  # not settled while that was asked
        return [entry_id for entry_id in still_held if entry_id in certain or held[entry_id] < made_at]

    def _lose(self, source: Source, ids: Iterable[bytes]) -> None:
        for entry_id in ids:
            if (
                self._held.get(source, {}).pop(entry_id, None) is not None
            ):  # not settled while the question was under way
                logger.warning(
                    "lease lost: another consumer has the entry now, or has settled it",
                    extra={**self._member.context, "stream": source.stream, "entry_id": entry_id.decode()},
                )
                self._counts.lease_lost(source, entry_id)
