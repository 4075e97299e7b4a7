"""SIGTERM to uvicorn under load, with several workers and with reload: it ends, and what was accepted is handled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import redis as redis_sync
from redis.asyncio import Redis

from rapids import BaseEvent
from tests.support import NO_TLS, SOON, eventually, free_port
from tests.worker.helpers import letters, make_router, running, until_settled

pytestmark = pytest.mark.slow

APP = """
import asyncio
import os
from fastapi import FastAPI
from redis.asyncio import Redis
from rapids import BaseEvent, EventEmitter
from rapids_fastapi import EmitterDep, Rapids
from tests.worker.helpers import STREAM, make_router

class OuServed(BaseEvent):
    number: int

router = make_router(None, claim_min_idle_ms=1_000, shutdown_timeout=2.0)

@router.on(OuServed)
async def handle(event: OuServed) -> None:
    await asyncio.sleep(0.02)
    async with Redis.from_url(os.environ["RAPIDS_REDIS_URL"]) as redis:
        await redis.rpush("handled", event.number)

rapids = Rapids(emitter=EventEmitter(stream=STREAM), routers=[router])
app = FastAPI(lifespan=rapids.lifespan)

@app.post("/{number}", status_code=202)
async def emit(number: int, emitter: EmitterDep) -> None:
    await emitter.emit(OuServed(number=number))

@app.get("/pid")
async def pid() -> int:
    return os.getpid()
"""


class OuServed(BaseEvent):
    number: int


class Load:
    """Posts one number after another from two threads, and remembers which were accepted."""

    def __init__(self, url: str) -> None:
        self.accepted: list[int] = []
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._post, args=(first,), daemon=True) for first in (0, 1)]
        for thread in self._threads:
            thread.start()

    def _post(self, number: int) -> None:
        while not self._over.is_set():
            try:
                if httpx.post(f"{self._url}/{number}", timeout=60, verify=NO_TLS).status_code == 202:
                    self.accepted.append(number)
            except httpx.TransportError:
                self._over.wait(0.02)
            number += 2

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(10)


@pytest.fixture
def serve(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], str, Path]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> tuple[subprocess.Popen[bytes], str, Path]:
        app, port = tmp_path / "ou_served_app.py", free_port()
        app.write_text(APP)
        where = ["--app-dir", str(tmp_path), "--port", str(port), "--log-level", "warning"]
        environment = {**os.environ, "RAPIDS_REDIS_URL": redis_url, "PYTHONPATH": os.getcwd()}
        with (tmp_path / "log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "uvicorn", "ou_served_app:app", *where, *options],
                    env=environment,
                    stdout=log,
                    stderr=log,
                    cwd=tmp_path,
                    start_new_session=True,
                )
            )
        return started[-1], f"http://127.0.0.1:{port}", app

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def pid_at(url: str) -> int:
    try:
        return httpx.get(f"{url}/pid", timeout=60, verify=NO_TLS).json()
    except httpx.TransportError:
        return 0


def handled(redis_url: str) -> list[int]:
    with redis_sync.Redis.from_url(redis_url) as client:
        return [int(number) for number in client.lrange("handled", 0, -1)]


async def check_nothing_is_lost(redis: Redis, redis_url: str, accepted: list[int]) -> None:
    """The next consumer finds what is left; each accepted event is handled in the end."""
    router = make_router(redis, claim_min_idle_ms=1_000)

    @router.on(OuServed)
    async def handle(event: OuServed) -> None:
        await redis.rpush("handled", event.number)

    async with running(router):
        await until_settled(redis)
    done = handled(redis_url)
    assert set(accepted) <= set(done)
    assert len(done) - len(set(done)) <= 4  # acknowledgements that were under way
    assert await letters(redis) == []


@pytest.mark.parametrize("options", [["--workers", "2"], ["--reload"]], ids=["workers", "reload"])
async def test_sigterm_under_load_loses_no_accepted_event(
    redis: Redis, redis_url: str, serve: Callable[..., tuple[subprocess.Popen[bytes], str, Path]], options: list[str]
) -> None:
    process, url, app = serve(*options)
    await eventually(lambda: pid_at(url))
    load = Load(url)
    try:
        await eventually(lambda: len(handled(redis_url)) > 20)
        if options == ["--reload"]:  # a reload ends one worker and starts the next, under load as well
            before = pid_at(url)
            app.write_text(APP + "\n# changed\n")
            await eventually(lambda: pid_at(url) not in (0, before))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await eventually(lambda: process.poll() is not None)
        assert time.monotonic() - began < SOON
    finally:
        load.end()
    log = (app.parent / "log").read_text()
    assert "Traceback" not in log, log
    assert len(load.accepted) > 20
    await check_nothing_is_lost(redis, redis_url, load.accepted)
