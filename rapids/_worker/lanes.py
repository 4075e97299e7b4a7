"""Lanes: entries of one key run one after another, those of different keys side by side.

Plain state, without I/O: what may begin is decided here, and who runs it is the executors' business.
"""

import math
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Lanes"]

T = TypeVar("T")


class _Lane(Generic[T]):
    """One key's entries: one that is under way or awaited, and those after it."""

    __slots__ = ("awaited", "overdue_at", "queue")

    def __init__(self) -> None:
        self.queue: deque[T] = deque()
        self.awaited: bytes | None = None
        """The entry that waits to be delivered again; nothing of the lane runs until it has."""
        self.overdue_at = math.inf


class Lanes(Generic[T]):
    """A lane for each key of which something is under way, waits for it, or is to be delivered again."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, _Lane[T]] = {}
        self._awaiting: set[Hashable] = set()
        self.queued = 0
        """Entries that wait in a lane, of all keys."""

    def __len__(self) -> int:
        return len(self._lanes)

    def enter(self, key: Hashable, entry_id: bytes, item: T) -> bool:
        """Whether an entry may begin now. If not it is queued, and comes out of `leave` or `overdue` in its turn."""
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
        """What was under way has come to its end: what of this key is to begin now, if anything is."""
        lane = self._lanes[key]
        if lane.queue:
            self.queued -= 1
            return lane.queue.popleft()
        del self._lanes[key]
        return None

    def hold(self, key: Hashable, entry_id: bytes, overdue_at: float) -> None:
        """What was under way is to be delivered again: nothing of this key begins before it comes back.

        From `overdue_at` on (any clock) it is waited for no longer: another consumer of the group has taken it.
        """
        lane = self._lanes[key]
        lane.awaited, lane.overdue_at = entry_id, overdue_at
        self._awaiting.add(key)

    @property
    def next_overdue(self) -> float:
        """When the first awaited entry is overdue; infinite where none is awaited."""
        return min((self._lanes[key].overdue_at for key in self._awaiting), default=math.inf)

    def overdue(self, now: float) -> list[tuple[Hashable, T]]:
        """Give up waiting where it took too long: what is to begin now, with its key."""
        begin: list[tuple[Hashable, T]] = []
        for key in [key for key in self._awaiting if self._lanes[key].overdue_at <= now]:
            self._found(key, self._lanes[key])
            if (item := self.leave(key)) is not None:
                begin.append((key, item))
        return begin

    def postpone(self, overdue_at: float) -> None:
        """Wait for what is awaited until then at least: it could not come back before."""
        for key in self._awaiting:
            self._lanes[key].overdue_at = max(self._lanes[key].overdue_at, overdue_at)

    def drain(self) -> list[T]:
        """Everything queued, to be released; lanes are empty from then on."""
        left = [item for lane in self._lanes.values() for item in lane.queue]
        for lane in self._lanes.values():
            lane.queue.clear()
        self.queued = 0
        return left

    def _found(self, key: Hashable, lane: _Lane[T]) -> None:
        self._awaiting.discard(key)
        lane.awaited, lane.overdue_at = None, math.inf
