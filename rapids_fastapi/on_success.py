"""Events that an endpoint or a handler collects, and that are emitted if it succeeds."""

import asyncio
import logging
from collections.abc import Awaitable, Generator, Sequence
from enum import Enum, auto
from typing import Any

import anyio.from_thread
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapids import Event, EventEmitter
from rapids.emitter import events_in, ids_for
from rapids.exceptions import EmitError, NotConfiguredError
from rapids_fastapi.state import Emitting

__all__ = ["OnSuccessEmitter", "collecting", "run_emitting_on_success"]

_SCOPE_KEY = "rapids.on_success"
_FIRST_ERROR_STATUS = 400

_NOT_STORED = "The events of this request were not stored."
_UNKNOWN = "It is not known whether the events of this request were stored."
_STARTS = {"http.response.start", "websocket.http.response.start"}
_KEPT_HEADERS = (b"access-control-", b"vary")
"""Headers of the replaced answer that its 503 keeps: with them, a browser shows it to a page of another origin."""

_logger = logging.getLogger("rapids")


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
    """Collects events while an endpoint or a handler runs. If it succeeds, they are emitted in one round trip."""

    def __init__(self, emitter: EventEmitter, emitting: Emitting) -> None:
        self._emitter = emitter
        self._emitting = emitting
        self._events: list[Event] = []
        self._state = _State.COLLECTING

    @property
    def events(self) -> tuple[Event, ...]:
        """The events that are collected and not emitted yet."""
        return tuple(self._events)

    def emit(self, event: Event | Sequence[Event], *, caused_by: Event | None = None) -> Awaitable[None]:
        """Collect an event, or a list of them. Works with and without `await`, and also in threads.

        Events get their correlation and causation ids now, by the rules of `EventEmitter.emit`.

        After the endpoint or handler has succeeded, for example in a background task, events are emitted at once. Then
        `await` returns when Redis has stored them. In a thread, the call itself returns only then.

        Raises `TypeError` for an object that is not an event, and `RuntimeError` after the endpoint or handler failed.
        If it emits at once, raises `EmitError` when Redis does not store the events.
        """
        if self._state is _State.CLOSED:
            raise RuntimeError(
                "what collected these events did not succeed, so they were discarded; nothing can be added"
            )
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
            anyio.from_thread.run(self._emitter.emit, events)
            return _DONE
        return self._emitting.spawn(self._emitter.emit(events))

    def discard(self) -> None:
        """Drop the collected events, although the response will say success."""
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
            await self._emitter.emit(events)


class _Slot:
    """Where a request or a WebSocket keeps its one `OnSuccessEmitter`, if its endpoint has one."""

    def __init__(self) -> None:
        self.collected: OnSuccessEmitter | None = None

    def close(self) -> None:
        if self.collected is not None:
            self.collected.close()

    async def flush(self) -> None:
        if self.collected is not None:
            await self.collected.flush()


def collecting(connection: HTTPConnection, emitter: EventEmitter, emitting: Emitting) -> OnSuccessEmitter:
    """The collected events of a connection, which the middleware emits: one object, however often it is asked for.

    Raises `NotConfiguredError` without the middleware.
    """
    slot = connection.scope.get(_SCOPE_KEY)
    if not isinstance(slot, _Slot):
        raise NotConfiguredError(
            "OnSuccessEmitterDep needs the middleware that emits when the response starts: "
            "app.add_middleware(CorrelationMiddleware)"
        )
    if slot.collected is None:
        slot.collected = OnSuccessEmitter(emitter, emitting)
    return slot.collected


async def run_emitting_on_success(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Run the application, and emit what its endpoint collected: when the response is about to start with a status
    below 400, or a WebSocket's endpoint has returned.

    If the events of a response are not stored, the client gets 503 instead of it, and the application the `EmitError`.
    """
    if _SCOPE_KEY in scope:  # the application is mounted in another one with this middleware
        await app(scope, receive, send)
        return
    slot = scope[_SCOPE_KEY] = _Slot()
    is_replaced = False

    async def send_after_emit(message: Message) -> None:
        nonlocal is_replaced
        if is_replaced:
            return
        if message["type"] in _STARTS:
            if message["status"] >= _FIRST_ERROR_STATUS:
                slot.close()
            elif scope["type"] == "http":
                try:
                    await slot.flush()
                except EmitError as error:
                    is_replaced = True
                    _logger.error("a request was answered with 503, since its events were not stored: %s", error)
                    headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
                    answer = JSONResponse({"detail": _UNKNOWN if error.unknown else _NOT_STORED}, 503)
                    answer.raw_headers += [one for one in headers if one[0].lower().startswith(_KEPT_HEADERS)]
                    await answer(scope, receive, send)
                    raise
        await send(message)

    try:
        await app(scope, receive, send_after_emit)
    except BaseException as error:
        slot.close()
        # The client has its answer. What came of the EmitError on its way through the application is of no use.
        if not is_replaced or not isinstance(error, Exception):
            raise
    else:
        if scope["type"] == "websocket":
            await slot.flush()
