"""When `OnSuccessEmitterDep` emits: as the response starts, after every dependency that ends before it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket, WebSocketException
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.testclient import TestClient
from redis.asyncio import Redis
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from rapids import BaseEvent, EventEmitter
from rapids.exceptions import EmitError, NotConfiguredError
from rapids_fastapi import CorrelationMiddleware, OnSuccessEmitterDep, Rapids
from tests.fastapi.helpers import entries

STREAM = "fa:success"


class FaSuccessNoted(BaseEvent):
    n: int


@pytest.fixture
def app(redis_url: str) -> FastAPI:
    app = FastAPI(lifespan=Rapids(url=redis_url, emitter=EventEmitter(stream=STREAM)).lifespan)
    app.add_middleware(CorrelationMiddleware)
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def noted(url: str) -> list[int]:
    return [json.loads(entry["data"])["n"] for entry in entries(url, STREAM)]


class TestSessions:
    def test_it_emits_after_a_session_that_commits(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        emitted_at_commit: list[list[int]] = []

        def session() -> Iterator[None]:
            yield
            emitted_at_commit.append(noted(redis_url))

        # Whichever of the two dependencies comes first.
        @app.post("/after")
        def after(*, session: None = Depends(session, scope="function"), events: OnSuccessEmitterDep) -> None:
            events.emit(FaSuccessNoted(n=1))

        @app.post("/before")
        def before(events: OnSuccessEmitterDep, session: None = Depends(session, scope="function")) -> None:
            events.emit(FaSuccessNoted(n=2))

        assert client.post("/after").status_code == 200
        assert client.post("/before").status_code == 200
        assert (emitted_at_commit, noted(redis_url)) == ([[], [1]], [1, 2])

    def test_a_commit_that_fails_emits_nothing(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        def session() -> Iterator[None]:
            yield
            raise RuntimeError("the commit failed")

        @app.post("/")
        def place(events: OnSuccessEmitterDep, session: None = Depends(session, scope="function")) -> None:
            events.emit(FaSuccessNoted(n=1))

        assert client.post("/").status_code == 500
        assert noted(redis_url) == []

    def test_a_dependency_of_the_request_may_collect(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        """FastAPI refuses a request's dependency that uses one with `scope="function"`; ours has the default scope."""

        def orders(events: OnSuccessEmitterDep) -> Iterator[None]:
            events.emit(FaSuccessNoted(n=1))
            yield

        @app.post("/")
        def place(events: OnSuccessEmitterDep, orders: None = Depends(orders)) -> None:
            events.emit(FaSuccessNoted(n=2))

        assert client.post("/").status_code == 200
        assert noted(redis_url) == [1, 2]


class TestResponses:
    @pytest.mark.parametrize(("status", "expected"), [(200, [1]), (204, [1]), (303, [1]), (400, []), (503, [])])
    def test_the_status_of_a_returned_response_counts(
        self, app: FastAPI, client: TestClient, redis_url: str, status: int, expected: list[int]
    ) -> None:
        @app.post("/")
        async def place(events: OnSuccessEmitterDep) -> Response:
            events.emit(FaSuccessNoted(n=1))
            return RedirectResponse("/x", status) if status == 303 else Response(status_code=status)

        assert client.post("/", follow_redirects=False).status_code == status
        assert noted(redis_url) == expected

    def test_a_middleware_that_makes_an_error_of_it_counts(self, redis_url: str) -> None:
        app = FastAPI(lifespan=Rapids(url=redis_url, emitter=EventEmitter(stream=STREAM)).lifespan)

        @app.middleware("http")
        async def refuse(request: Request, call_next: Any) -> Response:
            response = await call_next(request)
            return JSONResponse({}, 429) if "refuse" in request.query_params else response

        app.add_middleware(CorrelationMiddleware)  # the last one that is added is the outermost

        @app.post("/")
        async def place(events: OnSuccessEmitterDep) -> None:
            events.emit(FaSuccessNoted(n=1))

        with TestClient(app) as client:
            assert client.post("/?refuse=1").status_code == 429
            assert noted(redis_url) == []
            assert client.post("/").status_code == 200
        assert noted(redis_url) == [1]

    def test_an_exception_emits_nothing_whatever_its_handler_answers(self, app: FastAPI, redis_url: str) -> None:
        @app.exception_handler(KeyError)
        async def fine(request: Request, error: KeyError) -> JSONResponse:
            return JSONResponse("fine", 200)

        @app.post("/{error}")
        async def place(error: str, events: OnSuccessEmitterDep) -> None:
            events.emit(FaSuccessNoted(n=1))
            raise KeyError if error == "handled" else HTTPException(404) if error == "http" else RuntimeError

        with TestClient(app, raise_server_exceptions=False) as client:
            statuses = [client.post(path).status_code for path in ("/handled", "/http", "/bug")]
        assert (statuses, noted(redis_url)) == ([200, 404, 500], [])

    def test_a_mounted_application_with_the_middleware_emits_once(self, app: FastAPI, redis_url: str) -> None:
        inner = FastAPI()
        inner.add_middleware(CorrelationMiddleware)

        @inner.post("/")
        async def place(events: OnSuccessEmitterDep) -> None:
            events.emit(FaSuccessNoted(n=1))

        app.mount("/inner", inner)
        with TestClient(app) as client:
            assert client.post("/inner/").status_code == 200
        assert noted(redis_url) == [1]


