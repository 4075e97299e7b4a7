"""The background tasks of a process: its routers and operations, each restarted after a failure.

routers = check_routers([orders, payments])
async with open_client(url) as redis, routers_running(routers, redis):
    await stop.wait()
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

from rapids._core.redis_errors import is_refused, reason
from rapids.backoff import Backoff, exponential
from rapids.clients import RedisClient
from rapids.dead_letters import DeadLetterQueue
from rapids.exceptions import NotConfiguredError, RapidsError
from rapids.router import EventRouter

__all__ = [
    "OperationRunners",
    "SupervisedRouter",
    "check_lifespan",
    "check_routers",
    "dead_letter_queues",
    "lifespan_running",
    "lifespan_value",
    "operations_running",
    "routers_running",
]

RESTART_DELAY: Backoff = exponential(max_delay=30.0)

STABLE_AFTER = 60.0
"""Seconds. After a task ran for longer than this, its next failure counts as the first one."""

STAGGER, LONGEST_STAGGER = 0.02, 2.0
"""Seconds between the first looks into two queues, and at most to the last one: each runner looks from time to time,
and those of a hundred queues would do it at the same moment, on a hundred connections."""

STOP_TIMEOUT = 5.0
"""Seconds that operations get at shutdown to finish their current step. Then they are cancelled, and another process
continues them."""

NO_LIFESPAN = (
    "there is no lifespan whose value a handler could get: start the routers by rapids run --lifespan module:name, or "
    "in a block of rapids.background.lifespan_running(...); in tests, set router.dependency_overrides[lifespan_value]"
)

_logger = logging.getLogger("rapids")
_lifespan_value: ContextVar[Any] = ContextVar("rapids_lifespan_value")


@asynccontextmanager
async def lifespan_running(lifespan: Callable[[], AbstractAsyncContextManager[Any]]) -> AsyncGenerator[Any]:
    """Enter a lifespan, an async context manager that is called without arguments, as `rapids run --lifespan` does.

    Handlers of routers that start in the block get its value by `Depends(lifespan_value)`.
    """
    async with lifespan() as value:
        token = _lifespan_value.set(value)
        try:
            yield value
        finally:
            _lifespan_value.reset(token)


async def lifespan_value() -> Any:
    """What the lifespan yielded, for handlers: `pool: Annotated[Pool, Depends(lifespan_value)]`.

    Raises `NotConfiguredError` if there is no lifespan.
    """
    try:
        return _lifespan_value.get()
    except LookupError:
        raise NotConfiguredError(NO_LIFESPAN) from None


def check_lifespan(routers: Iterable[EventRouter]) -> None:
    """Raise `NotConfiguredError` if a handler depends on `lifespan_value`, and there is no lifespan."""
    try:
        _lifespan_value.get()
    except LookupError:
        for router in routers:
            for handler in router.handlers_that_call(lifespan_value):
                raise NotConfiguredError(
                    f"handler {handler!r} of group {router.group!r} on stream {router.stream!r} depends on "
                    f"lifespan_value, and {NO_LIFESPAN}"
                ) from None


def check_routers(routers: Sequence[EventRouter], names: Sequence[str] = ()) -> tuple[EventRouter, ...]:
    """The routers, if they can run in one process. `names`: what to call them in errors, by default `routers[0]` etc.

    Raises `TypeError` for anything but a list of routers, `ValueError` if one is in it twice, or if two read one stream
    as one group.
    """
    if isinstance(routers, EventRouter) or not isinstance(routers, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"routers must be a list of EventRouters, not {routers!r}")
    for router in routers:
        if not isinstance(router, EventRouter):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"routers must be a list of EventRouters, not one with {router!r}")
    if len({id(router) for router in routers}) != len(routers):
        raise ValueError("routers must name each router once; one is in the list twice")
    called = names or [f"routers[{at}]" for at in range(len(routers))]
    for at, router in enumerate(routers):
        for before, other in enumerate(routers[:at]):
            is_same = (router.stream, router.group) == (other.stream, other.group)
            if is_same and not (router.configured and other.configured):  # with clients, they may be of two servers
                handlers, others = (", ".join(one.handler_names) or "no handlers yet" for one in (router, other))
                raise ValueError(
                    f"{called[before]} and {called[at]} both read stream {router.stream!r} as group "
                    f"{router.group!r}, so each would acknowledge events that only the other has handlers for: "
                    f"register all handlers on one of them, or give each a group of its own. "
                    f"{called[before]} has {others}, {called[at]} has {handlers}"
                )
    return tuple(routers)


def dead_letter_queues(redis: RedisClient, routers: Iterable[EventRouter]) -> dict[str, DeadLetterQueue]:
    """The queues of the routers' dead-letter streams, by the name of the stream.

    A queue has the limit of the routers that write to it, of several the largest: a restored letter must not trim
    letters that a router keeps. A replay to everyone does not trim the event stream: only its emitters decide how long
    it is.
    """
    limits: dict[str, int | None] = {}
    for router in routers:
        if (name := router.dlq_stream) is not None:
            given, before = router.dlq_maxlen, limits.get(name, 0)
            limits[name] = None if given is None or before is None else max(given, before)
    return {name: DeadLetterQueue(redis, name, dlq_maxlen=limit, maxlen=None) for name, limit in limits.items()}


async def _restart_on_failure(
    what: str, body: Callable[[], Awaitable[None]], stopping: asyncio.Event, is_fatal: Callable[[], bool]
) -> None:
    """Run the body until it returns or `stopping` is set.

    Routers and operations retry by themselves while Redis is unavailable. Any other failure is logged, and the body is
    restarted. The delay grows with each failure. A failure is raised instead if `is_fatal()` is true.
    """
    failures = 0
    while not stopping.is_set():
        began = time.monotonic()
        try:
            await body()
        except Exception as error:
            if is_fatal():
                raise
            failures = 1 if time.monotonic() - began > STABLE_AFTER else failures + 1
            delay = RESTART_DELAY(failures)
            trace = None if is_refused(error) else error  # a wrong password has no place in the code
            _logger.error(
                "the %s failed, and will be restarted in %.1f s: %s", what, delay, reason(error), exc_info=trace
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await stopping.wait()
        else:
            break


class SupervisedRouter:
    """A router in a named task, restarted when it fails."""

    def __init__(self, router: EventRouter, redis: RedisClient) -> None:
        self.router = router
        self._redis = redis
        self._label = f"router of group {router.group!r} on stream {router.stream!r}"
        self._name = f"rapids-router:{router.group}@{router.stream}"
        self._stopping = asyncio.Event()
        self._has_started = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the router, and return when it reads its stream. Raises what `EventRouter.start` raises."""
        self._task = asyncio.create_task(
            _restart_on_failure(
                self._label, self._run, self._stopping, lambda: not self._has_started or self._stopping.is_set()
            ),
            name=self._name,
        )
        while not self._has_started:
            try:
                await self.router.wait_started()
                self._has_started = True
            except RapidsError:  # it has not begun to start, or its start failed; then its task has the error
                if self._task.done():
                    break
                await asyncio.sleep(0.01)
        if self._task.done():
            await self._task

    async def stop(self, timeout: float | None = None) -> None:
        """Stop the router gracefully, and wait for its task.

        After `timeout` seconds, or if this call is cancelled, its running handlers are cancelled and their entries
        released.
        """
        self._stopping.set()
        if self._task is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                try:
                    await self.router.stop()
                    await asyncio.wait({self._task})
                finally:
                    self._task.cancel()
                    await asyncio.wait({self._task})
        if not self._task.cancelled() and self._task.exception() is not None and self._has_started:
            _logger.error("the %s did not stop cleanly", self._label, exc_info=self._task.exception())

    async def _run(self) -> None:
        await self.router.start(None if self.router.configured else self._redis)
        if not self._stopping.is_set():
            _logger.warning("the %s was stopped by the application and stays stopped", self._label)


