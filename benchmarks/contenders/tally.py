"""The count of what was handled, and the clock."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any


class Tally:
    """Counts the returns of handlers. The clock runs from the `warm`-th to the last of `expected`.

    So starting up, connecting and the first reads are outside, and the acks of all but the last read inside.
    """

    def __init__(self, expected: int, warm: int) -> None:
        self.expected = expected
        self.count = 0
        self.checksum = 0
        self.done = asyncio.Event()
        self._warm = warm
        self._began = 0.0
        self._ended = 0.0
        self._cpu_began = 0.0
        self._cpu_ended = 0.0

    def note(self, number: int) -> None:
        """A handler returns."""
        self.count += 1
        self.checksum += number
        if self.count == self._warm:
            self._began, self._cpu_began = time.perf_counter(), time.process_time()
        elif self.count == self.expected:
            self._ended, self._cpu_ended = time.perf_counter(), time.process_time()
            self.done.set()

    @property
    def seconds(self) -> float:
        return self._ended - self._began

    @property
    def cpu_seconds(self) -> float:
        """What this process computed while the clock ran."""
        return self._cpu_ended - self._cpu_began

    @property
    def timed(self) -> int:
        """Returns of handlers the clock ran for."""
        return self.expected - self._warm


def handler(tally: Tally, pause: float, event_class: type) -> Callable[[Any], Awaitable[None]]:
    """A handler that does nothing, or sleeps, and is counted; annotated, since libraries look at that."""
    note, sleep = tally.note, asyncio.sleep

    async def nothing(event: event_class) -> None:
        note(event.number)

    async def slow(event: event_class) -> None:
        await sleep(pause)
        note(event.number)

    return slow if pause else nothing
