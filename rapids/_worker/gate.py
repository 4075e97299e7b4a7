"""The gate: whether an entry may begin now. Plain state, without I/O; other parts ask Redis and inform the gate."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import Enum

from rapids._storage.terms import Term
from rapids._worker.inflight import HeldEntry, State

__all__ = ["Answer", "Gate"]


class Answer(Enum):
    """Whether the handlers of an entry may begin."""

    BEGIN = "begin"
    WAIT = "wait"
    """Not yet: another entry runs alone, or Redis must first confirm that this consumer still has the entry."""
    RELEASE = "release"
    """Not in this process: the group is paused, this process stops, or another consumer has the entry."""


BEGIN, WAIT, RELEASE, LOST, RUNNING = *Answer, State.LOST, State.RUNNING


class Gate:
    """Closed while the group is paused, while another consumer is the active one, and for good when the worker stops.

    Times are of `time.monotonic()`, in seconds. What this process knows of its leases, its name and the group's active
    consumer is valid until such a time. If the process stood still for longer, it must ask Redis again.
    """

    def __init__(self, *, lease_seconds: float, exclusive: bool = False) -> None:
        """`lease_seconds`: how long a lease lasts. `exclusive`: whether the group has one active consumer at a time."""
        self._lease_seconds = lease_seconds
        self._exclusive = exclusive
        self.closed = asyncio.Event()
        """Set when the worker stops, so that nothing begins any more."""
        self.is_paused = False
        self.is_shut = False
        """Whether nothing begins, since the group is paused or the worker stops."""
        self.is_active = not exclusive
        """Whether this consumer is the active one, as far as it knows: see `active_until`."""
        self.active_until = -math.inf if exclusive else math.inf
        """Until when no other consumer can be active."""
        self.term: Term | None = None
        """The term of this consumer as the active one, a new object for each; None if the group is not exclusive."""
        self.name_until = 0.0
        """Until when no other process can have taken this consumer's name."""
        self._sure_until = 0.0
        self.may_read = asyncio.Event()
        """Set when all entries that other consumers left are processed: only then new entries are read."""
        if not exclusive:
            self.may_read.set()
        self.running = 0
        """Entries in their handlers."""
        self.is_free = True
        """Whether no entry runs alone or waits to."""
        self._free = asyncio.Event()
        self._free.set()
        self._empty = asyncio.Event()
        self._alone = asyncio.Lock()

    def ask(self, held: HeldEntry, *, is_confirmed: bool = False, is_alone: bool = False) -> Answer:
        """Whether an entry may begin.

        `is_confirmed`: Redis has just confirmed it. `is_alone`: it is the entry that runs alone.
        """
        if self.is_shut or held.state is LOST:
            return RELEASE
        if not (is_confirmed or self.is_sure_of(held)):
            return WAIT
        return BEGIN if self.is_free or is_alone else WAIT

    def is_sure_of(self, held: HeldEntry) -> bool:
        """Whether no other consumer can have taken an entry, this consumer's name, or its place."""
        now = time.monotonic()
        return now < self._sure_until and now - held.lease_at < self._lease_seconds

    # --- what is known of this consumer ---

    def keep_name(self, until: float) -> None:
        """Note until when this process has its name."""
        self.name_until = until
        self._sure_until = min(until, self.active_until)

    def be_active(self, until: float) -> None:
        """Note until when this consumer is the active one."""
        self.is_active, self.active_until = True, until
        self._sure_until = min(self.name_until, until)

    def stand_by(self) -> None:
        """Note that another consumer is the active one."""
        self.is_active, self.active_until = False, -math.inf
        self._sure_until = -math.inf
        self.may_read.clear()

    # --- pausing and stopping ---

    def pause(self) -> None:
        """Let nothing begin until `resume`. In an exclusive group, released entries come before new ones."""
        self.is_paused = self.is_shut = True
        if self._exclusive:
            self.may_read.clear()

    def resume(self) -> None:
        """Let entries begin again, unless the worker stops."""
        self.is_paused, self.is_shut = False, self.closed.is_set()

    def close(self) -> None:
        """Let nothing begin any more."""
        self.is_shut = True
        self.closed.set()

    # --- running entries, and one alone ---

    def begin(self, held: HeldEntry) -> None:
        """An entry begins."""
        self.running += 1
        if held.state is not LOST:
            held.state = RUNNING

    def end(self) -> None:
        """An entry has ended."""
        self.running -= 1
        if not (self.is_free or self.running):
            self._empty.set()

    async def free(self) -> None:
        """Wait until no entry runs alone or waits to."""
        await self._free.wait()

    @asynccontextmanager
    async def alone(self) -> AsyncGenerator[None]:
        """Wait until all running entries have ended, and let none begin until the end of the block."""
        async with self._alone:
            self._free.clear()
            self.is_free = False
            try:
                while self.running:
                    self._empty.clear()
                    await self._empty.wait()
                yield
            finally:
                self.is_free = True
                self._free.set()
