"""What may go wrong: each kind of fault is one class, and a run's faults are drawn from its seed before it begins.

A further kind is one more class with `strike`, and one more line in `kinds`. Faults of fleets are in `fleet_faults`.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tests.chaos.fleets import Fleet
from tests.chaos.processes import Slot
from tests.chaos.server import Server


@dataclass(frozen=True, slots=True)
class Interruption:
    """When a fault kept a process (or, without one, every process) from its work. Times as `time.monotonic()`."""

    kind: str
    start: float
    end: float
    pid: int | None = None


class Scene(Protocol):
    """What faults may lay hands on."""

    @property
    def server(self) -> Server:
        """The one server, where there is one."""
        ...

    @property
    def fleet(self) -> Fleet:
        """The servers, where there are several."""
        ...

    @property
    def workers(self) -> Sequence[Slot]: ...
    @property
    def emitters(self) -> Sequence[Slot]: ...
    @property
    def server_free(self) -> asyncio.Lock:
        """Held while the server or all its clients are in trouble: one such trouble at a time."""
        ...

    async def ask(self, *command: str | int) -> object:
        """Send the server a command."""
        ...


class Fault(Protocol):
    @property
    def at(self) -> float:
        """Seconds after the start."""
        ...

    async def strike(self, scene: Scene) -> Interruption | None:
        """Do it; None if there was nothing to strike, for instance a worker that is dead already."""
        ...


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Of a worker with children, a child or the parent, whose children then stop by themselves."""

    at: float
    worker: int

    async def strike(self, scene: Scene) -> Interruption | None:
        slot = scene.workers[self.worker]
        child = slot.kill_child() if round(self.at * 100) % 2 else None
        return _once("worker killed", child or slot.kill())


@dataclass(frozen=True, slots=True)
class RestartWorker:
    """What a deployment does: it is asked to stop, releases what it holds, and another one follows."""

    at: float
    worker: int

    async def strike(self, scene: Scene) -> Interruption | None:
        return _once("worker asked to stop", scene.workers[self.worker].ask_to_stop())


@dataclass(frozen=True, slots=True)
class StopWorker:
    """SIGSTOP and, after the others have given it up, SIGCONT."""

    at: float
    worker: int
    seconds: float

    async def strike(self, scene: Scene) -> Interruption | None:
        if (process := scene.workers[self.worker].process) is None:
            return None
        begun = time.monotonic()
        process.send(signal.SIGSTOP)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            process.send(signal.SIGCONT)
        return Interruption("worker stopped", begun, time.monotonic(), process.pid)


@dataclass(frozen=True, slots=True)
class KillEmitter:
    at: float
    emitter: int

    async def strike(self, scene: Scene) -> Interruption | None:
        return _once("emitter killed", scene.emitters[self.emitter].kill())


@dataclass(frozen=True, slots=True)
class KillServer:
    at: float
    down_seconds: float

    async def strike(self, scene: Scene) -> Interruption | None:
        async with scene.server_free:
            begun = time.monotonic()
            await scene.server.kill()
            await asyncio.sleep(self.down_seconds)
            await scene.server.start()
        return Interruption("server killed", begun, time.monotonic())


@dataclass(frozen=True, slots=True)
class KillClients:
    """CLIENT KILL of a share of the connections; 1.0 for all of them. Again and again, as on a network that flaps: the
    connections that repair the loss of others are lost as well."""

    at: float
    share: float
    seed: int
    times: int = 1

    async def strike(self, scene: Scene) -> Interruption | None:
        rng = random.Random(self.seed)
        async with scene.server_free:
            begun = time.monotonic()
            for number in range(self.times):
                await asyncio.sleep(rng.uniform(0.0, 0.05) if number else 0)
                await self._kill(scene, rng)
        return Interruption("clients killed", begun, time.monotonic())

    async def _kill(self, scene: Scene, rng: random.Random) -> None:
        if self.share == 1.0:
            await scene.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no")
            return
        listed = await scene.ask("CLIENT", "LIST", "TYPE", "normal")
        lines = listed.splitlines() if isinstance(listed, bytes) else []
        ids = [line.split()[0].removeprefix(b"id=").decode() for line in lines if line]
        for one in rng.sample(ids, k=round(len(ids) * self.share)):
            await scene.ask("CLIENT", "KILL", "ID", one)


@dataclass(frozen=True, slots=True)
class PauseClients:
    """CLIENT PAUSE: `ALL` lets no command through, `WRITE` only those that read."""

    at: float
    seconds: float
    mode: str

    async def strike(self, scene: Scene) -> Interruption | None:
        async with scene.server_free:
            begun = time.monotonic()
            await scene.ask("CLIENT", "PAUSE", round(self.seconds * 1000), self.mode)
            await asyncio.sleep(self.seconds)
        return Interruption(f"clients paused ({self.mode})", begun, time.monotonic())


def _once(kind: str, pid: int | None) -> Interruption | None:
    now = time.monotonic()
    return None if pid is None else Interruption(kind, now, now, pid)
