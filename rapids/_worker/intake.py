"""What is next to be worked on: entries taken and not yet begun, and abandoned ones to be taken one at a time."""

import asyncio
import time
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from rapids._core.entry_id import order
from rapids._storage.keys import Source
from rapids._worker.gate import Gate
from rapids._worker.inflight import HeldEntry, State
from rapids._worker.lanes import Lanes

__all__ = ["Abandoned", "Intake", "Next", "Turn"]

OVERDUE_GRACE = 2.0
"""Seconds after which an entry that was due again and did not come back is another consumer's."""

MAX_IN_LANES = 10_000
"""Entries that wait in lanes, above which no more are read."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """An entry whose consumer went silent over it. It may be what killed that process, so it is claimed only when it
    is about to be run, and alone: a count spent on it is spent on no innocent neighbour."""

    source: Source
    entry_id: bytes
    min_idle_ms: int
    deliveries: int
    """How often it had been delivered when it was found."""


class Turn(NamedTuple):
    """An entry whose turn in its lane has come."""

    key: Hashable
    item: "HeldEntry | Abandoned"


Next: TypeAlias = HeldEntry | Abandoned | Turn


class Intake:
    """A queue with room for two batches of new entries: while one is worked through, the next is fetched.

    New entries, those that were due again, and abandoned ones take turns, so that no kind starves another.
    """

    def __init__(self, gate: Gate, batch_size: int, *, few: int = 0, in_order: bool = False) -> None:
        """`few`: how many entries may wait in lanes with their payload. `in_order`: what is older comes first, instead
        of taking turns.
        """
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
        self._turn = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._waits_for_due = False
        self._has_room = asyncio.Event()
        self._has_room.set()

    def put(self, entries: Iterable[HeldEntry]) -> None:
        """Queue new entries. The caller keeps to the room there is."""
        before = len(self._new)
        self._new.extend(entries)
        self._update_room()
        self._wake(len(self._new) - before)

    def put_due(self, entries: Iterable[HeldEntry]) -> None:
        """Queue entries that were due again, no more than there is `room_for_due`."""
        before = len(self._due)
        self._due.extend(entries)
        self._wake(len(self._due) - before)

    def announce(self, found: Iterable[Abandoned]) -> None:
        """Queue abandoned entries, to be claimed in their turn; those queued already stay where they are."""
        before = len(self._abandoned)
        self._abandoned.update(dict.fromkeys(found))
        self._wake(len(self._abandoned) - before)

    @property
    def room_for_due(self) -> int:
        """How many entries that are due may be queued: a batch, beside what the reader brings."""
        return max(self._batch_size - len(self._due), 0)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be begun."""
        return not (self._abandoned or self._due or self._new or self._turns)

    @property
    def has_room(self) -> bool:
        """Whether a whole batch of new entries fits, or the intake is closed."""
        return self._has_room.is_set()

    async def room(self) -> None:
        """Wait until a whole batch of new entries fits, or the intake is closed."""
        await self._has_room.wait()

    def pop(self) -> Next | None:
        """What is next, or None where there is nothing, or the intake is shut: entries then stay for `drain`."""
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
        """Wait until there is something, or the intake is closed. Of several who wait, one is woken for each entry."""
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
                self._wake(1)  # woken and cancelled at once: somebody else takes the entry
            raise

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    # --- pausing and stopping ---

    def pause(self) -> None:
        """Give out nothing, and have nothing read, until `resume`."""
        self._gate.pause()
        self._waits_for_due = True
        self._update_room()

    def resume(self) -> None:
        """Give out entries again. New ones are read from `read_on` on, since those that were released are older."""
        self._gate.resume()
        self._lanes.postpone(time.monotonic() + OVERDUE_GRACE)  # nothing that lanes wait for could come back
        self._wake(len(self._waiters))

    @property
    def waits_for_due(self) -> bool:
        """Whether it was resumed, and new entries wait until those that were released have come again."""
        return self._waits_for_due and not self._gate.is_paused

    def read_on(self) -> None:
        """Have new entries read again."""
        self._waits_for_due = False
        self._update_room()

    def close(self) -> None:
        """Give out no more entries."""
        self._gate.close()
        self._has_room.set()
        self._wake(len(self._waiters))

    def drain(self) -> list[HeldEntry]:
        """Everything that was taken and never begun, in the order of the stream; nothing of it is queued any more."""
        turns = [turn.item for turn in self._turns]
        items = [*self._due, *turns, *self._new, *self._lanes.drain()]
        self._due.clear()
        self._turns.clear()
        self._new.clear()
        self._abandoned_in_lanes.clear()
        self._update_room()
        left = [item for item in items if isinstance(item, HeldEntry)]
        return sorted(left, key=lambda held: order(held.entry.entry_id))

    # --- lanes ---

    def enter_lane(self, key: Hashable, held: HeldEntry) -> bool:
        """Whether an entry may begin now; else it waits for those with its key that came before.

        Where many wait, they do without their payloads, so that memory holds their ids only.
        """
        if self._lanes.enter(key, held.entry.entry_id, held):
            return True
        held.enter(State.IN_LANE)
        if self._lanes.queued > self._few:
            held.entry = held.entry._replace(fields=())
        self._update_room()
        return False

    def enter_lane_abandoned(self, key: Hashable, abandoned: Abandoned) -> bool:
        """Whether an abandoned entry may be claimed now; else it waits in its lane, unclaimed."""
        if self._lanes.enter(key, abandoned.entry_id, abandoned):
            return True
        self._abandoned_in_lanes.add((abandoned.source, abandoned.entry_id))
        self._update_room()
        return False

    def is_in_lane(self, abandoned: Abandoned) -> bool:
        """Whether an abandoned entry waits in its lane already."""
        return (abandoned.source, abandoned.entry_id) in self._abandoned_in_lanes

    def forget_in_lane(self, abandoned: Abandoned) -> None:
        """An abandoned entry is to be claimed now."""
        self._abandoned_in_lanes.discard((abandoned.source, abandoned.entry_id))

    def leave_lane(self, key: Hashable) -> HeldEntry | Abandoned | None:
        """An entry has come to its end: what of its key is to begin now, if anything is."""
        next_ = self._lanes.leave(key)
        self._update_room()
        return next_

    def pass_lane_on(self, key: Hashable) -> None:
        """An executor ends: what of the key is to begin now is for another one."""
        if (next_ := self.leave_lane(key)) is not None:
            self._put_turns((Turn(key, next_),))

    def hold_lane(self, key: Hashable, entry_id: bytes, delay: float) -> None:
        """Let nothing of the key begin before an entry that is delivered again in `delay` seconds."""
        self._lanes.hold(key, entry_id, time.monotonic() + delay + OVERDUE_GRACE)

    def free_overdue_lanes(self) -> None:
        """Let lanes go on that waited too long for an entry to come back."""
        if not self._gate.is_paused:
            self._put_turns(Turn(key, item) for key, item in self._lanes.overdue(time.monotonic()))
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
