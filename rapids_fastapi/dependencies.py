"""The emitter in endpoints: `EmitterDep` and `OnSuccessEmitterDep`, and the same for plain Starlette."""

import inspect
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from rapids import EventEmitter
from rapids.exceptions import NotConfiguredError
from rapids_fastapi.on_success import OnSuccessEmitter, collecting
from rapids_fastapi.state import Emitting, running

__all__ = ["EmitterDep", "OnSuccessEmitterDep", "emit_on_success", "get_emitter"]


def get_emitter(connection: HTTPConnection) -> EventEmitter:
    """The application's emitter, for a request or a WebSocket. In FastAPI, use `EmitterDep`.

    `app.dependency_overrides[get_emitter]` replaces the emitter of `EmitterDep`, `OnSuccessEmitterDep` and
    `emit_on_success`, for example in tests.

    Raises `NotConfiguredError` if the lifespan of Rapids is not running.
    """
    return running(connection).emitter


class _GetEmitter:
    """`get_emitter` for FastAPI, which would run a plain function in a thread. It is overridden as `get_emitter`."""

    async def __call__(self, connection: HTTPConnection) -> EventEmitter:
        return get_emitter(connection)

    async def in_handlers(self, emitter: EventEmitter) -> EventEmitter:
        """What is called in handlers, which have no connection."""
        return emitter

    def __eq__(self, other: object) -> bool:
        return other is get_emitter or isinstance(other, _GetEmitter)

    def __hash__(self) -> int:
        return hash(get_emitter)


EmitterDep = Annotated[EventEmitter, Depends(_GetEmitter())]
"""The application's emitter: `await emitter.emit(event)` returns when Redis has stored the event.

For endpoints, WebSockets, background tasks and handlers. A `def` endpoint runs in a thread: there, call
`anyio.from_thread.run(emitter.emit, event)`, or use `OnSuccessEmitterDep`, whose `emit` needs no `await`.
"""


def _emitting_of(connection: HTTPConnection) -> Emitting:
    try:
        return running(connection).emitting
    except NotConfiguredError:  # with an emitter of a test, the lifespan need not run
        return Emitting()


@asynccontextmanager
async def emit_on_success(connection: HTTPConnection) -> AsyncGenerator[OnSuccessEmitter]:
    """Collect events in the block, and emit them at its end, unless it raises an exception. For plain Starlette.

    Raises `NotConfiguredError` if the lifespan of Rapids is not running, and `EmitError` if events are not stored.
    """
    async with AsyncExitStack() as stack:
        emitter = await _emitter_in(stack, connection)
        yield await stack.enter_async_context(_emitted_at_the_end(OnSuccessEmitter(emitter, _emitting_of(connection))))


@asynccontextmanager
async def _emitted_at_the_end(collected: OnSuccessEmitter) -> AsyncGenerator[OnSuccessEmitter]:
    """What is collected in the block is emitted at its end, unless it raises an exception."""
    try:
        yield collected
    except BaseException:
        collected.close()
        raise
    await collected.flush()


async def _emitter_in(stack: AsyncExitStack, connection: HTTPConnection) -> EventEmitter:
    """The application's emitter, or what FastAPI has instead of it. A generator ends with the stack."""
    overrides = getattr(connection.scope.get("app"), "dependency_overrides", {})
    override: Callable[..., Any] = overrides.get(get_emitter, get_emitter)
    given = (connection,) if inspect.signature(override).parameters else ()
    if inspect.isasyncgenfunction(override):
        return await stack.enter_async_context(asynccontextmanager(override)(*given))
    if inspect.isgeneratorfunction(override):
        return stack.enter_context(contextmanager(override)(*given))
    found = override(*given)
    return await found if inspect.isawaitable(found) else found


class _GetOnSuccessEmitter:
    """The `OnSuccessEmitter` of a connection, which the middleware emits, or of one attempt of a handler."""

    closes_last = True
    """In handlers, events go out after every other provider is closed, such as a session that commits."""

    async def __call__(self, connection: HTTPConnection, emitter: EmitterDep) -> AsyncGenerator[OnSuccessEmitter]:
        collected = collecting(connection, emitter, _emitting_of(connection))
        try:
            yield collected
        except BaseException:
            collected.close()
            raise

    async def in_handlers(self, emitter: EmitterDep) -> AsyncGenerator[OnSuccessEmitter]:
        """What is called in handlers, which have no connection."""
        async with _emitted_at_the_end(OnSuccessEmitter(emitter, Emitting())) as collected:
            yield collected


OnSuccessEmitterDep = Annotated[OnSuccessEmitter, Depends(_GetOnSuccessEmitter())]
"""Collects events. They are emitted together, in one round trip, when the response is about to start and its status is
below 400.

This is after the endpoint and after every dependency with `scope="function"`, such as a session that commits. Nothing
is emitted if the endpoint or such a dependency raises an exception, or the endpoint returns an error response. If Redis
does not store the events, the client gets 503 instead of the response. The endpoint of a WebSocket succeeds when it
returns, and fails when it raises `WebSocketDisconnect`.

In endpoints it needs `app.add_middleware(CorrelationMiddleware)`, which emits them.

In a handler, they are emitted after it has returned and its other dependencies are closed, so after a commit, and
before the entry is acknowledged. If Redis does not store them, the handler has failed.

    @app.post("/orders")
    def place_order(order: OrderIn, events: OnSuccessEmitterDep) -> OrderOut:
        events.emit(OrderPlaced(...))
"""
