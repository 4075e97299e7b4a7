from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from types import NoneType
from typing import Annotated, Any, ClassVar

import anyio.from_thread
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Response, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.routing import Route
from starlette.websockets import WebSocketDisconnect

from rapids import BaseEvent, EventEmitter, EventRouter, correlation_scope
from rapids.exceptions import EmitError, NonRetryableError, RapidsError
from rapids.testing import RecordingEmitter, deliver, tracked
from rapids_fastapi import (
    CorrelationMiddleware,
    EmitterDep,
    OnSuccessEmitter,
    OnSuccessEmitterDep,
    Rapids,
    emit_on_success,
    get_emitter,
)
from tests.fastapi.helpers import entries, until

STREAM = "fa:deps"


class FaDepsNoted(BaseEvent):
    n: int


def noted(url: str) -> list[int]:
    import json

    return [json.loads(entry["data"])["n"] for entry in entries(url, STREAM)]


@pytest.fixture
def app(redis_url: str) -> FastAPI:
    rapids = Rapids(url=redis_url, emitter=EventEmitter(stream=STREAM))
    app = FastAPI(lifespan=rapids.lifespan)
    app.add_middleware(CorrelationMiddleware)
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, raise_server_exceptions=False, headers={"X-Correlation-ID": "req-1"}) as client:
        yield client


