"""`python -m tests.chaos.soak`: emit, handle, fail, replay and discard for long, and see that nothing grows.

All in one process, so that a task, a connection or a file descriptor that leaks is seen.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue, EventEmitter, EventRouter, current_delivery
from rapids.backoff import constant
from rapids.embedded import EmbeddedServer
from rapids.exceptions import LetterStateError, NonRetryableError
from tests.chaos.leaks import Bound, Usage, growth, left_behind, measure, open_fds, table

STREAM, GROUP, DLQ = "soak:events", "soak-group", "soak:dlq"
MAXLEN, DLQ_MAXLEN, ARCHIVE_MAXLEN = 1_000, 200, 200
NODE = 100
"""Entries in a node of a stream: so many more may stay when it is trimmed in whole nodes."""

AT_ONCE = 4
SETTLE_PATIENCE = 30.0

_OWN = r"\{soak:events\}:rapids:"
_REPLAY = _OWN + "replay:soak-group"
BOUNDS = (
    Bound(STREAM, 1, MAXLEN + NODE),
    Bound("rapids:routers", 1, 1, expires=True),
    Bound(DLQ, 1, DLQ_MAXLEN + NODE),
    Bound(_REPLAY, 1, DLQ_MAXLEN),
    *(
        Bound(of + part, 1, DLQ_MAXLEN, of_pending=True)
        for of in (_OWN, _REPLAY + ":rapids:")
        for part in ("ledger:soak-group", "due:soak-group", "parked:soak-group")
    ),
    Bound(_OWN + "rates:soak-group", 1, 1, expires=True),
    *(Bound(_OWN + part + ":soak-group:.+", 1, 1, expires=True, of_pending=True) for part in ("consumer", "handlers")),
    Bound(r"\{soak:dlq\}:rapids:archive", 1, ARCHIVE_MAXLEN, expires=True),
    Bound(r"\{soak:dlq\}:rapids:failed-again", 1, ARCHIVE_MAXLEN, expires=True),
    Bound(r"\{soak:dlq\}:rapids:audit", 1, 10_000 + NODE, expires=True),
    Bound(r"\{soak:dlq\}:rapids:index", 1, 10),
    Bound(r"\{soak:dlq\}:rapids:index:.+", 1_001, 2 * (DLQ_MAXLEN + NODE) + 1_000),
    Bound(r"\{soak:dlq\}:rapids:archived", 1, ARCHIVE_MAXLEN, expires=True),
    Bound(r"\{soak:dlq\}:rapids:restored", 1, DLQ_MAXLEN + NODE),
)


TREATMENTS = {"replayed", "discarded", "restored", "left"}
"""What happens to dead letters."""


class SoakEvent(BaseEvent):
    event_type: ClassVar[str] = "soak.event"
    number: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Soaked:
    usages: Mapping[str, Usage]
    done: Mapping[str, int]
    """What was done, and how often."""
    findings: list[str] = field(default_factory=list[str])


def make_router() -> EventRouter:
    router = EventRouter(
        stream=STREAM,
        group=GROUP,
        block_ms=500,
        max_deliveries=2,
        redelivery_backoff=constant(0.2),
        default_backoff=constant(0.01),
        dlq_stream=DLQ,
        dlq_maxlen=DLQ_MAXLEN,
    )

    @router.on(SoakEvent)
    async def always(event: SoakEvent) -> None: ...

    @router.on(SoakEvent, timeout=0.05, retries=1)
    async def flaky(event: SoakEvent) -> None:
        delivery = current_delivery()
        assert delivery is not None
        if event.number % 20 == 3 and delivery.deliveries == 1:
            await asyncio.sleep(1 if event.number % 200 == 3 else 0)  # a time-out, now and then
            raise ConnectionError("not yet")

    @router.on(SoakEvent)
    async def picky(event: SoakEvent) -> None:
        delivery = current_delivery()
        assert delivery is not None
        if event.number % 25 == 7 and delivery.replay_of is None:
            raise NonRetryableError("not without being looked at")

    @router.on("soak.*")
    async def hopeless(event: SoakEvent) -> None:
        if event.number % 50 == 9:
            raise RuntimeError("never")

    return router


class Soak:
    """The work: emitting, and what a person does about dead letters."""

    def __init__(self, client: Redis, rate: float) -> None:
        self._emitter = EventEmitter(client, STREAM, maxlen=MAXLEN)
        self._letters = DeadLetterQueue(
            client, DLQ, archive_maxlen=ARCHIVE_MAXLEN, dlq_maxlen=DLQ_MAXLEN, maxlen=MAXLEN
        )
        self._rate = rate
        self.done = Counter[str]()

    async def emit(self) -> None:
        number, due = 0, time.monotonic()
        while True:
            events = [SoakEvent(number=number + at, text="x" * 100) for at in range(AT_ONCE)]
            if number % 3:
                await self._emitter.emit(events)
            else:
                await asyncio.gather(*(self._emitter.emit(event) for event in events))
            number += AT_ONCE
            self.done["emitted"] += AT_ONCE
            due = max(due + AT_ONCE / self._rate, time.monotonic() - 0.5)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def look_after_letters(self) -> None:
        rng = random.Random(0)
        while True:
            page = await self._letters.list(limit=20)
            for letter in page.items:
                await self._treat(letter.id, rng.choice(("replayed", *sorted(TREATMENTS))))
            await asyncio.sleep(0.5)

    async def _treat(self, letter_id: str, treatment: str) -> None:
        try:
            match treatment:
                case "replayed":
                    await self._letters.replay(letter_id, actor="soak")
                case "discarded":
                    await self._letters.discard(letter_id, actor="soak")
                case "restored":
                    await self._letters.discard(letter_id, actor="soak")
                    await self._letters.restore(letter_id, actor="soak")
                case _:
                    await self._letters.get(letter_id)
        except (LetterStateError, LookupError):
            treatment = "gone already"  # trimmed
        self.done[treatment] += 1


async def soak(seconds: float, rate: float, say: Callable[[str], None] = print) -> Soaked:
    """Work for so long; a tenth of it, but three seconds at least, to warm up."""
    usages: dict[str, Usage] = {}
    findings: list[str] = []
    async with EmbeddedServer() as server:
        before_fds = open_fds()
        async with Redis.from_url(server.url) as client:
            work = Soak(client, rate)
            router = make_router()
            async with running(router.start(client)) as consuming:
                async with running(work.emit(), work.look_after_letters()) as working:
                    warm_up = max(seconds / 10, 3.0)
                    for name, pause in _moments(warm_up, seconds):
                        await _rest(pause, *working, *consuming)
                        while not work.done.keys() >= TREATMENTS:  # a busy machine needs longer to warm up
                            await _rest(0.1, *working, *consuming)
                        usages[name] = await measure(client, BOUNDS)
                        say(f"{name}: {dict(work.done)}")
                await _settled(client)
                await router.stop()
        findings += growth(usages["start"], usages["end"], BOUNDS)
        async with Redis.from_url(server.url, max_connections=1) as client:
            usages["stopped"] = await measure(client, BOUNDS)
            findings += left_behind(before_fds, usages["stopped"], BOUNDS)
    return Soaked(usages, work.done, findings)


def _moments(warm_up: float, seconds: float) -> list[tuple[str, float]]:
    half = (seconds - warm_up) / 2
    return [("start", warm_up), ("middle", half), ("end", half)]


async def _rest(seconds: float, *tasks: asyncio.Task[None]) -> None:
    """Wait; an error in one of the tasks ends the soak."""
    ended, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in ended:
        await task


@asynccontextmanager
async def running(*bodies: object) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(body) for body in bodies]  # type: ignore[arg-type]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _settled(client: Redis) -> None:
    """Wait until the router has nothing left to do."""
    async with asyncio.timeout(SETTLE_PATIENCE):
        for stream in (STREAM, re.sub(r"\\", "", _REPLAY)):
            while not await _is_settled(client, stream):
                await asyncio.sleep(0.1)


async def _is_settled(client: Redis, stream: str) -> bool:
    (group,) = await client.xinfo_groups(stream)
    last = (await client.xinfo_stream(stream))["last-generated-id"]
    return group["pending"] == 0 and group["last-delivered-id"] == last


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=200.0, help="events per second")
    chosen = parser.parse_args(arguments)
    logging.getLogger("rapids").addHandler(logging.NullHandler())  # each failure is a line; here they are meant
    try:
        soaked = asyncio.run(soak(chosen.seconds, chosen.rate))
    except KeyboardInterrupt:
        return 130
    print(table(soaked.usages, BOUNDS))
    for finding in soaked.findings:
        print(f"BROKEN: {finding}")
    return 1 if soaked.findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
