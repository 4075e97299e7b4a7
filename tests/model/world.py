"""What has happened in one run of the model, as far as it can be seen from outside the library."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from tests.model.events import CLAIM_MIN_IDLE_MS

Result: TypeAlias = Literal["running", "done", "failed", "interrupted"]
BEAT = 0.01


def order(entry_id: str) -> tuple[int, int]:
    """What entry ids are ordered by."""
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number)


@dataclass(eq=False)
class Run:
    """One attempt of one handler at one entry."""

    group: str
    stream: str
    entry_id: str
    handler: str
    process: int
    consumer: str
    delivery: int
    replay_of: str
    number: int
    began: float
    ended: float = 0.0
    result: Result = "running"

    @property
    def work(self) -> Work:
        return Work(self.group, self.stream, self.entry_id, self.handler)

    def __str__(self) -> str:
        took = f"{self.began:.3f}-{self.ended:.3f}" if self.ended else f"{self.began:.3f}-"
        where = f"{self.group} {self.stream}/{self.entry_id} no. {self.number}"
        return f"{took} p{self.process} {where} {self.handler} delivery {self.delivery}: {self.result}"


@dataclass(frozen=True, order=True)
class Work:
    """What is owed: one handler's work on one entry."""

    group: str
    stream: str
    entry_id: str
    handler: str


@dataclass(frozen=True)
class Gone:
    """What a process had pending when it was killed: all that its end excuses."""

    at: float
    process: int
    group: str
    deliveries: frozenset[tuple[str, str, int]]
    """Stream, entry id, delivery count."""


@dataclass(frozen=True)
class Destroyed:
    """XGROUP DESTROY: entries up to `last_id` may be given out again."""

    at: float
    group: str
    last_id: str
    held: dict[str, set[str]]
    """What was pending for each process that lived: it has to register that with the new group."""
    forgotten: set[str]
    """What was pending for dead processes, and so known to none; and what a process held that died before it
    registered."""

    def dies(self, consumer: str, pending: set[str]) -> None:
        """A process has died; these are pending for the group made again."""
        self.forgotten.update(self.held.pop(consumer, set()) - pending)


@dataclass(frozen=True)
class Trimmed:
    """XTRIM: which entries it took away, and which of them each group had been given."""

    entry_ids: frozenset[str]
    given: dict[str, frozenset[str]]
    at: float


@dataclass
class World:
    """The journal of a run: what was asked for, what handlers did, and what excuses what."""

    runs: list[Run] = field(default_factory=list[Run])
    appended: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict[str, tuple[float, tuple[str, ...]]])
    """Entries of the event stream: when they were there, and the handlers that owe them something."""
    replays: dict[str, tuple[str, str, tuple[str, ...]]] = field(
        default_factory=dict[str, tuple[str, str, tuple[str, ...]]]
    )
    """Entries of replay streams: their group, the letter, and the handlers that owe them something."""
    killed: list[Gone] = field(default_factory=list[Gone])
    destroyed: list[Destroyed] = field(default_factory=list[Destroyed])
    trimmed: list[Trimmed] = field(default_factory=list[Trimmed])
    stops: list[tuple[str, float, float]] = field(default_factory=list[tuple[str, float, float]])
    """Graceful stops: group, from, to. What they release begins again, in no order."""
    stalls: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """When the event loop was blocked for so long that leases may have lapsed."""
    interrupted: list[float] = field(default_factory=list[float])
    """CLIENT KILL: an answer may have been lost, and with it the report of what was found to be trimmed."""
    reported_lost: set[str] = field(default_factory=set[str])
    """Ids of entries that were logged as lost."""
    diary: list[str] = field(default_factory=list[str])
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    origin: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        return time.monotonic() - self.origin

    def note(self, what: str) -> None:
        self.diary.append(f"{self.now():.3f} {what}")

    async def watch_for_stalls(self) -> None:
        """One event loop carries all processes of the model, so one that is blocked stops every renewal."""
        before = self.now()
        while True:
            await asyncio.sleep(BEAT)
            now = self.now()
            if now - before > CLAIM_MIN_IDLE_MS / 2000:
                self.stalls.append((before, now))
                self.note(f"the event loop was blocked for {now - before:.3f} s")
            before = now

    def report(self) -> str:
        return "\n".join(["what happened:", *self.diary, "what handlers did:", *map(str, self.runs)])


class Listener(logging.Handler):
    """Keeps from the library's log what it reports as lost."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        message, entry_id = record.getMessage(), getattr(record, "entry_id", "")
        self._world.note(f"log: {message} {entry_id} ({getattr(record, 'consumer', '')})")
        if message.endswith(": lost"):
            self._world.reported_lost.add(entry_id)
        self._world.reported_lost.update(getattr(record, "lost", ()))


@contextmanager
def listening(world: World) -> Iterator[None]:
    """The library's log goes into the diary, and nowhere else: failures are what it is full of here."""
    logger, listener = logging.getLogger("rapids"), Listener(world)
    propagated, logger.propagate = logger.propagate, False
    logger.addHandler(listener)
    try:
        yield
    finally:
        logger.removeHandler(listener)
        logger.propagate = propagated