class TestEmitter:
    def test_in_an_endpoint(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        @app.post("/")
        async def emit(emitter: EmitterDep) -> str:
            return await emitter.emit(FaDepsNoted(n=1))

        assert client.post("/").status_code == 200
        (entry,) = entries(redis_url, STREAM)
        assert (entry["event_type"], entry["correlation_id"]) == ("fa_deps.noted", "req-1")

    def test_in_a_thread(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        @app.post("/")
        def emit(emitter: EmitterDep) -> Any:
            return anyio.from_thread.run(emitter.emit, FaDepsNoted(n=1))

        assert client.post("/").status_code == 200
        assert entries(redis_url, STREAM)[0]["correlation_id"] == "req-1"

    def test_in_a_websocket(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        @app.websocket("/")
        async def emit(socket: WebSocket, emitter: EmitterDep) -> None:
            await socket.accept()
            await emitter.emit(FaDepsNoted(n=int(await socket.receive_text())))
            await socket.send_text("stored")
            await socket.close()

        with client.websocket_connect("/") as socket:
            socket.send_text("7")
            assert socket.receive_text() == "stored"
        assert noted(redis_url) == [7]

    def test_in_a_background_task(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        @app.post("/")
        async def emit(emitter: EmitterDep, tasks: BackgroundTasks) -> None:
            tasks.add_task(emitter.emit, FaDepsNoted(n=1))

        assert client.post("/").status_code == 200
        until(lambda: noted(redis_url) == [1])
        assert entries(redis_url, STREAM)[0]["correlation_id"] == "req-1"


class TestOnSuccess:
    @pytest.mark.parametrize("style", ["async", "awaited", "def"])
    def test_events_are_emitted_together_after_the_endpoint(
        self, app: FastAPI, client: TestClient, redis_url: str, monkeypatch: pytest.MonkeyPatch, style: str
    ) -> None:
        calls: list[Any] = []
        original = EventEmitter.emit

        async def counted(self: EventEmitter, event: Any, **more: Any) -> Any:
            calls.append(event)
            return await original(self, event, **more)

        monkeypatch.setattr(EventEmitter, "emit", counted)

        @app.post("/async")
        async def plain(events: OnSuccessEmitterDep) -> int:
            events.emit(FaDepsNoted(n=1))
            events.emit([FaDepsNoted(n=2), FaDepsNoted(n=3)])
            return len(noted(redis_url)) + len(events.events)

        @app.post("/awaited")
        async def awaited(events: OnSuccessEmitterDep) -> int:
            await events.emit(FaDepsNoted(n=1))
            await events.emit([FaDepsNoted(n=2), FaDepsNoted(n=3)])
            return len(noted(redis_url)) + len(events.events)

        @app.post("/def")
        def threaded(events: OnSuccessEmitterDep) -> int:
            events.emit(FaDepsNoted(n=1))
            events.emit([FaDepsNoted(n=2), FaDepsNoted(n=3)])
            return len(noted(redis_url)) + len(events.events)

        assert client.post(f"/{style}").json() == 3
        assert noted(redis_url) == [1, 2, 3]
        assert [len(call) for call in calls] == [3]
        assert {entry["correlation_id"] for entry in entries(redis_url, STREAM)} == {"req-1"}

    def test_nothing_is_emitted_when_the_endpoint_fails(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        @app.post("/http")
        async def http(events: OnSuccessEmitterDep) -> None:
            events.emit(FaDepsNoted(n=1))
            raise HTTPException(409)

        @app.post("/bug")
        def bug(events: OnSuccessEmitterDep) -> None:
            events.emit(FaDepsNoted(n=1))
            raise RuntimeError("no")

        @app.post("/status")
        async def status(events: OnSuccessEmitterDep, response: Response) -> None:
            events.emit(FaDepsNoted(n=1))
            response.status_code = 422

        @app.post("/discard")
        async def discard(events: OnSuccessEmitterDep) -> JSONResponse:
            events.emit(FaDepsNoted(n=1))
            events.discard()
            return JSONResponse({}, 400)

        answers = {path: client.post(f"/{path}").status_code for path in ("http", "bug", "status", "discard")}
        assert answers == {"http": 409, "bug": 500, "status": 422, "discard": 400}
        assert noted(redis_url) == []

    def test_another_success_status_is_a_success(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        @app.post("/", status_code=202)
        async def status(events: OnSuccessEmitterDep, response: Response) -> None:
            events.emit(FaDepsNoted(n=1))
            response.status_code = 201

        assert client.post("/").status_code == 201
        assert noted(redis_url) == [1]

    def test_ids_are_those_of_the_moment(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        cause = FaDepsNoted(n=0, correlation_id="theirs")

        @app.post("/")
        def emit(events: OnSuccessEmitterDep) -> None:
            events.emit(FaDepsNoted(n=1))
            with correlation_scope("inner"):
                events.emit(FaDepsNoted(n=2))
                events.emit(FaDepsNoted(n=3, correlation_id="own", causation_id="mine"), caused_by=cause)
                events.emit(FaDepsNoted(n=4), caused_by=cause)

        assert client.post("/").status_code == 200
        ids = [(entry["correlation_id"], entry["causation_id"]) for entry in entries(redis_url, STREAM)]
        assert ids == [("req-1", ""), ("inner", ""), ("own", "mine"), ("theirs", cause.id)]

    @pytest.mark.parametrize("kind", ["async", "def"])
    def test_a_background_task_emits_at_once(self, app: FastAPI, client: TestClient, redis_url: str, kind: str) -> None:
        stored: list[int] = []

        @app.post("/async")
        async def in_loop(events: OnSuccessEmitterDep, tasks: BackgroundTasks) -> None:
            async def later() -> None:
                await events.emit(FaDepsNoted(n=2))
                stored.extend(noted(redis_url))

            events.emit(FaDepsNoted(n=1))
            tasks.add_task(later)

        @app.post("/def")
        async def in_thread(events: OnSuccessEmitterDep, tasks: BackgroundTasks) -> None:
            def later() -> None:
                events.emit(FaDepsNoted(n=2))
                stored.extend(noted(redis_url))

            events.emit(FaDepsNoted(n=1))
            tasks.add_task(later)

        assert client.post(f"/{kind}").status_code == 200
        until(lambda: stored == [1, 2])

    def test_an_emit_nobody_awaits_is_stored_before_the_client_closes(self, app: FastAPI, redis_url: str) -> None:
        @app.post("/")
        async def emit(events: OnSuccessEmitterDep, tasks: BackgroundTasks) -> None:
            async def later() -> None:
                events.emit(FaDepsNoted(n=1))

            tasks.add_task(later)

        with TestClient(app) as client:
            client.post("/")
        assert noted(redis_url) == [1]

    def test_in_a_stream_response_it_emits_at_once(self, app: FastAPI, client: TestClient, redis_url: str) -> None:
        @app.get("/")
        async def stream(events: OnSuccessEmitterDep) -> StreamingResponse:
            async def body() -> Any:
                await events.emit(FaDepsNoted(n=1))
                yield "done"

            return StreamingResponse(body())

        assert client.get("/").text == "done"
        assert noted(redis_url) == [1]

    def test_a_websocket_emits_when_its_endpoint_returns(
        self, app: FastAPI, client: TestClient, redis_url: str
    ) -> None:
        @app.websocket("/good")
        async def good(socket: WebSocket, events: OnSuccessEmitterDep) -> None:
            await socket.accept()
            events.emit(FaDepsNoted(n=int(await socket.receive_text())))
            assert noted(redis_url) == []
            await socket.close()

        @app.websocket("/left")
        async def left(socket: WebSocket, events: OnSuccessEmitterDep) -> None:
            await socket.accept()
            events.emit(FaDepsNoted(n=2))
            await socket.receive_text()

        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/left"):
            pass  # the endpoint does not catch that we left
        with client.websocket_connect("/good") as socket:
            socket.send_text("1")
            with pytest.raises(WebSocketDisconnect):
                socket.receive_text()
            until(lambda: noted(redis_url) == [1])

    def test_an_object_that_is_not_an_event_is_refused(self, app: FastAPI) -> None:
        @app.post("/")
        async def emit(events: OnSuccessEmitterDep) -> None:
            events.emit("order.placed")  # type: ignore[arg-type]

        with TestClient(app) as client, pytest.raises(TypeError, match=r"emitted, not 'order\.placed'"):
            client.post("/")

    def test_after_a_failure_nothing_can_be_added(self, app: FastAPI, redis_url: str) -> None:
        kept: list[Any] = []

        @app.post("/")
        async def emit(events: OnSuccessEmitterDep) -> None:
            kept.append(events)
            raise HTTPException(400)

        with TestClient(app) as client:
            client.post("/")
        with pytest.raises(RuntimeError, match="did not succeed"):
            kept[0].emit(FaDepsNoted(n=1))

    def test_plain_starlette(self, redis_url: str) -> None:
        async def endpoint(request: Request) -> JSONResponse:
            async with emit_on_success(request) as events:
                events.emit(FaDepsNoted(n=1))
                if "fail" in request.query_params:
                    raise ValueError("no")
            return JSONResponse(noted(redis_url))

        rapids = Rapids(url=redis_url, emitter=EventEmitter(stream=STREAM))
        app = Starlette(routes=[Route("/", endpoint, methods=["POST"])], lifespan=rapids.lifespan)
        with TestClient(app, raise_server_exceptions=False) as client:
            assert client.post("/?fail=1").status_code == 500
            assert client.post("/").json() == [1]

    def test_without_the_lifespan_the_error_names_it(self) -> None:
        app = FastAPI()

        @app.post("/")
        async def emit(events: OnSuccessEmitterDep) -> None:
            raise AssertionError("never called")

        with TestClient(app) as client, pytest.raises(RapidsError, match="Rapids is not running"):
            client.post("/")


def got(recorder: RecordingEmitter) -> list[int]:
    return [event.n for event in recorder.of(FaDepsNoted)]


class TestOverrides:
    """`app.dependency_overrides[get_emitter]`, also without the lifespan and so without Redis."""

    @pytest.fixture
    def recorder(self) -> RecordingEmitter:
        return RecordingEmitter()

    @pytest.fixture(params=["plain", "async", "generator", "async generator", "with the request"])
    def app(self, request: pytest.FixtureRequest, recorder: RecordingEmitter) -> FastAPI:
        async def later() -> RecordingEmitter:
            return recorder

        async def until_the_end() -> Any:
            yield recorder

        def plain_until_the_end() -> Any:
            yield recorder

        def with_request(request: HTTPConnection) -> RecordingEmitter:
            assert request.url.path
            return recorder

        app = FastAPI()
        app.add_middleware(CorrelationMiddleware)
        app.dependency_overrides[get_emitter] = {
            "plain": lambda: recorder,
            "async": later,
            "generator": plain_until_the_end,
            "async generator": until_the_end,
            "with the request": with_request,
        }[request.param]
        return app

    def test_it_replaces_the_emitter_of_both_dependencies(self, app: FastAPI, recorder: RecordingEmitter) -> None:
        @app.post("/now")
        async def now(emitter: EmitterDep) -> None:
            await emitter.emit(FaDepsNoted(n=1))

        @app.post("/later")
        async def later(events: OnSuccessEmitterDep, tasks: BackgroundTasks) -> None:
            events.emit(FaDepsNoted(n=2))
            tasks.add_task(events.emit, FaDepsNoted(n=3))

        @app.websocket("/socket")
        async def socket(socket: WebSocket, emitter: EmitterDep, events: OnSuccessEmitterDep) -> None:
            await socket.accept()
            await emitter.emit(FaDepsNoted(n=4))
            events.emit(FaDepsNoted(n=5))

        with TestClient(app) as client:
            assert client.post("/now").status_code == 200
            assert client.post("/later").status_code == 200
            until(lambda: got(recorder) == [1, 2, 3])
            with client.websocket_connect("/socket"):
                pass
            until(lambda: got(recorder) == [1, 2, 3, 4, 5])

    def test_it_replaces_the_emitter_of_the_helper_for_starlette(
        self, app: FastAPI, recorder: RecordingEmitter
    ) -> None:
        @app.post("/")
        async def emit(request: Request) -> None:
            async with emit_on_success(request) as events:
                events.emit(FaDepsNoted(n=1))

        with TestClient(app) as client:
            assert client.post("/").status_code == 200
        assert got(recorder) == [1]

    def test_it_can_use_what_it_replaces(self, redis_url: str) -> None:
        def checked(request: Request) -> Any:
            assert "token" in request.query_params
            return get_emitter(request)

        app = FastAPI(lifespan=Rapids(url=redis_url, emitter=EventEmitter(stream=STREAM)).lifespan)
        app.dependency_overrides[get_emitter] = checked

        @app.post("/")
        async def emit(emitter: EmitterDep) -> None:
            await emitter.emit(FaDepsNoted(n=1))

        with TestClient(app) as client:
            assert client.post("/?token=1").status_code == 200
        assert noted(redis_url) == [1]


opened: list[str] = []


async def get_session() -> AsyncIterator[str]:
    yield "session"
    opened.append("committed")


async def get_repository(session: Annotated[str, Depends(get_session, scope="function")]) -> str:
    return f"repository of {session}"


RepositoryDep = Annotated[str, Depends(get_repository)]


class Shelf:
    """Where what was in the stream at each commit is kept."""

    url = ""
    commits: ClassVar[list[list[int]]] = []


def get_shelf() -> Iterator[Shelf]:
    yield Shelf()
    Shelf.commits.append(noted(Shelf.url))


class Ledger:
    """It names what collects events last. So they would go out before the commit, if the order of names decided."""

    def __init__(
        self, shelf: Annotated[Shelf, Depends(get_shelf, scope="function")], events: OnSuccessEmitterDep
    ) -> None:
        self._events = events

    def note(self, n: int) -> None:
        self._events.emit(FaDepsNoted(n=n))


LedgerDep = Annotated[Ledger, Depends()]


class TestHandlers:
    def test_one_dependency_serves_an_endpoint_and_a_handler(self, redis_url: str) -> None:
        """With the same overrides, which are looked up at each attempt."""
        opened.clear()
        router = EventRouter(stream=STREAM)

        @router.on(FaDepsNoted)
        async def handle(event: FaDepsNoted, repository: RepositoryDep, emitter: EmitterDep) -> None:
            opened.append(f"{repository} in the handler for {event.n}")
            if event.n < 10:
                await emitter.emit(FaDepsNoted(n=event.n + 10))

        app = FastAPI(lifespan=Rapids(url=redis_url, routers=[router]).lifespan)
        app.add_middleware(CorrelationMiddleware)

        @app.post("/")
        async def note(n: int, repository: RepositoryDep, emitter: EmitterDep) -> None:
            opened.append(repository)
            await emitter.emit(FaDepsNoted(n=n))

        with TestClient(app, headers={"X-Correlation-ID": "req-1"}) as client, tracked(app) as t:
            assert client.post("/?n=1").status_code == 200
            t.settled()
            first, second = t.of(FaDepsNoted)
            assert (second.correlation_id, second.causation_id) == ("req-1", first.id)
            assert opened.count("committed") == 3

            async def other_session() -> str:
                return "another session"

            recorder = RecordingEmitter()
            app.dependency_overrides = {get_session: other_session, get_emitter: lambda: recorder}
            t.emit(FaDepsNoted(n=2))
            t.settled()

        shared = "repository of session"
        in_handlers = [f"{shared} in the handler for {n}" for n in (1, 11)]
        last = "repository of another session in the handler for 2"
        assert sorted(line for line in opened if line != "committed") == sorted([shared, *in_handlers, last])
        assert got(recorder) == [12]

    def test_events_that_a_shared_dependency_collects_go_out_after_the_commit(self, redis_url: str) -> None:
        router = EventRouter(stream=STREAM, block_ms=100)
        attempts: list[int] = []
        Shelf.url, Shelf.commits = redis_url, []

        @router.on(FaDepsNoted, retries=1)
        async def handle(event: FaDepsNoted, ledger: LedgerDep) -> None:
            if event.n < 10:
                ledger.note(event.n + 10)
                attempts.append(event.n)
                if len(attempts) == 1:
                    raise RuntimeError("nothing of this attempt goes out")

        app = FastAPI(lifespan=Rapids(url=redis_url, routers=[router]).lifespan)
        app.add_middleware(CorrelationMiddleware)

        @app.post("/")
        async def note(n: int, ledger: LedgerDep) -> None:
            ledger.note(n)

        with TestClient(app, headers={"X-Correlation-ID": "req-1"}) as client, tracked(app) as t:
            assert client.post("/?n=1").status_code == 200
            t.settled()
            first, second = t.of(FaDepsNoted)
            t.all_handled()
        assert (first.n, second.n, attempts) == (1, 11, [1, 1])
        assert (second.correlation_id, second.causation_id) == ("req-1", first.id)
        assert Shelf.commits == [[], [1], [1, 11]]  # of the endpoint, and of the handler for each event

    async def test_a_handler_fails_if_the_events_that_it_collected_are_not_stored(self) -> None:
        router, recorder = EventRouter(), RecordingEmitter()
        recorder.error = EmitError("fa_deps.noted", "1", "s", 1, ConnectionError())
        collected: list[OnSuccessEmitter] = []

        @router.on(FaDepsNoted, retries=1)
        async def handle(event: FaDepsNoted, events: OnSuccessEmitterDep) -> None:
            events.emit(FaDepsNoted(n=2))
            collected.append(events)
            if len(collected) > 2:
                recorder.error = None

        outcomes = await deliver(router, FaDepsNoted(n=1), emitter=recorder)
        outcomes.done("handle")
        assert [type(one.error) for one in outcomes["handle"].attempts] == [EmitError, EmitError, NoneType]
        assert recorder.only(FaDepsNoted).n == 2
        await collected[-1].emit(FaDepsNoted(n=3))  # as what a handler left behind may do
        assert got(recorder) == [2, 3]

        @router.on(FaDepsNoted)
        async def fail(event: FaDepsNoted, events: OnSuccessEmitterDep) -> None:
            collected.append(events)
            raise NonRetryableError("no")

        (await deliver(router, FaDepsNoted(n=1))).dead("fail")
        with pytest.raises(RuntimeError, match="did not succeed, so they were discarded"):
            collected[-1].emit(FaDepsNoted(n=4))
