"""The emitter in endpoints: `EmitterDep` and `OnSuccessEmitterDep`, and the same for plain Starlette."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Generator, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Annotated, Any

import anyio.from_thread
from fastapi import Depends, Response
from starlette.requests import HTTPConnection

from rapids import Event, EventEmitter
from rapids.emitter import events_in, ids_for
from rapids_fastapi.state import Running, running

__all__ = ["EmitterDep", "OnSuccessEmitter", "OnSuccessEmitterDep", "emit_on_success", "get_emitter"]

_FIRST_ERROR_STATUS = 400


def get_emitter(connection: HTTPConnection) -> EventEmitter:
    """The application's emitter, for a request or a WebSocket. In FastAPI, use `EmitterDep`.

    Raises `NotConfiguredError` if the lifespan of Rapids is not running.
    """
    return running(connection).emitter


async def emitter_of(connection: HTTPConnection) -> EventEmitter:
    """`get_emitter` for FastAPI, which would run a plain function in a thread."""
    return get_emitter(connection)


EmitterDep = Annotated[EventEmitter, Depends(emitter_of)]
"""The application's emitter: `await emitter.emit(event)` returns when Redis has stored the event.

For endpoints, WebSockets and background tasks. A `def` endpoint runs in a thread: there, call
`anyio.from_thread.run(emitter.emit, event)`, or use `OnSuccessEmitterDep`, whose `emit` needs no `await`.
"""


class _State(Enum):
    COLLECTING = auto()
    EMITTED = auto()
    CLOSED = auto()


class _Done(Awaitable[None]):
    """An awaitable that is done already."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE = _Done()


class OnSuccessEmitter:
    """Collects events while an endpoint runs. If it succeeds, they are emitted together, in one round trip."""

    def __init__(self, parts: Running) -> None:
        self._parts = parts
        self._events: list[Event] = []
        self._state = _State.COLLECTING

    @property
    def events(self) -> tuple[Event, ...]:
        """The events that are collected and not emitted yet."""
        return tuple(self._events)

    def emit(self, event: Event | Sequence[Event], *, caused_by: Event | None = None) -> Awaitable[None]:
        """Collect an event, or a list of them. Works with and without `await`, and also in threads.

        Events get their correlation and causation ids now, by the rules of `EventEmitter.emit`.

        After the endpoint has succeeded, for example in a background task, events are emitted at once. Then `await`
        returns when Redis has stored them. In a thread, the call itself returns only then.

        Raises `TypeError` for an object that is not an event, and `RuntimeError` after the endpoint failed. If it emits
        at once, raises `EmitError` when Redis does not store the events.
        """
        if self._state is _State.CLOSED:
            raise RuntimeError("the endpoint did not succeed, so its events were discarded; nothing can be added")
        events: list[Event] = []
        for each in events_in(event):
            # The ids of this moment: when the event is sent, the code may have left the scope that has them.
            correlation_id, causation_id = ids_for(each, caused_by)
            events.append(each.model_copy(update={"correlation_id": correlation_id, "causation_id": causation_id}))
        if self._state is _State.COLLECTING:
            self._events.extend(events)
            return _DONE
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # in a thread
            anyio.from_thread.run(self._parts.emitter.emit, events)
            return _DONE
        return self._parts.emitting.spawn(self._parts.emitter.emit(events))

    def discard(self) -> None:
        """Drop the collected events: for an endpoint that returns an error response instead of raising an exception."""
        self._events.clear()

    def close(self) -> None:
        """Drop the collected events, and accept no more: the endpoint failed."""
        self._events.clear()
        self._state = _State.CLOSED

    async def flush(self) -> None:
        """Emit the collected events: the endpoint succeeded. Does nothing after `close`.

        Raises `EmitError` if Redis does not store all of them.
        """
        if self._state is _State.CLOSED:
            return
        events, self._events = self._events, []
        self._state = _State.EMITTED
        if events:
            await self._parts.emitter.emit(events)


@asynccontextmanager
async def emit_on_success(connection: HTTPConnection) -> AsyncGenerator[OnSuccessEmitter]:
    """Collect events in the block, and emit them at its end, unless it raises an exception. For plain Starlette.

    Raises `NotConfiguredError` if the lifespan of Rapids is not running, and `EmitError` if events are not stored.
    """
    collected = OnSuccessEmitter(running(connection))
    try:
        yield collected
    except BaseException:
        collected.close()
        raise
    await collected.flush()


async def on_success_emitter_of(connection: HTTPConnection, response: Response) -> AsyncGenerator[OnSuccessEmitter]:
    """`emit_on_success` for FastAPI, where an endpoint may set the status without raising."""
    async with emit_on_success(connection) as collected:
        yield collected
        # None unless the endpoint set it on its `Response` parameter.
        if (response.status_code or 0) >= _FIRST_ERROR_STATUS:
            collected.close()


OnSuccessEmitterDep = Annotated[OnSuccessEmitter, Depends(on_success_emitter_of, scope="function")]
"""Collects events. They are emitted together, in one round trip, when the endpoint has succeeded.

This is before the response is sent: if Redis cannot store the events, the client gets an error. Nothing is emitted if
the endpoint raises an exception, also an `HTTPException`, or sets an error status on its `Response` parameter. The
status of a response object that the endpoint returns is not known here: call `discard()` before you return one that
means failure. The endpoint of a WebSocket succeeds when it returns, and fails when it raises `WebSocketDisconnect`.

    @app.post("/orders")
    def place_order(order: OrderIn, events: OnSuccessEmitterDep) -> OrderOut:
        events.emit(OrderPlaced(...))
"""
