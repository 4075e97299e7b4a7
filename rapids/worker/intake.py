"""Entries taken from Redis and not yet begun."""

import asyncio
from collections import deque
from collections.abc import Iterable

from rapids.storage.groups import RawEntry

__all__ = ["Intake"]


class Intake:
    """A queue with room for two batches: while one is worked through, the next is fetched."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._entries: deque[RawEntry] = deque()
        self._filled = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entries: Iterable[RawEntry]) -> None:
        """Queue entries. The caller keeps to the room there is."""
        self._entries.extend(entries)
        if self._entries:
            self._filled.set()
        self._tell_room()

    async def room(self) -> None:
        """Wait until a whole batch fits, or the intake is closed."""
        await self._has_room.wait()

    async def take(self) -> RawEntry | None:
        """The next entry, or None once the intake is closed; what is left then stays for `drain`."""
        while not self._entries and not self._closed:
            self._filled.clear()
            await self._filled.wait()
        if self._closed:
            return None
        entry = self._entries.popleft()
        self._tell_room()
        return entry

    def close(self) -> None:
        """Give out no more entries."""
        self._closed = True
        self._filled.set()
        self._has_room.set()

    def drain(self) -> list[RawEntry]:
        """Everything that was never begun."""
        left = list(self._entries)
        self._entries.clear()
        return left

    def _tell_room(self) -> None:
        if self._closed or len(self._entries) <= self._batch_size:
            self._has_room.set()
        else:
            self._has_room.clear()
