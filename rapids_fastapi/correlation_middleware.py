"""The middleware: one correlation id for each request and its response, and the emit of `OnSuccessEmitterDep`."""

import re
from collections.abc import Sequence
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapids import correlation_scope
from rapids_fastapi.on_success import run_emitting_on_success

__all__ = ["CorrelationMiddleware"]

_VALID_ID = re.compile(r"[\x21-\x7e]{1,128}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_ANSWERS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}
_SCOPE_KEY = "rapids.correlation_id"


class CorrelationMiddleware:
    """ASGI middleware: all events that a request emits have the same correlation id.

    It takes the first valid id of: the request header `header`, the headers in `also_accept`, the trace id in
    `traceparent` (https://www.w3.org/TR/trace-context/). Without one, it makes a UUID. A valid id has 1 to 128 visible
    ASCII characters. Other values are ignored, and never logged. The response has the id in `header`, unless the
    application sets that header itself.

    It also emits what `OnSuccessEmitterDep` collected, when the response is about to start.

    It works for HTTP and WebSockets in any ASGI application. If an application and one that is mounted in it both have
    it, they use the same id.

    Starlette answers unhandled errors outside of middleware that `app.add_middleware` installs, so that such a response
    (500) does not have the header. To add it there too, wrap the whole application: `CorrelationMiddleware(app)`.

    Raises `ValueError` for a header name that HTTP does not allow, `TypeError` if `also_accept` is a string.
    """

    def __init__(
        self, app: ASGIApp, header: str = "X-Correlation-ID", also_accept: Sequence[str] = ("X-Request-ID",)
    ) -> None:
        self.app = app
        self._header = _header_name("header", header).lower().encode()
        if isinstance(also_accept, str):
            raise TypeError(f"also_accept must be a list of header names, not {also_accept!r}")
        self._accepted = (header, *(_header_name("also_accept", name) for name in also_accept))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application in the correlation scope of the request."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        correlation_id: str = scope.get(_SCOPE_KEY) or self._take_or_make(Headers(scope=scope))
        scope[_SCOPE_KEY] = correlation_id

        async def send_with_id(message: Message) -> None:
            if message["type"] in _ANSWERS:
                headers = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
                if all(name.lower() != self._header for name, _ in headers):
                    message = {**message, "headers": [*headers, (self._header, correlation_id.encode())]}
            await send(message)

        with correlation_scope(correlation_id):
            await run_emitting_on_success(self.app, scope, receive, send_with_id)

    def _take_or_make(self, headers: Headers) -> str:
        for name in self._accepted:
            if _VALID_ID.fullmatch(value := headers.get(name, "")):
                return value
        found = _TRACEPARENT.fullmatch(headers.get("traceparent", ""))
        # Version 00 ends after the flags; only later versions may have more.
        return str(uuid4()) if found is None or (found[1] == "00" and found[3]) else found[2]


def _header_name(option: str, name: str) -> str:
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise ValueError(f"{option} must be the name of an HTTP header such as 'X-Correlation-ID', not {name!r}")
    return name
