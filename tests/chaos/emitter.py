"""An emitter process: emits numbered events at a bounded rate and records the answer about each."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rapids import EventEmitter
from rapids.exceptions import EmitError
from tests.chaos.clients import opened
from tests.chaos.events import event_id, make_event
from tests.chaos.records import Recorder, emitter_file
from tests.chaos.settings import STREAM

MOST_AT_ONCE = 50
"""Emits under way; in an outage no more are begun."""

LARGEST_LIST = 8

TRIES, TRIES_OVER_A_FAILOVER = 4, 8
LONGEST_EMIT = 120.0
"""Seconds: longer than all tries take."""


class Emitting:
    def __init__(self, emitter: EventEmitter, record: Recorder, replicas: int) -> None:
        self._emitter = emitter
        # Of what an `EmitError` says is stored, replicas have confirmed nothing.
        self._stored = "unconfirmed" if replicas else "confirmed"
        self._record = record
        self._room = asyncio.Semaphore(MOST_AT_ONCE)
        self._under_way: set[asyncio.Task[None]] = set()

    async def run(self, first: int, rate: float, stopping: asyncio.Event) -> None:
        """Emit `rate` events a second, alone and in lists, until asked to stop; then wait for the last ones."""
        rng, number, due = random.Random(first), first, time.monotonic()
        while not stopping.is_set():
            size = rng.choice((1, 1, 1, rng.randint(2, LARGEST_LIST)))
            await self._room.acquire()
            task = asyncio.create_task(self._emit(range(number, number + size)))
            self._under_way.add(task)
            task.add_done_callback(self._ended)
            number += size
            # What an outage held up is not made up for: the rate is an upper bound.
            due = max(due + size / rate, time.monotonic() - 0.1)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._room.release()

    async def _emit(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._record("sent", number, time.monotonic())
        events = [make_event(number) for number in numbers]
        try:
            await self._emitter.emit(events[0] if len(events) == 1 else events)
        except EmitError as error:
            self._record_error(numbers, error)
        except Exception as error:
            self._record("bug", time.monotonic(), f"emit raised {error!r}")
        else:
            for number in numbers:
                self._record("confirmed", number)

    def _record_error(self, numbers: Sequence[int], error: EmitError) -> None:
        by_id = {event_id(number): number for number in numbers}
        for kind, ids in ((self._stored, error.stored), ("failed", error.not_stored), ("unknown", error.unknown)):
            for one in ids:
                self._record(kind, by_id.pop(one))
        if by_id:
            self._record("bug", time.monotonic(), f"EmitError does not say what became of {sorted(by_id)}")


async def run(url: str, record: Recorder, first: int, rate: float, replicas: int) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    # A failover takes seconds, and an emit that has not been refused for good is to ride over it.
    tries = TRIES_OVER_A_FAILOVER if replicas else TRIES
    async with opened(url, socket_timeout=2.0) as client:
        emitter = EventEmitter(
            client, STREAM, maxlen=None, max_retries=tries, retry_delay=0.1, replicas=replicas, timeout=LONGEST_EMIT
        )
        await Emitting(emitter, record, replicas).run(first, rate, stopping)


def main(url: str, folder: str, first: str, rate: str, replicas: str) -> None:
    record = Recorder(emitter_file(Path(folder), os.getpid()))
    asyncio.run(run(url, record, int(first), float(rate), int(replicas)))


if __name__ == "__main__":
    main(*sys.argv[1:])
