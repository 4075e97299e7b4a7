"""What the parts of a worker share: how this process reaches its group, and when the reclaimer looks next."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rapids._core.counter_state import Counts
from rapids._core.outages import Outages
from rapids._core.settings import RouterSettings
from rapids._storage.client.connections import OwnConnection
from rapids._storage.keys import Source
from rapids._worker.identity import Identity

__all__ = ["NextLook", "WorkerContext"]


class NextLook:
    """When the reclaimer looks next. A part that knows of something to be found makes it earlier."""

    def __init__(self) -> None:
        self._at = 0.0
        self._earlier = asyncio.Event()

    def now(self) -> None:
        """Look now."""
        self.within(0.0)

    def within(self, delay: float) -> None:
        """Look in `delay` seconds at the latest."""
        at = time.monotonic() + delay
        if at < self._at:
            self._at = at
            self._earlier.set()

    def forget(self) -> None:
        """A look begins. What is made known from now on leads to another one."""
        self._at = math.inf

    async def wait(self) -> None:
        """Wait for the next look."""
        while (left := self._at - time.monotonic()) > 0:
            self._earlier.clear()
            try:
                async with asyncio.timeout(left):
                    await self._earlier.wait()
            except TimeoutError:
                return


@dataclass(frozen=True, slots=True)
class WorkerContext:
    """How a process reaches its group, and which name it has in it."""

    commands: OwnConnection
    """The connection for all but reading."""
    sources: Sequence[Source]
    """The stream, and the group's replay stream."""
    settings: RouterSettings
    identity: Identity
    outages: Outages
    log: dict[str, object]
    """What every log line says: stream, group, consumer."""
    counts: Counts
    next_look: NextLook = field(default_factory=NextLook)

    @property
    def name(self) -> str:
        """The consumer's name. Another one from when another process took it."""
        return self.identity.name
