"""`tracked`: a block in which everything that a test sets off is tracked, in async tests and in plain ones."""

import asyncio
import os
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from traceback import walk_tb
from types import TracebackType
from typing import Any, cast

from anyio.from_thread import BlockingPortal, start_blocking_portal
from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster

from rapids.background import check_routers, routers_running
from rapids.clients import RedisClient, check_client, check_url, open_client
from rapids.dead_letters import DeadLetter
from rapids.emitter import EventEmitter
from rapids.events import Event
from rapids.exceptions import NotConfiguredError
from rapids.router import EventRouter
from rapids.testing.records import EventRecord
from rapids.testing.repetition import Probe, Repetition, check_probe, repetition
from rapids.testing.tracked_work import ParkedEntry, Tracked

__all__ = ["FIXTURE_VARIABLE", "TrackedBlock", "TrackedInThread", "tracked"]

FIXTURE_VARIABLE = "PYTEST_RAPIDS_URL"
"""Where the fixture `rapids_environment` leaves its address: `RAPIDS_REDIS_URL` may name a server in production."""

APP_STATE = "rapids_plugin"
"""Where an application keeps the `Rapids` that it runs, in `app.state`."""


@dataclass(frozen=True, slots=True)
class _Target:
    """What is tracked: the routers and emitters of an application, or those that were given."""

    routers: tuple[EventRouter, ...]
    emitters: tuple[EventEmitter, ...]
    redis: RedisClient | None = None
    is_app: bool = False
    """Whether an application runs them, in its own event loop."""


class TrackedInThread(EventRecord):
    """A `Tracked` for plain tests: its methods block. It works in a thread with an event loop of its own."""

    def __init__(self, portal: BlockingPortal, work: Tracked) -> None:
        self._portal = portal
        self._work = work

    @property
    def events(self) -> tuple[Event, ...]:
        """See `Tracked.events`."""
        __tracebackhide__ = True
        return self._work.events

    @property
    def dead_letters(self) -> tuple[DeadLetter, ...]:
        """See `Tracked.dead_letters`."""
        __tracebackhide__ = True
        return self._work.dead_letters

    @property
    def parked(self) -> tuple[ParkedEntry, ...]:
        """See `Tracked.parked`."""
        __tracebackhide__ = True
        return self._work.parked

    def emit(self, event: Event, *, stream: str | None = None) -> str:
        """See `Tracked.emit`."""

        async def emit() -> str:
            return await self._work.emit(event, stream=stream)

        return self._portal.call(emit)

    def settled(self, *, timeout: float | None = None) -> None:
        """See `Tracked.settled`. Blocks."""
        __tracebackhide__ = True

        async def settled() -> None:
            await self._work.settled(timeout=timeout)

        try:
            self._portal.call(settled)
        except AssertionError as error:
            *_, (innermost, _) = walk_tb(error.__traceback__)
            if "__tracebackhide__" not in innermost.f_locals:  # it was raised by the probe of the test
                raise
            raise error.with_traceback(None) from None

    def all_handled(self) -> None:
        """See `Tracked.all_handled`."""
        __tracebackhide__ = True
        self._work.all_handled()

    def __str__(self) -> str:
        return str(self._work)


class TrackedBlock(AbstractContextManager[TrackedInThread]):
    """What `tracked` returns: for `async with` in async tests, and for `with` in plain ones."""

    def __init__(
        self,
        target: object,
        emitters: Sequence[EventEmitter],
        redis: RedisClient | str | None,
        *,
        dead_letters: bool,
        timeout: float,
        fast_forward: float,
        probe: Probe | None,
    ) -> None:
        self._how: Repetition = repetition.get()
        self._probe = probe
        self._dead_letters = dead_letters
        self._target = target
        self._emitters = tuple(emitters)
        self._redis = redis
        self._timeout = timeout
        self._fast_forward = fast_forward
        self._async_stack: AsyncExitStack | None = None
        self._stack: ExitStack | None = None

    async def __aenter__(self) -> Tracked:
        self._async_stack = AsyncExitStack()
        return await self._async_stack.enter_async_context(self._open())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (stack := self._async_stack) is not None:
            await stack.__aexit__(kind, error, trace)

    def __enter__(self) -> TrackedInThread:
        self._stack = ExitStack()
        return self._stack.enter_context(self._open_in_thread())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (stack := self._stack) is not None:
            stack.__exit__(kind, error, trace)

    @contextmanager
    def _open_in_thread(self) -> Generator[TrackedInThread]:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("in an async test, write `async with tracked(...)`")
        with start_blocking_portal() as portal, portal.wrap_async_context_manager(self._open()) as work:
            yield TrackedInThread(portal, work)

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Tracked]:
        target = _target(self._target, self._emitters)
        async with AsyncExitStack() as stack:
            redis = await stack.enter_async_context(_client(self._redis, target))
            for emitter in self._emitters if target.is_app else target.emitters:
                emitter.configure(redis)
                stack.push_async_callback(emitter.drain)
            idle = () if target.is_app else tuple(router for router in target.routers if not router.running)
            if self._dead_letters:
                for router in idle:
                    router.use_default_dlq()
            work = Tracked(
                redis,
                target.routers,
                [emitter.stream for emitter in target.emitters],
                timeout=self._timeout,
                fast_forward=self._fast_forward,
                how=self._how,
                probe=self._probe,
            )
            await work.begin()
            await stack.enter_async_context(routers_running(idle, redis))
            yield work


