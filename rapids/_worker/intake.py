"""The intake: entries that were taken and have not begun, and abandoned entries that are not claimed yet."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from rapids._core.entry_id import order
from rapids._storage.keys import Source
from rapids._storage.terms import Term
from rapids._worker.gate import Gate
from rapids._worker.inflight import HeldEntry, State
from rapids._worker.lanes import Lanes

__all__ = ["Abandoned", "Intake", "Next", "Turn"]

OVERDUE_GRACE = 2.0
"""Seconds after the due time of an entry until another consumer is assumed to have it."""

MAX_IN_LANES = 10_000
"""If so many entries wait in lanes, no more are read."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """An entry whose consumer no longer renews its lease. It may be what killed that process, so it is claimed alone,
    right before it runs: a claim counts as a delivery, and must count for no other entry."""

    source: Source
    entry_id: bytes
    min_idle_ms: int
    deliveries: int
    """How many deliveries it had when it was found."""
    term: Term | None = None
    """In which term of this consumer it was found, if the group has one active consumer at a time."""


class Turn(NamedTuple):
    """An entry that is now the first in its lane."""

    key: Hashable
    item: "HeldEntry | Abandoned"


Next: TypeAlias = HeldEntry | Abandoned | Turn


class Intake:
    """A queue with room for two batches of new entries: while one is processed, the next is read.

    New entries, entries that were due again, and abandoned entries take turns, so that each kind makes progress.
    """

    def __init__(self, gate: Gate, batch_size: int, *, few: int = 0, in_order: bool = False) -> None:
        """`few`: how many entries may wait in lanes with their payload. `in_order`: older entries come first."""
        self._gate = gate
        self._batch_size = batch_size
        self._few = few
        self._in_order = in_order
        self._new: deque[HeldEntry] = deque()
        self._due: deque[HeldEntry] = deque()
        self._turns: deque[Turn] = deque()
        self._abandoned: dict[Abandoned, None] = {}
        self._lanes: Lanes[HeldEntry | Abandoned] = Lanes()
        self._abandoned_in_lanes: set[tuple[Source, bytes]] = set()
        self._later: list[tuple[float, HeldEntry]] = []
        self._turn = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._waits_for_due = False
        self._has_room = asyncio.Event()
        self._has_room.set()

    def put(self, entries: Iterable[HeldEntry]) -> None:
        """Queue new entries, at most a batch, if the intake `has_room`."""
        before = len(self._new)
        self._new.extend(entries)
        self._update_room()
        self._wake(len(self._new) - before)

    def put_due(self, entries: Iterable[HeldEntry]) -> None:
        """Queue entries that were due again, at most as many as `room_for_due`."""
        before = len(self._due)
        self._due.extend(entries)
        self._wake(len(self._due) - before)

    def put_later(self, held: HeldEntry, seconds: float) -> None:
        """Queue an entry after that time, with the next `put_back`."""
        self._later.append((time.monotonic() + seconds, held))

    def put_back(self) -> None:
        """Queue the entries whose time has come."""
        now, later = time.monotonic(), self._later
        self._later = [one for one in later if one[0] > now]
        self.put([held for at, held in later if at <= now])

    def announce(self, found: Iterable[Abandoned]) -> None:
        """Queue abandoned entries, to be claimed in turn. Entries that are queued already keep their place, also those
        in lanes."""
        before = len(self._abandoned)
        self._abandoned.update((one, None) for one in found if not self.is_in_lane(one))
        self._wake(len(self._abandoned) - before)

    @property
    def room_for_due(self) -> int:
        """How many due entries may be queued: a batch in addition to the new entries."""
        return max(self._batch_size - len(self._due), 0)

    @property
    def is_empty(self) -> bool:
        """Whether no entry waits to begin."""
        return not (self._abandoned or self._due or self._new or self._turns)

    @property
    def has_room(self) -> bool:
        """Whether a whole batch of new entries fits, or the intake is closed."""
        return self._has_room.is_set()

    async def room(self) -> None:
        """Wait until a whole batch of new entries fits, or the intake is closed."""
        await self._has_room.wait()

    def pop(self) -> Next | None:
        """The next entry; None if there is none, or if nothing may begin: then entries stay for `drain`."""
        if self._gate.is_shut:
            return None
        if self._turns:
            return self._turns.popleft()
        if self._new and not self._abandoned and not self._due:  # the fast path
            entry = self._new.popleft()
            if len(self._new) == self._batch_size:
                self._update_room()
            return entry
        for step in range(3):
            self._turn = step if self._in_order else (self._turn + 1) % 3
            if self._turn == 0 and self._abandoned:
                first = next(iter(self._abandoned))
                del self._abandoned[first]
                return first
            if self._turn == 1 and self._due:
                return self._due.popleft()
            if self._turn == 2 and self._new:
                entry = self._new.popleft()
                self._update_room()
                return entry
        return None

    async def filled(self) -> None:
        """Wait until there is an entry, or the intake is closed. Each entry wakes one of the executors that wait."""
        if self._gate.closed.is_set():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._waiters.remove(waiter)
            else:
                self._wake(1)  # woken and cancelled at once: another executor takes the entry
            raise

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    # --- pausing and stopping ---

    def pause(self) -> None:
        """Return no entries, and let no entries be read, until `resume`."""
        self._gate.pause()
        self._waits_for_due = True
        self._update_room()

    def resume(self) -> None:
        """Return entries again. New entries are read after `read_on`, since the released entries are older."""
        self._gate.resume()
        self._lanes.postpone(
            time.monotonic() + OVERDUE_GRACE
        )  # no entry that a lane waits for could come back during the pause
        self._wake(len(self._waiters))

    @property
    def waits_for_due(self) -> bool:
        """Whether the group was resumed, and new entries still wait for the released ones."""
        return self._waits_for_due and not self._gate.is_paused

    def read_on(self) -> None:
        """Let new entries be read again."""
        self._waits_for_due = False
        self._update_room()

    def close(self) -> None:
        """Return no more entries."""
        self._gate.close()
        self._has_room.set()
        self._wake(len(self._waiters))

    def drain(self) -> list[HeldEntry]:
        """Remove and return all entries that were taken and have not begun, in the order of the stream."""
        turns = [turn.item for turn in self._turns]
        later = [held for _, held in self._later]
        items = [*self._due, *turns, *self._new, *self._lanes.drain(), *later]
        for turn in self._turns:  # nobody runs it, so that its lane must not wait for its end
            self._lanes.leave(turn.key)
        self._later.clear()
        self._due.clear()
        self._turns.clear()
        self._new.clear()
        self._abandoned_in_lanes.clear()
        self._update_room()
        left = [item for item in items if isinstance(item, HeldEntry)]
        return sorted(left, key=lambda held: order(held.entry.entry_id))

    def forget(self) -> None:
        """Remove all entries that have not begun, and what is known of abandoned and awaited ones."""
        self.drain()
        self._abandoned.clear()
        self._lanes.forget()

    # --- lanes ---

    def enter_lane(self, key: Hashable, held: HeldEntry) -> bool:
        """Whether an entry may begin now. If not, it waits for the earlier entries with its key.

        If many entries wait, their payloads are dropped, so that only their ids are in memory.
        """
        if self._lanes.enter(key, held.entry.entry_id, held):
            return True
        held.enter(State.IN_LANE)
        if self._lanes.queued > self._few:
            held.entry = held.entry._replace(fields=())
        self._update_room()
        return False

    def enter_lane_abandoned(self, key: Hashable, abandoned: Abandoned) -> bool:
        """Whether an abandoned entry may be claimed now. If not, it waits in its lane, unclaimed."""
        if self._lanes.enter(key, abandoned.entry_id, abandoned):
            return True
        self._abandoned_in_lanes.add((abandoned.source, abandoned.entry_id))
        self._update_room()
        return False

    def is_in_lane(self, abandoned: Abandoned) -> bool:
        """Whether an abandoned entry waits in its lane already."""
        return (abandoned.source, abandoned.entry_id) in self._abandoned_in_lanes

    def forget_in_lane(self, abandoned: Abandoned) -> None:
        """Note that an abandoned entry is claimed now."""
        self._abandoned_in_lanes.discard((abandoned.source, abandoned.entry_id))

    def leave_lane(self, key: Hashable) -> HeldEntry | Abandoned | None:
        """Note that an entry has ended. Returns the entry of its key that begins now; None if there is none."""
        next_ = self._lanes.leave(key)
        self._update_room()
        return next_

    def pass_lane_on(self, key: Hashable) -> None:
        """Note that an executor ends: another one continues with the entries of the key."""
        if (next_ := self.leave_lane(key)) is not None:
            self._put_turns((Turn(key, next_),))

    def hold_lane(self, key: Hashable, entry_id: bytes, delay: float) -> None:
        """Let no entry of the key begin before the one that is delivered again in `delay` seconds."""
        self._lanes.hold(key, entry_id, time.monotonic() + delay + OVERDUE_GRACE)

    def foresee(self, key: Hashable, entry_id: bytes, delay: float) -> None:
        """Let no later entry of the key begin before one of another consumer, which is due in `delay` seconds."""
        self._lanes.foresee(key, entry_id, time.monotonic() + delay + OVERDUE_GRACE)

    def free_overdue_lanes(self, is_held: Callable[[bytes], bool]) -> None:
        """Let lanes continue that waited too long for an entry. Call it when entries that are due were just claimed.

        `is_held`: whether an entry was: then it is about to begin.
        """
        if not self._gate.is_paused and self._lanes.next_overdue <= time.monotonic():
            self._put_turns(Turn(key, item) for key, item in self._lanes.overdue(time.monotonic(), is_held))
            self._update_room()

    def _put_turns(self, turns: Iterable[Turn]) -> None:
        before = len(self._turns)
        self._turns.extend(turns)
        self._wake(len(self._turns) - before)

    def _update_room(self) -> None:
        waits = self._waits_for_due or self._lanes.queued >= MAX_IN_LANES
        if self._gate.closed.is_set() or (len(self._new) <= self._batch_size and not waits):
            self._has_room.set()
        else:
            self._has_room.clear()
