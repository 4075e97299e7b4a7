"""One run: starts everything, lets the faults strike, drains, and gathers the evidence."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.chaos import records
from tests.chaos.clients import opened
from tests.chaos.evidence import Evidence, read_stored, read_unsettled
from tests.chaos.faults import Fault, Interruption
from tests.chaos.fleets import ClusterServers, Fleet, SentinelServers
from tests.chaos.kinds import draw
from tests.chaos.processes import Slot, processes
from tests.chaos.server import Server
from tests.chaos.settings import DLQ, EVERY, STOP_PATIENCE, STREAM, Options

EMITTER_STOP_PATIENCE = 20.0
ASK_PATIENCE = 30.0
NUMBERS_EACH = 100_000
"""Event numbers set aside for one emitter process."""


class Run:
    """The scene faults strike in."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options = options
        self._folder = folder
        self._began = time.monotonic()
        self.servers = servers_of(options.topology, folder)
        self.server_free = asyncio.Lock()
        self.workers = [
            Slot(
                f"worker {number}",
                folder / f"worker-slot-{number}.out",
                self._command_of_workers(number) if number % EVERY == 1 else self._worker_command,
                {"CHAOS_FOLDER": str(folder), "CHAOS_DLQ": DLQ},
            )
            for number in range(options.workers)
        ]
        self.emitters = [
            Slot(f"emitter {number}", folder / f"emitter-slot-{number}.out", self._emitter_command(number))
            for number in range(options.emitters)
        ]
        self._struck = Counter[str]()
        self._interruptions: list[Interruption] = []
        self._hanging: list[str] = []

    @property
    def server(self) -> Server:
        assert isinstance(self.servers, Server), "there are several servers"
        return self.servers

    @property
    def fleet(self) -> Fleet:
        assert not isinstance(self.servers, Server), "there is one server"
        return self.servers

    async def ask(self, *command: str | int) -> object:
        """Send the server a command; its connection may be among those that are killed."""
        async with asyncio.timeout(ASK_PATIENCE), Redis.from_url(self.server.url) as client:
            try:
                return await client.execute_command(*command, NEVER_DECODE=True)
            except RedisError:
                return None

    async def carry_out(self) -> Evidence:
        chosen = self._options
        self.say(f"{chosen.topology}, seed {chosen.seed}, {chosen.seconds:g} s, {chosen.workers} workers")
        await self.servers.start()
        self._began = time.monotonic()
        async with _kept_running(self.workers) as workers:
            async with _kept_running(self.emitters) as emitters:
                await self._stored(1)
                self._began = time.monotonic()
                await self._strike_all(draw(self._options))
                await self._stored(chosen.least_events)
                self.say("no more faults, no more events")
                await self._close(self.emitters, emitters, EMITTER_STOP_PATIENCE)
            drain_seconds = await self._drain()
            self.say(f"drained for {drain_seconds:.1f} s")
            await self._close(self.workers, workers, STOP_PATIENCE)
        return await self._gather(drain_seconds)

    def say(self, text: str) -> None:
        if not self._options.quiet:
            print(f"{time.monotonic() - self._began:7.1f} s  {text}", flush=True)

    async def _strike_all(self, faults: Sequence[Fault]) -> None:
        async with asyncio.TaskGroup() as striking:
            for fault in faults:
                await self._until(fault.at)
                striking.create_task(self._strike(fault))
            await self._until(self._options.seconds)

    async def _until(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, self._began + seconds - time.monotonic()))

    async def _stored(self, events: int) -> None:
        """Wait until the stream has so many events."""
        while True:
            with suppress(RedisError):
                async with opened(self.servers.url) as client:
                    if await client.xlen(STREAM) >= events:
                        return
            await asyncio.sleep(0.1)

    async def _strike(self, fault: Fault) -> None:
        name = type(fault).__name__
        details = ", ".join(f"{one.name}={getattr(fault, one.name)}" for one in fields(fault) if one.name != "at")  # type: ignore[arg-type]
        self.say(f"{name}({details})")
        interruption = await fault.strike(self)
        if interruption is None:
            self.say(f"{name}({details}) struck nothing")
            return
        if interruption.pid is None:
            began, ended = interruption.start - self._began, interruption.end - self._began
            self.say(f"{interruption.kind} from {began:.1f} to {ended:.1f} s")
        self._interruptions.append(interruption)
        self._struck[interruption.kind] += 1

    async def _drain(self) -> float:
        """Wait until everything is settled, or nothing changes any more: the seconds it took."""
        began = changed_at = time.monotonic()
        before: object = None
        while time.monotonic() - changed_at < self._options.drain_seconds:
            async with opened(self.servers.url) as client:
                pending, undelivered = unsettled = await read_unsettled(client)
            if not pending and not undelivered:
                break
            if unsettled != before:
                before, changed_at = unsettled, time.monotonic()
            await asyncio.sleep(0.2)
        return time.monotonic() - began

    async def _close(self, slots: Sequence[Slot], running: Sequence[asyncio.Task[None]], patience: float) -> None:
        for slot in slots:
            slot.close()
        await asyncio.wait(running, timeout=patience)
        hanging = {slot.name for slot, task in zip(slots, running, strict=True) if not task.done()}
        # Children of a parent that was killed are nobody's: they stop by themselves.
        began, sessions = time.monotonic(), {pid for slot in slots for pid in slot.pids}
        while left := {session for _, _, session in processes()}.intersection(sessions):
            if time.monotonic() - began > patience:
                hanging |= {slot.name for slot in slots if left & set(slot.pids)}
                break
            await asyncio.sleep(0.05)
        self._hanging += sorted(hanging)

    async def _gather(self, drain_seconds: float) -> Evidence:
        async with opened(self.servers.url) as client:
            stored = await read_stored(client, DLQ)
        return Evidence(
            stored=stored,
            emits=records.read_emits(self._folder),
            executions=records.read_executions(self._folder),
            interruptions=self._interruptions,
            exits=[one for slot in (*self.workers, *self.emitters) for one in slot.exits],
            hanging=self._hanging,
            notes=records.read_notes(self._folder),
            seconds=time.monotonic() - self._began,
            drain_seconds=drain_seconds,
            faults=self._struck,
        )

    def _worker_command(self, _: int) -> list[str]:
        return ["tests.chaos.worker", self.servers.url, str(self._folder), DLQ]

    def _command_of_workers(self, number: int) -> Callable[[int], list[str]]:
        loop = ["--uvloop"] if number % 2 == 0 else []
        command = ["rapids.cli", "run", "tests.chaos.worker:make", "--url", self.servers.url, "--processes", "2", *loop]
        return lambda _: command

    def _emitter_command(self, emitter: int) -> Callable[[int], list[str]]:
        def command(started: int) -> list[str]:
            first = (started * self._options.emitters + emitter) * NUMBERS_EACH
            rate = self._options.rate / self._options.emitters
            words = (str(first), str(rate), str(self._options.replicas))
            return ["tests.chaos.emitter", self.servers.url, str(self._folder), *words]

        return command


def servers_of(topology: str, folder: Path) -> Server | Fleet:
    """The servers, not yet started."""
    match topology:
        case "sentinel":
            return SentinelServers()
        case "cluster":
            return ClusterServers()
        case _:
            return Server(folder)


@asynccontextmanager
async def _kept_running(slots: Sequence[Slot]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Afterwards none of their processes is left."""
    tasks = [asyncio.create_task(slot.run(), name=slot.name) for slot in slots]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def carry_out(options: Options) -> Evidence:
    """A run in a folder of its own, which is removed afterwards unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="rapids-chaos-"))
    run = Run(options, folder)
    try:
        return await run.carry_out()
    finally:
        await run.servers.close()
        if options.keep:
            run.say(f"kept {folder}")
        else:
            shutil.rmtree(folder)