class TestWebSockets:
    def test_one_that_is_refused_emits_nothing(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        @app.websocket("/raised")
        async def raised(socket: WebSocket, events: OnSuccessEmitterDep) -> None:
            events.emit(FaSuccessNoted(n=1))
            raise WebSocketException(1008)

        @app.websocket("/denied")
        async def denied(socket: WebSocket, events: OnSuccessEmitterDep) -> None:
            events.emit(FaSuccessNoted(n=1))
            await socket.send_denial_response(JSONResponse({}, 403))

        for path in ("/raised", "/denied"):
            with pytest.raises(WebSocketDisconnect), client.websocket_connect(path):
                pass
        assert noted(redis_url) == []


class TestAnEmitThatFails:
    async def test_the_client_gets_503_and_not_the_answer(
        self, redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        seen: list[str] = []
        app = FastAPI(lifespan=Rapids(url=redis_url, emitter=EventEmitter(stream=STREAM)).lifespan)
        app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"])
        app.add_middleware(CorrelationMiddleware)

        def session() -> Iterator[None]:
            try:
                yield
            except EmitError:
                seen.append("rolled back")
                raise

        @app.exception_handler(EmitError)
        async def late(request: Request, error: EmitError) -> None:
            raise AssertionError("the response has started")

        @app.post("/")
        async def place(
            events: OnSuccessEmitterDep, tasks: BackgroundTasks, session: None = Depends(session)
        ) -> JSONResponse:
            events.emit(FaSuccessNoted(n=1))
            tasks.add_task(seen.append, "background task")
            return JSONResponse({"order": "placed"}, headers={"Set-Cookie": "a=b"}, background=tasks)

        await redis.set(STREAM, "not a stream")
        headers = {"X-Correlation-ID": "req-1", "Origin": "https://shop.example"}
        with TestClient(app, headers=headers) as client, caplog.at_level(logging.ERROR, "rapids"):
            response = client.post("/")
        assert (response.status_code, response.json()) == (
            503,
            {"detail": "The events of this request were not stored."},
        )
        assert response.headers["x-correlation-id"] == "req-1"
        assert response.headers["access-control-allow-origin"] == "https://shop.example"
        assert "set-cookie" not in response.headers
        assert seen == ["rolled back"]
        (line,) = caplog.messages
        assert "answered with 503" in line
        assert "fa_success.noted" in line

    async def test_the_answer_says_if_it_is_unknown_whether_the_events_were_stored(
        self, app: FastAPI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def lost(emitter: EventEmitter, events: Sequence[FaSuccessNoted]) -> None:
            [event] = events
            raise EmitError(
                event_type=event.event_type,
                event_id=event.id,
                stream=STREAM,
                attempts=3,
                cause=ConnectionError("lost"),
                stored=(),
                not_stored=(),
                unknown=(event.id,),
            )

        @app.post("/")
        async def place(events: OnSuccessEmitterDep) -> None:
            events.emit(FaSuccessNoted(n=1))

        monkeypatch.setattr(EventEmitter, "emit", lost)
        with TestClient(app) as client:
            response = client.post("/")
        assert (response.status_code, response.json()) == (
            503,
            {"detail": "It is not known whether the events of this request were stored."},
        )

    async def test_the_error_of_a_websocket_is_raised(self, app: FastAPI, redis: Redis) -> None:
        @app.websocket("/")
        async def talk(socket: WebSocket, events: OnSuccessEmitterDep) -> None:
            await socket.accept()
            events.emit(FaSuccessNoted(n=1))

        await redis.set(STREAM, "not a stream")
        with TestClient(app) as client, pytest.raises(EmitError), client.websocket_connect("/") as socket:
            socket.receive()  # that it was closed


def test_without_the_middleware_the_dependency_says_so(redis_url: str) -> None:
    app = FastAPI(lifespan=Rapids(url=redis_url).lifespan)

    @app.post("/")
    async def place(events: OnSuccessEmitterDep) -> None:
        raise AssertionError("never called")

    with TestClient(app) as client, pytest.raises(NotConfiguredError, match=r"add_middleware\(CorrelationMiddleware\)"):
        client.post("/")
