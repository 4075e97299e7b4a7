"""The emitter in endpoints: `EmitterDep`, `OnSuccessEmitterDep`, and the same for plain Starlette."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Generator, Sequence
from contextlib import asynccontextmanager
from enum import Enum, auto
from typing import Annotated, Any

import anyio.from_thread
from fastapi import Depends, Response
from starlette.requests import HTTPConnection

from rapids import Event, EventEmitter
from rapids.emitter import ids_for
from rapids_fastapi.state import Running, running

__all__ = ["EmitterDep", "OnSuccessEmitter", "OnSuccessEmitterDep", "emit_on_success", "get_emitter"]

_FIRST_ERROR_STATUS = 400


def get_emitter(connection: HTTPConnection) -> EventEmitter:
    """The application's emitter, for a request or a WebSocket: what `EmitterDep` is in FastAPI.

    Raises `NotConfiguredError` where the lifespan of Rapids is not running.
    """
    return running(connection).emitter


async def emitter_of(connection: HTTPConnection) -> EventEmitter:
    """`get_emitter` for FastAPI, which would run a plain function in a thread."""
    return get_emitter(connection)


EmitterDep = Annotated[EventEmitter, Depends(emitter_of)]
"""The application's emitter: `await emitter.emit(event)` returns once Redis has stored the event.

For endpoints, WebSockets and background tasks. In a `def` endpoint, which runs in a thread, emit by
`anyio.from_thread.run(emitter.emit, event)`, or use `OnSuccessEmitterDep`, whose `emit` needs no await.
"""


class _State(Enum):
    COLLECTING = auto()
    EMITTED = auto()
    CLOSED = auto()


class _Nothing(Awaitable[None]):
    """What awaiting an `emit` gives that has nothing left to wait for."""

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_NOTHING = _Nothing()


class OnSuccessEmitter:
    """Collects events while an endpoint runs. They are emitted together, in one round trip, if it succeeds."""

    def __init__(self, parts: Running) -> None:
        self._parts = parts
        self._events: list[Event] = []
        self._state = _State.COLLECTING

    @property
    def events(self) -> tuple[Event, ...]:
        """What was collected and is not emitted yet."""
        return tuple(self._events)

    def emit(self, event: Event | Sequence[Event], *, caused_by: Event | None = None) -> Awaitable[None]:
        """Collect an event, or a list of them. May be awaited, and need not be; from threads too.

        The correlation and causation ids are those of this moment, by the rules of `EventEmitter.emit`.

        After the endpoint's success, in a background task, it emits at once: then await it to know that Redis has
        stored the event (in a plain `def` task it blocks until then).

        Raises `TypeError` for what is no event, `RuntimeError` after the endpoint failed.
        """
        if self._state is _State.CLOSED:
            raise RuntimeError("the endpoint did not succeed, so its events were discarded; nothing can be added")
        events: list[Event] = []
        for each in [event] if isinstance(event, Event) else event:
            if not isinstance(each, Event):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
                raise TypeError(f"only events can be emitted, not {each!r}")
            # The ids of this moment: when the event is sent, the code may have left the scope that has them.
            correlation_id, causation_id = ids_for(each, caused_by)
            events.append(each.model_copy(update={"correlation_id": correlation_id, "causation_id": causation_id}))
        if self._state is _State.COLLECTING:
            self._events.extend(events)
            return _NOTHING
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # in a thread
            anyio.from_thread.run(self._parts.emitter.emit, events)
            return _NOTHING
        return self._parts.emitting.spawn(self._parts.emitter.emit(events))

    def discard(self) -> None:
        """Forget what was collected: for an endpoint that returns an error response instead of raising."""
        self._events.clear()

    def close(self) -> None:
        """The endpoint failed: forget what was collected, and take no more."""
        self._events.clear()
        self._state = _State.CLOSED

    async def flush(self) -> None:
        """The endpoint succeeded: emit what was collected. Does nothing once closed. Raises `EmitError`."""
        if self._state is _State.CLOSED:
            return
        events, self._events = self._events, []
        self._state = _State.EMITTED
        if events:
            await self._parts.emitter.emit(events)


@asynccontextmanager
async def emit_on_success(connection: HTTPConnection) -> AsyncGenerator[OnSuccessEmitter]:
    """Collect events in the block and emit them at its end, unless it raises: for plain Starlette.

    Raises `NotConfiguredError` where the lifespan of Rapids is not running, `EmitError` when Redis does not take them.
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
"""Collects events; they are emitted together, in one round trip, when the endpoint has succeeded.

That is before the response is sent: if Redis cannot store them, the client gets an error and not a promise. Nothing is
emitted when the endpoint raises (`HTTPException` too) or sets an error status on its `Response` parameter. A response
object that it returns itself cannot be seen from here: call `discard()` before returning one that means failure. A
WebSocket's endpoint succeeds when it returns; one that leaves by `WebSocketDisconnect` does not.

    @app.post("/orders")
    def place_order(order: OrderIn, events: OnSuccessEmitterDep) -> OrderOut:
        events.emit(OrderPlaced(...))
"""