@asynccontextmanager
async def routers_running(
    routers: Sequence[EventRouter],
    redis: RedisClient,
    *,
    stop_timeout: float | None = None,
    after: Callable[[], Awaitable[None]] | None = None,
) -> AsyncGenerator[tuple[SupervisedRouter, ...]]:
    """Run the routers during the block. They start at the same time, and stop at the same time.

    `stop_timeout`: seconds that running handlers have at the end, where that is less than the `shutdown_timeout` of
    their router. Then they are cancelled, and their entries are released.
    `after`: if given, the block begins at once, and the routers start when this returns. If one does not start, that is
    logged then, and none of them runs.
    Raises what `check_lifespan` raises. If a router does not start, raises its error (of several, the first one), and
    stops the other routers.
    """
    check_lifespan(routers)
    running = tuple(SupervisedRouter(router, redis) for router in routers)

    async def start() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for router in running:
                    group.create_task(router.start())
        except ExceptionGroup as failures:
            # The log then has one short reason why the service does not start.
            raise failures.exceptions[0] from None

    async def stop() -> None:
        stops = (router.stop(timeout=stop_timeout) for router in running)
        for outcome in await asyncio.gather(*stops, return_exceptions=True):
            if isinstance(outcome, Exception):
                _logger.error("a router could not be stopped", exc_info=outcome)

    async def start_after(opened: Callable[[], Awaitable[None]]) -> None:
        try:
            await opened()
            await start()
        except Exception as error:
            _logger.critical("the routers do not start: %s", reason(error), exc_info=error)
            await stop()

    later = None if after is None else asyncio.create_task(start_after(after), name="rapids-routers-start")
    try:
        if later is None:
            await start()
        yield running
    finally:
        if later is not None:
            later.cancel()
            await asyncio.wait({later})
        await stop()


