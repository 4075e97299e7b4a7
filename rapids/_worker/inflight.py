"""The entries that this process holds: one record for each, from when it was taken until its settlement is written.

Plain state, without I/O. The parts of a worker use it instead of asking one another.
"""

import math
import time
from collections.abc import Iterable, Sequence
from enum import Enum

from rapids._core.counter_state import Counts
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source

__all__ = ["HeldEntry", "Inflight", "State"]


class State(Enum):
    """Where a held entry is."""

    QUEUED = "queued"
    """It waits to begin."""
    IN_LANE = "in lane"
    """It waits for an earlier entry with the same key."""
    RUNNING = "running"
    """Its handlers run."""
    ACKNOWLEDGING = "acknowledging"
    """Its acknowledgement will be sent, or was sent and is not confirmed."""
    SETTLING = "settling"
    """Its settlement will be written, or was written and is not confirmed."""
    LOST = "lost"
    """Another consumer has it or will have it; this process only writes which handlers are done."""


QUEUED = State.QUEUED  # looked up for every entry: a member of an enumeration costs more than a global name
CLOSING = (State.ACKNOWLEDGING, State.SETTLING)


class HeldEntry:
    """An entry, its state, and when this consumer last certainly had its lease (`time.monotonic()`, seconds)."""

    __slots__ = ("entry", "lease_at", "state")

    def __init__(self, entry: RawEntry, lease_at: float) -> None:
        self.entry = entry
        self.lease_at = lease_at
        self.state = QUEUED

    def enter(self, state: State) -> None:
        """Change the state. A lost entry stays lost."""
        if self.state is not State.LOST:
            self.state = state


class Inflight:
    """The held entries of each source, by id."""

    def __init__(self, sources: Sequence[Source], counts: Counts, *, lease_seconds: float) -> None:
        """`lease_seconds`: after this time without a renewal, another consumer may take an entry."""
        self._held: dict[Source, dict[bytes, HeldEntry]] = {source: {} for source in sources}
        self._counts = counts
        self._lease_seconds = lease_seconds
        self.registering = 0
        """How many calls register held entries with a recreated group now. No acknowledgement is sent until they end:
        an entry that is registered after its acknowledgement would stay pending."""
        self.last_read: dict[Source, str] = {}
        """The last id that was read from each source."""
        self.tick_interval = math.inf
        self.ticked_at = 0.0
        """When the leases were last to be renewed, once in `tick_interval` seconds (`time.monotonic()`)."""
        self.stood_still_at = -math.inf
        """When it was last noticed that this process had stood still (`time.monotonic()`, seconds)."""
        self.lost_all_at = -math.inf
        """When other consumers last took over everything (`time.monotonic()`, seconds)."""

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def given_out(self, asked_at: float) -> float:
        """The earliest time at which Redis may have sent the answer that was just read (`time.monotonic()`, seconds).

        It is now, unless this process stood still since it asked: then the answer may have waited all that time.
        """
        now = time.monotonic()
        is_late = now - self.ticked_at > 1.5 * self.tick_interval
        return asked_at if is_late or self.stood_still_at >= asked_at else now

    @property
    def rests(self) -> bool:
        """Whether every entry waits for an earlier one with its key."""
        return all(one.state is State.IN_LANE for held in self._held.values() for one in held.values())

    def is_held(self, entry_id: bytes) -> bool:
        """Whether an entry of any source is held."""
        return any(entry_id in held for held in self._held.values())

    def add_new(self, source: Source, entries: Sequence[RawEntry], *, since: float) -> list[HeldEntry]:
        """Hold entries that were read from one source, except those that are held already.

        `since`: when Redis may have given them out (`time.monotonic()`, seconds).
        """
        held = self._held[source]
        new = {entry.entry_id: HeldEntry(entry, since) for entry in entries if entry.entry_id not in held}
        held.update(new)
        self._counts.delivered(entries if len(new) == len(entries) else [one.entry for one in new.values()])
        return list(new.values())

    def add_claimed(self, entries: Sequence[RawEntry], *, since: float) -> list[HeldEntry]:
        """Hold claimed entries. Each replaces an earlier delivery, which is lost unless it is being settled.

        Those without fields are counted as delivered when their fields have arrived.
        """
        new = [HeldEntry(entry, since) for entry in entries]
        for one in new:
            held, entry_id = self._held[one.entry.source], one.entry.entry_id
            before = held.get(entry_id)
            if before is not None and before.state not in CLOSING:
                before.state = State.LOST
            held[entry_id] = one
        self._counts.delivered([entry for entry in entries if entry.fields])
        return new

    def get(self, source: Source, entry_id: bytes) -> HeldEntry | None:
        """The record of an entry; None if it is not held."""
        return self._held[source].get(entry_id)

    def ids(self, source: Source) -> list[bytes]:
        """The ids of all held entries of a source."""
        return list(self._held[source])

    def open(self, source: Source, ids: Iterable[bytes]) -> list[HeldEntry]:
        """The entries that are held and not being settled. For the others, an answer of Redis is out of date."""
        held = self._held[source]
        found = [held[entry_id] for entry_id in ids if entry_id in held]
        return [one for one in found if one.state not in CLOSING]

    def lease_lasts(self, held: HeldEntry, now: float) -> bool:
        """Whether no other consumer can have taken the entry."""
        return now - held.lease_at < self._lease_seconds and held.state is not State.LOST

    @property
    def freshest_lease(self) -> float:
        """When this consumer last certainly had any lease (`time.monotonic()`, seconds); -infinity without any."""
        return max((one.lease_at for held in self._held.values() for one in held.values()), default=-math.inf)

    def doubt(self) -> None:
        """Note that any lease may have ended, so that Redis is asked before an entry begins."""
        for held in self._held.values():
            for one in held.values():
                one.lease_at = -math.inf

    def renewed(self, source: Source, ids: Iterable[bytes], at: float) -> None:
        """Note that this consumer had the leases at that time (`time.monotonic()`, seconds)."""
        held = self._held[source]
        for entry_id in ids:
            if (one := held.get(entry_id)) is not None:
                one.lease_at = at

    def drop(self, held: HeldEntry) -> None:
        """Drop an entry, unless a later delivery has replaced it."""
        of_source = self._held[held.entry.source]
        if of_source.get(held.entry.entry_id) is held:
            del of_source[held.entry.entry_id]

    def drop_all(self, source: Source, ids: Sequence[bytes]) -> int:
        """Drop entries. Returns how many of them were held until now."""
        held = self._held[source]
        before = len(held)
        for entry_id in ids:
            held.pop(entry_id, None)
        return before - len(held)

    def lose(self, held: HeldEntry) -> bool:
        """Note that another consumer has an entry. Returns whether it was held until now."""
        source, entry_id = held.entry.source, held.entry.entry_id
        if self._held[source].get(entry_id) is not held:
            return False
        del self._held[source][entry_id]
        held.state = State.LOST
        self._counts.lease_lost(source, entry_id)
        return True

    def lose_all(self) -> None:
        """Note that other consumers have all entries, or will have them."""
        self.lost_all_at = time.monotonic()
        for held in self._held.values():
            for one in list(held.values()):
                self.lose(one)
