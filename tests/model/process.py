"""A consumer that can be killed as `kill -9` kills a process, without being one.

What others see of a killed process is that from one moment on nothing comes from it: no command, no effect of a
handler, and its connections close. So a process here has a client whose connections can be cut, first of all; then
they are closed, as the kernel would do, and every task it had made, or those had made, is cancelled until it is gone
(a task factory records which process owns a task). What its `finally` blocks do during that time reaches nobody.
Commands already sent are carried out by the server, and answers it did not read are lost: so they are when a process
is killed.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any
from weakref import WeakSet

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.exceptions import ConnectionError as RedisConnectionError

from rapids import EventRouter, current_delivery
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError, RetryAfter
from tests.model.events import (
    CLAIM_MIN_IDLE_MS,
    DLQ,
    LETTERS,
    MAX_DELIVERIES,
    STREAM,
    Deed,
    MoNote,
    MoTask,
    deed_of,
)
from tests.model.world import Run, World
from tests.support import eventually

OWNER: contextvars.ContextVar[Process | None] = contextvars.ContextVar("owner", default=None)
SLOW = 2.5 * CLAIM_MIN_IDLE_MS / 1000
"""Seconds: a lease must be renewed several times to last as long."""


class Cut:
    """A connection that carries nothing any more once its process is dead."""

    process: Process

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.process.connections.add(self)

    async def connect(self, *args: Any, **options: Any) -> None:
        self._check()
        await super().connect(*args, **options)  # type: ignore[misc]

    async def send_packed_command(self, *args: Any, **options: Any) -> None:
        self._check()
        await super().send_packed_command(*args, **options)  # type: ignore[misc]

    def _check(self) -> None:
        if self.process.dead:
            raise RedisConnectionError("killed")


def tag_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Let every task be known to the process it belongs to."""

    def make(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **options)
        context = options.get("context")
        owner = OWNER.get() if context is None else context.get(OWNER)
        if owner is not None:
            owner.tasks.add(task)
        return task

    loop.set_task_factory(make)  # type: ignore[arg-type]


class Process:
    """One router of a group, with a client of its own."""

    numbers = count(1)

    def __init__(self, world: World, url: str, group: str, name: str, on_death: Callable[[Process], None]) -> None:
        self.number = next(self.numbers)
        self.group, self.name, self.dead = group, name, False
        self.connections: set[Any] = set()
        self.tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._world = world
        self._on_death = on_death
        self._client = self._cuttable(url)
        self.router = self._router()
        self._main: asyncio.Task[None] | None = None

    def _cuttable(self, url: str) -> Redis:
        base = ConnectionPool.from_url(url)
        kind: type[AbstractConnection] = type("CutConnection", (Cut, base.connection_class), {"process": self})
        return Redis(connection_pool=ConnectionPool(connection_class=kind, **base.connection_kwargs))

    def _router(self) -> EventRouter:
        router = EventRouter(
            self._client,
            stream=STREAM,
            group=self.group,
            consumer=self.name,
            batch_size=3,
            block_ms=50,
            claim_interval=3,
            claim_min_idle_ms=CLAIM_MIN_IDLE_MS,
            max_deliveries=MAX_DELIVERIES,
            redelivery_backoff=constant(0.02),
            default_backoff=constant(0.001),
            shutdown_timeout=0.3,
            dlq_stream=DLQ if self.group == LETTERS else None,
        )
        router.on(MoTask, name="first")(self._handle)
        router.on(MoTask | MoNote, name="second", retries=1)(self._handle)
        router.on("mo.t*", name="third")(self._handle)
        return router

    # --- life -------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        context = contextvars.copy_context()
        context.run(OWNER.set, self)
        self._main = asyncio.get_running_loop().create_task(self.router.start(), context=context)
        self.tasks.add(self._main)
        await eventually(lambda: self.router.running or self._main is None or self._main.done())
        if self._main.done():
            await self._main

    async def stop(self) -> None:
        """Stop gracefully."""
        await asyncio.wait_for(self.router.stop(), 30)
        if self._main is not None:
            await asyncio.wait_for(self._main, 30)
        await self._client.aclose()

    def cut(self) -> None:
        """The moment of death."""
        self.dead = True
        self._on_death(self)

    async def bury(self) -> None:
        """Close and cancel what the dead process leaves; returns once nothing of it is left."""
        for connection in list(self.connections):
            await connection.disconnect(nowait=True)
        for _ in range(200):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                break
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=0.02)
        assert all(task.done() for task in self.tasks), "tasks of a killed process do not end"
        for task in self.tasks:
            task.cancelled() or task.exception()  # so that asyncio does not miss that somebody looks
        await self._client.aclose()

    # --- handlers ---------------------------------------------------------------------------------------------------

    async def _handle(self, event: Any) -> None:
        if self.dead:
            await asyncio.Event().wait()  # a dead process begins nothing
        run = self._begin(event)
        deed = deed_of(event.script, run.handler, run.delivery)
        try:
            await self._do(deed)
        except asyncio.CancelledError:
            self._end(run, "interrupted")
            raise
        except Exception:
            self._end(run, "failed")
            raise
        self._end(run, "done")
        if deed == "die_after":
            await self._die()

    def _begin(self, event: MoTask | MoNote) -> Run:
        delivery = current_delivery()
        assert delivery is not None
        run = Run(
            *(self.group, delivery.stream, delivery.entry_id, delivery.handler, self.number, delivery.consumer),
            *(delivery.deliveries, delivery.replay_of or "", event.number, self._world.now()),
        )
        self._world.runs.append(run)
        return run

    def _end(self, run: Run, result: Any) -> None:
        if not self.dead:  # what a killed process was at has no end
            run.result, run.ended = result, self._world.now()

    async def _do(self, deed: Deed) -> None:
        match deed:
            case "succeed" | "die_after":
                await asyncio.sleep(0)
            case "fail":
                raise RuntimeError("as requested")
            case "retry_after":
                raise RetryAfter(0.05)
            case "refuse":
                raise NonRetryableError("as requested")
            case "slow":
                await asyncio.sleep(SLOW)
            case "hang":
                await self._world.draining.wait()
            case "crash":
                await self._die()

    async def _die(self) -> None:
        self._world.note(f"p{self.number} is killed by what it handles")
        self.cut()
        await asyncio.Event().wait()
