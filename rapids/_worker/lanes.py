"""Lanes: entries of one key run one after another, those of different keys side by side.

Plain state, without I/O: lanes decide which entry may begin, executors run it.
"""

import math
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Lanes"]

T = TypeVar("T")


class _Lane(Generic[T]):
    """The entries of one key: one that runs or is awaited, and those after it."""

    __slots__ = ("awaited", "overdue_at", "queue")

    def __init__(self) -> None:
        self.queue: deque[T] = deque()
        self.awaited: bytes | None = None
        """The entry that is to be delivered again; no other entry of the lane begins before it."""
        self.overdue_at = math.inf


class Lanes(Generic[T]):
    """A lane for each key that has an entry that runs, waits, or is to be delivered again."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane[T]] = {}
        self._awaiting: set[Hashable] = set()
        self.queued = 0
        """How many entries wait in all lanes."""

    def __len__(self) -> int:
        return len(self._lanes)

    def enter(self, key: Hashable, entry_id: bytes, item: T) -> bool:
        """Whether an entry may begin now. If not, it is queued, and `leave` or `overdue` returns it later."""
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = _Lane()
            return True
        if lane.awaited == entry_id:
            self._found(key, lane)
            return True
        lane.queue.append(item)
        self.queued += 1
        return False

    def leave(self, key: Hashable) -> T | None:
        """Note that the running entry of a key has ended. Returns the entry that begins now; None if there is none."""
        lane = self._lanes[key]
        if lane.queue:
            self.queued -= 1
            return lane.queue.popleft()
        del self._lanes[key]
        return None

    def hold(self, key: Hashable, entry_id: bytes, overdue_at: float) -> None:
        """Note that the running entry of a key is to be delivered again: no other entry of the key begins before it.

        After `overdue_at` (any clock) the lane stops waiting, since another consumer of the group has taken the entry.
        """
        lane = self._lanes[key]
        lane.awaited, lane.overdue_at = entry_id, overdue_at
        self._awaiting.add(key)

    @property
    def next_overdue(self) -> float:
        """When the first awaited entry is overdue; infinity if none is awaited."""
        return min((self._lanes[key].overdue_at for key in self._awaiting), default=math.inf)

    def overdue(self, now: float) -> list[tuple[Hashable, T]]:
        """Stop waiting for overdue entries. Returns the entries that begin now, with their keys."""
        begin: list[tuple[Hashable, T]] = []
        for key in [key for key in self._awaiting if self._lanes[key].overdue_at <= now]:
            self._found(key, self._lanes[key])
            if (item := self.leave(key)) is not None:
                begin.append((key, item))
        return begin

    def postpone(self, overdue_at: float) -> None:
        """Wait for awaited entries at least until this time, since they could not come back before."""
        for key in self._awaiting:
            self._lanes[key].overdue_at = max(self._lanes[key].overdue_at, overdue_at)

    def drain(self) -> list[T]:
        """Remove and return all queued entries."""
        left = [item for lane in self._lanes.values() for item in lane.queue]
        for lane in self._lanes.values():
            lane.queue.clear()
        self.queued = 0
        return left

    def _found(self, key: Hashable, lane: _Lane[T]) -> None:
        self._awaiting.discard(key)
        lane.awaited, lane.overdue_at = None, math.inf
