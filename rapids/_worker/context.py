"""What all parts of a worker share: the connection, the group, the consumer's name, and the reclaimer's next turn."""

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
from rapids._worker.failure_log import FailureLog
from rapids._worker.identity import Identity
from rapids._worker.server_clock import ServerClock

__all__ = ["NextLook", "WorkerContext"]


class NextLook:
    """The time of the reclaimer's next turn. Any part that expects entries sooner makes it earlier."""

    def __init__(self) -> None:
        self._at = 0.0
        self._earlier = asyncio.Event()

    def now(self) -> None:
        """Look now."""
        self.within(0.0)

    def within(self, delay: float) -> None:
        """Look in at most `delay` seconds."""
        at = time.monotonic() + delay
        if at < self._at:
            self._at = at
            self._earlier.set()

    def forget(self) -> None:
        """A turn begins: what is requested from now on leads to another turn."""
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
    """How this process reaches its group, and its name in the group."""

    commands: OwnConnection
    """The connection for everything except blocking reads and large answers."""
    fetching: OwnConnection
    """The connection on which single entries are fetched, which may take long. It is made when it is first used."""
    sources: Sequence[Source]
    """The stream, and the group's replay stream."""
    settings: RouterSettings
    identity: Identity
    outages: Outages
    log: dict[str, object]
    """The fields of every log record: stream, group, consumer."""
    counts: Counts
    failures: FailureLog
    clock: ServerClock
    next_look: NextLook = field(default_factory=NextLook)

    @property
    def name(self) -> str:
        """The consumer's name. It changes if another process takes it."""
        return self.identity.name
