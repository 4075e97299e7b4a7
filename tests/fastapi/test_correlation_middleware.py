from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

import pytest
from fastapi import FastAPI, Response, WebSocket
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from rapids import get_correlation_id
from rapids_fastapi import CorrelationMiddleware

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


def app_with(**options: Any) -> FastAPI:
    app = FastAPI()
    app.add_middleware(CorrelationMiddleware, **options)

    @app.get("/")
    async def current() -> str | None:
        return get_correlation_id()

    @app.get("/thread")
    def in_a_thread() -> str | None:
        return get_correlation_id()

    @app.get("/own")
    async def own(response: Response) -> None:
        response.headers["x-correlation-id"] = "my own"

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept(headers=[(b"x-mine", b"1")])
        await websocket.send_text(get_correlation_id() or "")
        await websocket.close()

    return app


@pytest.mark.parametrize("path", ["/", "/thread"])
def test_the_callers_id_is_used_and_returned(path: str) -> None:
    response = TestClient(app_with()).get(path, headers={"X-Correlation-ID": "abc-1"})
    assert response.json() == "abc-1"
    assert response.headers["x-correlation-id"] == "abc-1"


def test_without_an_id_a_uuid_is_made_for_each_request() -> None:
    client = TestClient(app_with())
    first, second = client.get("/"), client.get("/")
    assert str(UUID(first.json())) == first.headers["x-correlation-id"] == first.json()
    assert first.json() != second.json()


def test_the_request_id_is_accepted_and_the_correlation_id_preferred() -> None:
    client = TestClient(app_with())
    assert client.get("/", headers={"X-Request-ID": "req-1"}).json() == "req-1"
    assert client.get("/", headers={"X-Request-ID": "req-1", "X-Correlation-ID": "c"}).json() == "c"


@pytest.mark.parametrize(
    "traceparent",
    [f"00-{TRACE}-{SPAN}-01", f"01-{TRACE}-{SPAN}-00-more"],
)
def test_a_trace_id_is_taken_from_traceparent(traceparent: str) -> None:
    assert TestClient(app_with()).get("/", headers={"traceparent": traceparent}).json() == TRACE


@pytest.mark.parametrize(
    "traceparent",
    [
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        "nonsense",
    ],
)
def test_an_invalid_traceparent_is_ignored(traceparent: str) -> None:
    assert UUID(TestClient(app_with()).get("/", headers={"traceparent": traceparent}).json())


@pytest.mark.parametrize("bad", [b"two words", b"a" * 129, b"", b"caf\xc3\xa9", b"tab\there", b"x\x7f"])
def test_an_invalid_id_is_replaced_and_never_logged(bad: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        response = TestClient(app_with()).get("/", headers={b"X-Correlation-ID": bad})
    assert UUID(response.json())
    ours = [record for record in caplog.records if record.name.startswith("rapids")]
    assert ours == []


def test_128_visible_characters_are_valid() -> None:
    value = "~!" * 64
    assert TestClient(app_with()).get("/", headers={"X-Correlation-ID": value}).json() == value


def test_the_header_is_configurable() -> None:
    client = TestClient(app_with(header="X-My-ID", also_accept=["X-Other"]))
    response = client.get("/", headers={"X-My-ID": "mine", "X-Correlation-ID": "not this"})
    assert response.json() == response.headers["x-my-id"] == "mine"
    assert "x-correlation-id" not in response.headers
    assert client.get("/", headers={"X-Other": "other"}).json() == "other"


def test_the_applications_own_header_stays_and_is_not_doubled() -> None:
    response = TestClient(app_with()).get("/own", headers={"X-Correlation-ID": "abc"})
    assert response.headers.get_list("x-correlation-id") == ["my own"]


def test_a_websocket_has_a_correlation_id() -> None:
    with TestClient(app_with()).websocket_connect("/ws", headers={"X-Correlation-ID": "ws-1"}) as socket:
        assert socket.receive_text() == "ws-1"
        headers = dict(socket.extra_headers or [])
    assert headers == {b"x-mine": b"1", b"x-correlation-id": b"ws-1"}


def test_a_mounted_application_with_its_own_middleware_sees_the_same_id() -> None:
    outer, inner = app_with(), app_with()
    outer.mount("/inner", inner)
    response = TestClient(outer).get("/inner/")
    assert response.headers.get_list("x-correlation-id") == [response.json()]


async def test_the_context_is_reset_also_after_an_error() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        assert get_correlation_id() == "abc"
        raise RuntimeError("no")

    scope = {"type": "http", "headers": [(b"x-correlation-id", b"abc")]}
    with pytest.raises(RuntimeError):
        await CorrelationMiddleware(broken)(scope, None, None)  # type: ignore[arg-type]
    assert get_correlation_id() is None


async def test_other_scopes_pass_through_untouched() -> None:
    seen: list[Any] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend([scope, receive, send, get_correlation_id()])

    scope, receive, send = {"type": "lifespan"}, object(), object()
    await CorrelationMiddleware(inner)(scope, receive, send)  # type: ignore[arg-type]
    assert seen == [{"type": "lifespan"}, receive, send, None]


@pytest.mark.parametrize("header", ["", "two words", "a:b", "a\r\nb", None])
def test_an_invalid_header_name_is_refused(header: Any) -> None:
    with pytest.raises(ValueError, match="header must be the name of an HTTP header"):
        CorrelationMiddleware(app_with(), header=header)


def test_a_single_name_for_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match="also_accept must be a list"):
        CorrelationMiddleware(app_with(), also_accept="X-Request-ID")
