"""What is to be worked on next: entries taken and not yet begun, and abandoned ones to be taken one at a time."""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from rapids.storage.groups import RawEntry
from rapids.storage.keys import Source

__all__ = ["Abandoned", "Intake"]


@dataclass(frozen=True, slots=True)
class Abandoned:
    """An entry whose consumer went silent over it. It may be what killed that process, so it is claimed only when it
    is about to be run, and alone: a count spent on it is spent on no innocent neighbour."""

    source: Source
    entry_id: bytes
    min_idle_ms: int


class Intake:
    """A queue with room for two batches: while one is worked through, the next is fetched.

    Abandoned entries take turns with the others, so that neither kind starves.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._entries: deque[RawEntry] = deque()
        self._abandoned: dict[Abandoned, None] = {}
        self._abandoned_next = True
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.closed = asyncio.Event()
        """Set once no more entries are given out: the worker stops."""

    def put(self, entries: Iterable[RawEntry]) -> None:
        """Queue entries. The caller keeps to the room there is."""
        self._entries.extend(entries)
        if self._entries:
            self._filled.set()
        self._tell_room()

    def announce(self, found: Iterable[Abandoned]) -> None:
        """Queue abandoned entries, to be claimed in their turn; those queued already stay where they are."""
        self._abandoned.update(dict.fromkeys(found))
        if self._abandoned:
            self._filled.set()

    async def room(self) -> None:
        """Wait until a whole batch fits, or the intake is closed."""
        await self._has_room.wait()

    async def take(self) -> RawEntry | Abandoned | None:
        """What is next, or None once the intake is closed; entries left then stay for `drain`."""
        while not (self._entries or self._abandoned or self.closed.is_set()):
            self._filled.clear()
            await self._filled.wait()
        if self.closed.is_set():
            return None
        if self._abandoned and (self._abandoned_next or not self._entries):
            self._abandoned_next = False
            return self._next_abandoned()
        self._abandoned_next = True
        entry = self._entries.popleft()
        self._tell_room()
        return entry

    def close(self) -> None:
        """Give out no more entries."""
        self.closed.set()
        self._filled.set()
        self._has_room.set()

    def drain(self) -> list[RawEntry]:
        """Everything that was taken and never begun."""
        left = list(self._entries)
        self._entries.clear()
        return left

    def _next_abandoned(self) -> Abandoned:
        first = next(iter(self._abandoned))
        del self._abandoned[first]
        return first

    def _tell_room(self) -> None:
        if self.closed.is_set() or len(self._entries) <= self._batch_size:
            self._has_room.set()
        else:
            self._has_room.clear()
