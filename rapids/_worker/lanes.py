"""Lanes: entries of one key run one after another, those of different keys side by side.

Plain state, without I/O: lanes decide which entry may begin, executors run it.
"""

import math
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from rapids._core.entry_id import order

__all__ = ["Lanes"]

T = TypeVar("T")

BEFORE_ALL = (-1, -1)
"""In place of an entry's order: all others come after it."""


class _Lane(Generic[T]):
    """The entries of one key: one that runs, those that are awaited, and those after them."""

    __slots__ = ("awaited", "is_running", "queue")

    def __init__(self) -> None:
        self.queue: deque[tuple[bytes, T]] = deque()
        self.awaited: dict[bytes, tuple[tuple[int, int], float]] = {}
        """The entries that are to be delivered again, with their order, and when each is overdue. No later entry begins
        before them."""
        self.is_running = False

    def may_begin(self, entry_id: bytes) -> bool:
        """Whether nothing of the lane comes before an entry."""
        if self.is_running or not self.awaited:
            return not self.is_running
        return order(entry_id) < min(order_ for order_, _ in self.awaited.values())


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
            lane = self._lanes[key] = _Lane()
        if is_mixed := bool(lane.awaited):  # earlier entries may come after later ones
            self._found(key, lane, entry_id)
        if lane.may_begin(entry_id):
            lane.is_running = True
            return True
        at = len(lane.queue)
        while is_mixed and at and order(entry_id) < order(lane.queue[at - 1][0]):
            at -= 1
        lane.queue.insert(at, (entry_id, item))
        self.queued += 1
        return False

    def leave(self, key: Hashable) -> T | None:
        """Note that the running entry of a key has ended. Returns the entry that begins now; None if there is none."""
        lane = self._lanes[key]
        lane.is_running = False
        return self._next(key, lane)

    def hold(self, key: Hashable, entry_id: bytes, overdue_at: float) -> None:
        """Note that the running entry of a key is to be delivered again: no other entry of the key begins before it.

        After `overdue_at` (any clock) the lane stops waiting, since another consumer of the group has taken the entry.
        """
        lane = self._lanes[key]
        lane.is_running = False
        lane.awaited[entry_id] = BEFORE_ALL, overdue_at
        self._awaiting.add(key)

    def foresee(self, key: Hashable, entry_id: bytes, overdue_at: float) -> None:
        """Note that an entry of another consumer is to be delivered again: no later entry of its key begins before it.

        The lane stops waiting as after `hold`.
        """
        lane = self._lanes.setdefault(key, _Lane())
        lane.awaited[entry_id] = order(entry_id), overdue_at
        self._awaiting.add(key)

    @property
    def next_overdue(self) -> float:
        """When the first awaited entry is overdue; infinity if none is awaited."""
        return min((at for key in self._awaiting for _, at in self._lanes[key].awaited.values()), default=math.inf)

    def overdue(self, now: float, is_held: Callable[[bytes], bool] = lambda _: False) -> list[tuple[Hashable, T]]:
        """Stop waiting for overdue entries, except those that are held, and so will begin.

        Returns the entries that begin now, with their keys.
        """
        begin: list[tuple[Hashable, T]] = []
        for key in list(self._awaiting):
            lane = self._lanes[key]
            for entry_id in [one for one, (_, at) in lane.awaited.items() if at <= now and not is_held(one)]:
                self._found(key, lane, entry_id)
            if not lane.is_running and (item := self._next(key, lane)) is not None:
                begin.append((key, item))
        return begin

    def postpone(self, overdue_at: float) -> None:
        """Wait for awaited entries at least until this time, since they could not come back before."""
        for key in self._awaiting:
            awaited = self._lanes[key].awaited
            awaited.update((one, (order_, max(at, overdue_at))) for one, (order_, at) in awaited.items())

    def drain(self) -> list[T]:
        """Remove and return all queued entries."""
        left = [item for lane in self._lanes.values() for _, item in lane.queue]
        for lane in self._lanes.values():
            lane.queue.clear()
        self.queued = 0
        return left

    def forget(self) -> None:
        """Remove all entries except those that run."""
        self.drain()
        self._lanes = {key: lane for key, lane in self._lanes.items() if lane.is_running}
        for lane in self._lanes.values():
            lane.awaited.clear()
        self._awaiting.clear()

    def _next(self, key: Hashable, lane: _Lane[T]) -> T | None:
        if lane.queue and lane.may_begin(lane.queue[0][0]):
            lane.is_running = True
            self.queued -= 1
            return lane.queue.popleft()[1]
        if not lane.queue and not lane.awaited:
            del self._lanes[key]
        return None

    def _found(self, key: Hashable, lane: _Lane[T], entry_id: bytes) -> None:
        lane.awaited.pop(entry_id, None)
        if not lane.awaited:
            self._awaiting.discard(key)
