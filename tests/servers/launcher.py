"""What launchers share: started with a block and ended with it, however it ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

L = TypeVar("L", bound="Launcher")


class Launcher(ABC):
    """Use it in `async with`, or `start()` it and `close()` it."""

    @abstractmethod
    async def start(self) -> None:
        """Start its processes, and return once they do what they are for."""

    @abstractmethod
    def close(self) -> None:
        """End its processes and remove what they wrote."""

    async def __aenter__(self: L) -> L:
        try:
            await self.start()
        except BaseException:  # interrupted, too: no process is left
            self.close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