class OperationRunners:
    """Runs the operations of dead-letter queues, each queue's in a task of its own."""

    def __init__(self) -> None:
        self._runners: dict[DeadLetterQueue, tuple[asyncio.Event, asyncio.Task[None]]] = {}

    async def follow(self, queues: Iterable[DeadLetterQueue]) -> None:
        """Run the operations of these queues from now on, and no longer those of others."""
        wanted = dict.fromkeys(queues)
        for at, queue in enumerate(queue for queue in wanted if queue not in self._runners):
            stopping = asyncio.Event()
            body = _restart_on_failure(
                f"runner of operations on {queue.stream!r}",
                partial(_run_operations, queue, stopping, min(at * STAGGER, LONGEST_STAGGER)),
                stopping,
                lambda: False,
            )
            task = asyncio.create_task(body, name=f"rapids-operations:{queue.stream}")
            self._runners[queue] = stopping, task
        gone = {queue: runner for queue, runner in self._runners.items() if queue not in wanted}
        for stopping, _ in gone.values():
            stopping.set()
        if tasks := {task for _, task in gone.values()}:
            _, late = await asyncio.wait(tasks, timeout=STOP_TIMEOUT)
            for task in late:
                task.cancel()
            await asyncio.wait(tasks)
        for queue in gone:
            del self._runners[queue]


async def _run_operations(queue: DeadLetterQueue, stopping: asyncio.Event, pause: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(pause):
            await stopping.wait()
    await queue.operations.run(stopping)


@asynccontextmanager
async def operations_running(queues: Iterable[DeadLetterQueue]) -> AsyncGenerator[OperationRunners]:
    """Run the operations of these queues during the block. After it, other processes may continue them."""
    runners = OperationRunners()
    await runners.follow(queues)
    try:
        yield runners
    finally:
        await runners.follow(())