def tracked(
    target: object,
    *,
    emitters: Sequence[EventEmitter] = (),
    redis: RedisClient | str | None = None,
    dead_letters: bool = True,
    timeout: float = 30.0,
    fast_forward: float = 86_400.0,
    probe: Probe | None = None,
) -> TrackedBlock:
    """Track everything that is emitted in a block, and what it sets off, on real streams.

        async with tracked(app) as t:                       # in a plain test: with tracked(app) as t:
            await client.post("/orders", json=order)
            await t.settled()                               # in a plain test: t.settled()
            t.only(OrderPaid, order_id="o-1")
            t.all_handled()

    `target`: an application that runs a `Rapids`, that `Rapids`, a router, or a list of routers. Routers that do not
    run yet are run during the block. `emitters`: emitters of yours that have no client; they get one. Their streams are
    tracked, too. `redis`: a client, or an address, such as that of the fixture `rapids_url`; by default what the
    application uses, or the server of the fixture `rapids_environment`, but never what the shell has in
    `RAPIDS_REDIS_URL`. `dead_letters`: whether a router that is run for the block gets the default dead-letter stream
    if it has none; else it parks entries. `timeout` (seconds): how long `settled()` waits. `fast_forward` (seconds): by
    how much the waits of one entry between deliveries are shortened in total. `probe`: for `--rapids-twice` and
    `--rapids-crash`, a function, plain or async, that gives the state which a second delivery must not change.

    Everything that any emitter appends to these streams while the block is open is tracked, so let no other test use
    them at the same time. Raises `ValueError` or `TypeError` for an option that makes no sense, and, when the block is
    entered, `NotConfiguredError` if the application does not run or no Redis is known.
    """
    if not isinstance(dead_letters, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"dead_letters must be True or False, not {dead_letters!r}")
    for name, value in (("timeout", timeout), ("fast_forward", fast_forward)):
        if isinstance(value, bool) or not isinstance(value, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            raise TypeError(f"{name} must be a number of seconds from 0, not {value!r}")
        if not value >= 0:
            raise ValueError(f"{name} must be a number of seconds from 0, not {value!r}")
    check_probe(probe)
    if isinstance(redis, str):
        check_url("redis", redis)
    elif redis is not None:
        check_client(redis)
    return TrackedBlock(
        target,
        emitters,
        redis,
        dead_letters=dead_letters,
        timeout=timeout,
        fast_forward=fast_forward,
        probe=probe,
    )


def _target(target: Any, emitters: tuple[EventEmitter, ...]) -> _Target:
    """The routers and emitters of what was given. An application is known by what it has, so that FastAPI is not
    needed."""
    if isinstance(target, EventRouter | list | tuple):
        given = (target,) if isinstance(target, EventRouter) else cast("Sequence[EventRouter]", target)
        routers = check_routers(given)
        own = (router.emitter for router in routers if not router.running)  # of a `Rapids` that does not run
        return _Target(routers, (*emitters, *(one for one in own if isinstance(one, EventEmitter))))
    plugin = getattr(getattr(target, "state", None), APP_STATE, None) or target
    routers, emitter = getattr(plugin, "routers", None), getattr(plugin, "emitter", None)
    if isinstance(routers, tuple) and isinstance(emitter, EventEmitter):
        return _Target(cast("tuple[EventRouter, ...]", routers), (emitter, *emitters), plugin.redis, is_app=True)
    if hasattr(target, "state"):
        raise NotConfiguredError(
            "the application does not run a Rapids now, so nothing can be tracked: enter its lifespan first, with "
            "`with TestClient(app):` or `async with LifespanManager(app):`"
        )
    raise TypeError(f"target must be an application, a Rapids, a router or a list of routers, not {target!r}")


@asynccontextmanager
async def _client(given: RedisClient | str | None, target: _Target) -> AsyncGenerator[RedisClient]:
    """A client for this event loop: the given one, or another with the same settings, closed after the block."""
    if given is not None and not isinstance(given, str):
        yield given
        return
    url = given or ("" if target.redis is not None else os.environ.get(FIXTURE_VARIABLE, ""))
    if url:
        async with open_client(url) as client:
            yield client
        return
    if target.redis is None:
        raise NotConfiguredError(
            "tracked() does not know which Redis to use: give tracked(..., redis=rapids_url), or use the fixture "
            "rapids_environment. It does not use RAPIDS_REDIS_URL, which may be the address of a server in production"
        )
    async with _client_like(target.redis) as client:
        yield client


def _client_like(client: RedisClient) -> Redis:
    """Another client with the same settings: that of the application may belong to another event loop."""
    pool: Any = None if isinstance(client, RedisCluster) else client.connection_pool
    if type(pool) not in (ConnectionPool, BlockingConnectionPool):
        raise NotConfiguredError(
            "tracked() cannot make a client like that of the application, which is for Sentinel or a Cluster: give "
            "tracked(..., redis=...) its address"
        )
    return Redis.from_pool(ConnectionPool(connection_class=pool.connection_class, **pool.connection_kwargs))
