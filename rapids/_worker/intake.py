"""What is next to be worked on: entries taken and not yet begun, and abandoned ones to be taken one at a time."""

import asyncio
from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from rapids._storage.keys import Source
from rapids._worker.inflight import HeldEntry

__all__ = ["Abandoned", "Intake", "Next", "Turn"]


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

    def __init__(self, batch_size: int, *, in_order: bool = False) -> None:
        """`in_order`: what is older comes first, instead of taking turns."""
        self._batch_size = batch_size
        self._in_order = in_order
        self._new: deque[HeldEntry] = deque()
        self._due: deque[HeldEntry] = deque()
        self._turns: deque[Turn] = deque()
        self._abandoned: dict[Abandoned, None] = {}
        self._turn = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._is_held_up = False
        self._waits_for_due = False
        self.is_paused = False
        """Whether the group is paused: nothing is given out, and nothing is to be read."""
        self.is_shut = False
        """Whether nothing is given out, as it is paused or closed."""
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.closed = asyncio.Event()
        """Set once no more entries are given out: the worker stops."""

    def put(self, entries: Iterable[HeldEntry]) -> None:
        """Queue new entries. The caller keeps to the room there is."""
        before = len(self._new)
        self._new.extend(entries)
        self._tell_room()
        self._wake(len(self._new) - before)

    def put_due(self, entries: Iterable[HeldEntry]) -> None:
        """Queue entries that were due again, no more than there is `room_for_due`."""
        before = len(self._due)
        self._due.extend(entries)
        self._wake(len(self._due) - before)

    def put_turns(self, turns: Iterable[Turn]) -> None:
        """Queue entries whose turn in their lane has come; they are next."""
        before = len(self._turns)
        self._turns.extend(turns)
        self._wake(len(self._turns) - before)

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

    def hold_up(self, is_held_up: bool) -> None:
        """Whether new entries are to wait, as too many wait in lanes."""
        self._is_held_up = is_held_up
        self._tell_room()

    def pop(self) -> Next | None:
        """What is next, or None where there is nothing, or the intake is shut: entries then stay for `drain`."""
        if self.is_shut:
            return None
        if self._turns:
            return self._turns.popleft()
        if self._new and not self._abandoned and not self._due:  # the way of nearly all
            entry = self._new.popleft()
            if len(self._new) == self._batch_size:
                self._tell_room()
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
                self._tell_room()
                return entry
        return None

    async def filled(self) -> None:
        """Wait until there is something, or the intake is closed. Of several who wait, one is told for each entry."""
        if self.closed.is_set():
            return
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.cancelled():
                self._waiters.remove(waiter)
            else:
                self._wake(1)  # told and cancelled at once: somebody else is to see to it
            raise

    def _wake(self, count: int) -> None:
        while count > 0 and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1

    def pause(self) -> None:
        """Give out nothing, and have nothing read, until `resume`."""
        self.is_paused = self.is_shut = self._waits_for_due = True
        self._tell_room()

    def resume(self) -> None:
        """Give out entries again. New ones are read from `read_on` on, since those handed back are older."""
        self.is_paused = False
        self.is_shut = self.closed.is_set()
        self._wake(len(self._waiters))

    @property
    def waits_for_due(self) -> bool:
        """Whether it was resumed, and new entries wait until those that were handed back have come again."""
        return self._waits_for_due and not self.is_paused

    def read_on(self) -> None:
        """Have new entries read again."""
        self._waits_for_due = False
        self._tell_room()

    def close(self) -> None:
        """Give out no more entries."""
        self.is_shut = True
        self.closed.set()
        self._has_room.set()
        self._wake(len(self._waiters))

    def drain(self) -> list[HeldEntry]:
        """Everything that was taken and never begun."""
        turns = [turn.item for turn in self._turns if isinstance(turn.item, HeldEntry)]
        left = [*self._due, *turns, *self._new]
        self._due.clear()
        self._turns.clear()
        self._new.clear()
        return left

    def _tell_room(self) -> None:
        waits = self._is_held_up or self._waits_for_due
        if self.closed.is_set() or (len(self._new) <= self._batch_size and not waits):
            self._has_room.set()
        else:
            self._has_room.clear()
