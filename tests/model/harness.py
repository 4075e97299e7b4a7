"""Everything a run of the model needs around the routers: the loop, the server, and hands to do mischief with."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import redis as redis_sync
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids import DeadLetterQueue, EventEmitter
from rapids._storage.keys import PARKED, WAITING, Source
from rapids._wire.encoding import encode
from rapids.dead_letters import DeadLetter, Scope
from rapids.exceptions import LetterStateError
from tests.model.events import DLQ, HANDLERS, KINDS, STREAM, MoIgnored, MoNote, MoTask, Script
from tests.model.process import Process, tag_tasks
from tests.model.world import Destroyed, Gone, Trimmed, World, listening, order
from tests.support import eventually
from tests.worker.helpers import as_text

T = TypeVar("T")

NAMES = ("ada", "bob", "cleo", "dora")
MOST_PROCESSES = 4
SHORT_WAIT = 0.15
DRAIN_TIME = 20.0
DRAIN_ROUNDS = 5


class Harness:
    """One run: `world` says what happened, the methods make it happen."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.world = World()
        self.processes: list[Process] = []
        self.groups: list[str] = []
        self.discarded: list[str] = []
        self._numbers = 0
        self._burials: set[asyncio.Task[None]] = set()
        self._everyone: list[Process] = []
        self._listening = listening(self.world)
        self._listening.__enter__()
        self._runner = asyncio.Runner()
        tag_tasks(self._runner.get_loop())
        self._sync = redis_sync.Redis.from_url(url, single_connection_client=True)
        self._sync.flushall()
        self.run(self._open())

    async def _open(self) -> None:
        self.redis = Redis.from_url(self._url, single_connection_client=True)
        self._client = Redis.from_url(self._url)
        self._emitter = EventEmitter(self._client, stream=STREAM, maxlen=None)
        self._queue = DeadLetterQueue(self._client, DLQ)
        self._watch = asyncio.create_task(self.world.watch_for_stalls())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(coroutine)

    def close(self) -> None:
        """Leave nothing, even after a failure."""
        try:
            self.run(self._close())
        finally:
            self._runner.close()
            self._sync.close()
            self._listening.__exit__(None, None, None)

    async def _close(self) -> None:
        for process in list(self.processes):
            process.cut()
        await asyncio.gather(*self._burials)
        self._watch.cancel()
        await asyncio.wait([self._watch])
        await self.redis.aclose()
        await self._client.aclose()

    # --- events -----------------------------------------------------------------------------------------------------

    async def emit(self, given: Sequence[tuple[int, Script]]) -> None:
        """Events of these kinds, in one go; a kind there is none of stands for an entry that cannot be read."""
        events: list[MoTask | MoNote | MoIgnored] = []
        for kind, script in given:
            if kind < len(KINDS):
                self._numbers += 1
                events.append(KINDS[kind](number=self._numbers, script=script))
            else:
                await self._append_unreadable()
        for event, entry_id in zip(events, await self._emitter.emit(events), strict=True):
            self.world.note(f"emitted {entry_id} {event.event_type} no. {event.number} {event.script}")
            self._owe(entry_id, HANDLERS[event.event_type])

    async def _append_unreadable(self) -> None:
        flat = encode(MoTask(number=0, script={}), correlation_id=None, causation_id=None)
        flat[flat.index(b"data") + 1] = b'{"number": "none"}'
        entry_id = as_text(await self.redis.execute_command("XADD", STREAM, "*", *flat))
        self.world.note(f"appended {entry_id}, which no handler can be given")
        self._owe(entry_id, ("",))

    def _owe(self, entry_id: str, handlers: tuple[str, ...]) -> None:
        self.world.appended[entry_id] = (self.world.now(), handlers)

    # --- processes --------------------------------------------------------------------------------------------------

    async def start(self, group: str, *, new_name: bool = False) -> None:
        """A process of the group, under the first free name, which may be a dead one's, or under one never used."""
        if len(self.processes) >= MOST_PROCESSES:
            return
        taken = {process.name for process in self.processes if process.group == group}
        name = f"new-{len(self._everyone)}" if new_name else next(name for name in NAMES if name not in taken)
        await self.redis.delete(Source(STREAM, group).consumer(name))  # as if a dead one's hold on it had expired
        process = Process(self.world, self._url, group, name, self._died)
        self.world.note(f"p{process.number} starts as {name} of {group}")
        self.processes.append(process)
        self._everyone.append(process)
        if group not in self.groups:
            self.groups.append(group)
        await process.start()

    def _died(self, process: Process) -> None:
        """Called at the very moment: what it has pending now is what its end may have repeated."""
        source = Source(STREAM, process.group)
        pending = [
            (stream, as_text(row["message_id"]), row["times_delivered"])
            for stream in (source.stream, source.replays().stream)
            for row in self._pending(stream, process.group, process.name)
        ]
        known = {as_text(row["message_id"]) for row in self._pending(STREAM, process.group, None)}
        for destroyed in self.world.destroyed:
            if destroyed.group == process.group:
                destroyed.dies(process.name, known)
        self.world.killed.append(Gone(self.world.now(), process.number, process.group, frozenset(pending)))
        self.world.note(f"p{process.number} is dead, having pending {[entry for _, entry, _ in pending]}")
        self.processes.remove(process)
        burial = asyncio.create_task(process.bury(), context=_nobody())
        self._burials.add(burial)

    def _pending(self, stream: str, group: str, name: str | None) -> list[dict[str, Any]]:
        try:
            return self._sync.xpending_range(stream, group, "-", "+", 1_000, name)
        except redis_sync.ResponseError:
            return []  # the group is destroyed

    async def kill(self, which: int) -> None:
        if not self.processes:
            return
        process = self.processes[which % len(self.processes)]
        self.world.note(f"p{process.number} is killed")
        process.cut()
        await asyncio.sleep(0)

    async def stop(self, which: int) -> None:
        if not self.processes:
            return
        process = self.processes[which % len(self.processes)]
        self.processes.remove(process)
        began = self.world.now()
        self.world.note(f"p{process.number} is to stop")
        await process.stop()
        self.world.stops.append((process.group, began, self.world.now()))
        self.world.note(f"p{process.number} has stopped")

    async def wait(self, runs: int) -> None:
        """Until so many more handlers have begun, or for a moment if they do not."""
        wanted = len(self.world.runs) + runs
        deadline = self.world.now() + SHORT_WAIT
        await eventually(lambda: len(self.world.runs) >= wanted or self.world.now() > deadline)

    # --- mischief ---------------------------------------------------------------------------------------------------

    async def trim(self, keep: int) -> None:
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.xrange(STREAM).xinfo_groups(STREAM).xtrim(STREAM, maxlen=keep, approximate=False).xrange(STREAM)
            before, groups, _, after = await pipe.execute()
        gone = frozenset(as_text(row[0]) for row in before) - {as_text(row[0]) for row in after}
        given = {as_text(row["name"]): as_text(row["last-delivered-id"]) for row in groups}
        self.world.trimmed.append(
            Trimmed(
                gone,
                {group: frozenset(e for e in gone if order(e) <= order(last)) for group, last in given.items()},
                self.world.now(),
            )
        )
        self.world.note(f"trimmed {sorted(gone)}")

    async def destroy(self, group: str) -> None:
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.xpending_range(STREAM, group, "-", "+", 1_000).xinfo_stream(STREAM).xgroup_destroy(STREAM, group)
            pending, info, _ = await pipe.execute(raise_on_error=False)
        if isinstance(pending, Exception):
            return  # it is gone already, and no process lives to recreate it
        held: dict[str, set[str]] = {process.name: set() for process in self.processes if process.group == group}
        forgotten: set[str] = set()
        for row in pending:
            consumer = as_text(row["consumer"])
            if consumer.encode() not in (WAITING, PARKED):  # those are recorded in other keys, so not forgotten
                held.get(consumer, forgotten).add(as_text(row["message_id"]))
        last_id = as_text(info["last-generated-id"])
        self.world.destroyed.append(Destroyed(self.world.now(), group, last_id, held, forgotten))
        self.world.note(f"destroyed {group} up to {last_id}; held: {held}, known to none: {sorted(forgotten)}")

    async def flush_scripts(self) -> None:
        self.world.note("SCRIPT FLUSH")
        await self.redis.script_flush()

    async def cut_connections(self, which: int | None) -> None:
        """CLIENT KILL of one connection, or of all but this one."""
        own = await self.redis.client_id()
        others = [row["id"] for row in await self.redis.client_list() if int(row["id"]) != own]
        sync = self._sync.client_id()
        others = sorted(int(number) for number in others if int(number) != sync)
        chosen = others if which is None or not others else [others[which % len(others)]]
        for number in chosen:
            await self.redis.client_kill_filter(_id=str(number))
        self.world.interrupted.append(self.world.now())
        self.world.note(f"CLIENT KILL of {len(chosen)} connections")

    # --- dead letters -----------------------------------------------------------------------------------------------

    async def replay(self, which: int, scope: Scope) -> None:
        letter = await self._letter(which)
        if letter is None:
            return
        handlers = HANDLERS[letter.event_type] if letter.handler else ("",)
        replay = await self._queue.replay(letter.id, scope=scope)
        self.world.note(f"replayed letter {letter.id} of {letter.handler!r} to {scope}: {replay.entry_id}")
        if scope == "everyone":
            self._owe(replay.entry_id, handlers)
        else:
            owed = (letter.handler,) if scope == "handler" else handlers
            self.world.replays[replay.entry_id] = (letter.group, letter.id, owed)

    async def _letter(self, which: int) -> DeadLetter | None:
        """One of the dead letters. If there are none, some are made, if a process lives to write them."""
        if not (await self._queue.list()).items:
            await self.emit([(0, {name: ["refuse", "fail", "succeed"] for name in HANDLERS["mo.task"]})])
        deadline = self.world.now() + SHORT_WAIT
        while not (letters := (await self._queue.list()).items) and self.world.now() < deadline:
            await asyncio.sleep(0.01)
        return letters[which % len(letters)] if letters else None

    async def discard(self, which: int) -> None:
        letter = await self._letter(which)
        if letter is not None:
            await self._queue.discard(letter.id)
            self.discarded.append(letter.id)
            self.world.note(f"discarded letter {letter.id}")

    async def restore(self, which: int) -> None:
        if self.discarded:
            letter_id = self.discarded.pop(which % len(self.discarded))
            await self._queue.restore(letter_id)
            self.world.note(f"restored letter {letter_id}")
            try:
                await self._queue.restore(letter_id)
            except LetterStateError:
                return
            raise AssertionError("a letter was restored twice")

    # --- the end ----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Let everything come to its end, as a supervisor would: a process that died is started again.

        What a process still had to settle is not pending for a group that was recreated since, so nothing may be left
        after all have stopped either.
        """
        self.world.note("draining")
        self.world.draining.set()
        for _ in range(DRAIN_ROUNDS):
            await eventually(self._drained, DRAIN_TIME, interval=0.02)
            while self.processes:
                await self.stop(0)
            if all(await self._states()):
                break
        await asyncio.gather(*self._burials)
        left = [task for process in self._everyone for task in process.tasks if not task.done()]
        assert left == [], f"tasks are left: {left}"

    async def _drained(self) -> bool:
        for group in self.groups:  # two: only then could one take what the other is still at
            alive = sum(process.group == group for process in self.processes)
            for number in range(alive, 2):
                await self.start(group, new_name=number == 0)
        return all(await self._states()) or _not_yet(self._look())

    async def _states(self) -> list[bool]:
        return [await self._state(source) for group in self.groups for source in _sources(group)]

    async def _state(self, source: Source) -> bool:
        """Whether the group was given everything there is, and only parked entries are pending."""
        try:
            groups = {as_text(row["name"]): row for row in await self.redis.xinfo_groups(source.stream)}
            consumers = await self.redis.xinfo_consumers(source.stream, source.group)
        except ResponseError:
            return False  # destroyed, and not made again yet
        newest = await self.redis.xrevrange(source.stream, count=1)  # a trimmed one is never delivered
        last = as_text(newest[0][0]) if newest else "0-0"
        parked = sum(row["pending"] for row in consumers if as_text(row["name"]).encode() == PARKED)
        group = groups.get(source.group)
        if group is None:
            return False  # destroyed between the one question and the other
        return order(as_text(group["last-delivered-id"])) >= order(last) and group["pending"] == parked

    def _look(self) -> dict[str, Any]:
        """What is pending, for the message."""
        sources = [source for group in self.groups for source in _sources(group)]
        return {f"{one.group} {one.stream}": self._pending(one.stream, one.group, None) for one in sources}


def _not_yet(why: object) -> bool:
    raise AssertionError(f"not drained: {why}")


def _sources(group: str) -> tuple[Source, Source]:
    main = Source(STREAM, group)
    return main, main.replays()


def _nobody() -> contextvars.Context:
    """A context whose tasks belong to no process."""
    return contextvars.Context()
