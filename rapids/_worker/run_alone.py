"""Letting one entry run with nothing beside it."""

import asyncio

__all__ = ["Solitude"]


class Solitude:
    """Executors enter and leave for each entry. One that wants to be alone holds the others up, and waits for them."""

    def __init__(self) -> None:
        self._inside = 0
        self._turn = asyncio.Lock()
        self._empty = asyncio.Event()
        self._free = asyncio.Event()
        self._free.set()
        self.is_free = True
        """Whether nobody is alone or waits to be."""

    @property
    def inside(self) -> int:
        """How many are inside."""
        return self._inside

    @property
    def is_occupied(self) -> bool:
        """Whether anybody is inside."""
        return self._inside > 0

    async def free(self) -> None:
        """Wait until nobody is alone or waits to be."""
        await self._free.wait()

    def enter(self) -> None:
        """Begin something beside others. Only while it is free."""
        self._inside += 1

    def leave(self) -> None:
        """End it."""
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    async def __aenter__(self) -> None:
        """Wait until all others have left, and let nobody in until the end of the block."""
        await self._turn.acquire()
        self._free.clear()
        self.is_free = False
        try:
            while self._inside:
                self._empty.clear()
                await self._empty.wait()
        except BaseException:
            await self.__aexit__()
            raise

    async def __aexit__(self, *_: object) -> None:
        self.is_free = True
        self._free.set()
        self._turn.release()
