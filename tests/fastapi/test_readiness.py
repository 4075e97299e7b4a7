"""Readiness over HTTP: what probes cost, their answers, and the log."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from rapids import EventEmitter, EventRouter, RouterHealth, readiness
from rapids.exceptions import NotConfiguredError
from rapids_fastapi import Rapids
from tests.embedded.scripts import private_temp
from tests.fastapi.helpers import STREAM, admin_app, async_client_of, until
from tests.fastapi.test_uvicorn import served
from tests.redis.own_server import own_server
from tests.servers.builds import Build
from tests.support import NO_TLS, eventually, idle_router

__all__ = ["private_temp"]

STUCK = RouterHealth(False, "reader_stuck", "the reader has taken no turn for 99 s", STREAM, "g")
FINE = RouterHealth(True, "caught_up", "everything was delivered", STREAM, "g")


class Looks:
    """Replaces the health of routers by a given one, and counts how often it is read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.health = FINE
        looks = self

        async def health(self: EventRouter) -> RouterHealth:
            looks.count += 1
            return looks.health

        monkeypatch.setattr(EventRouter, "health", health)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(monkeypatch)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "ready" in record.getMessage()]


async def test_probes_within_a_second_share_one_check(
    redis: Redis, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    rapids = Rapids(redis=redis, routers=[idle_router(stream=STREAM)])
    async with rapids.lifespan() as state:
        running = state["rapids"]
        assert all(await asyncio.gather(*(running.is_ready() for _ in range(50))))
        assert await running.is_ready()
        assert looks.count == 1
        monkeypatch.setattr(readiness, "_FRESH", -1.0)
        assert await running.is_ready()
        assert looks.count == 2


async def test_the_log_has_the_reason_once_and_the_end(
    redis: Redis, looks: Looks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(readiness, "_FRESH", -1.0)
    app = admin_app(Rapids(redis=redis, routers=[idle_router(stream=STREAM)]))
    caplog.set_level(logging.INFO, "rapids")
    async with async_client_of(app) as client:
        assert (await client.get("/rapids/health/ready")).status_code == 200
        looks.health = STUCK
        for _ in range(3):
            answer = await client.get("/rapids/health/ready")
            assert answer.status_code == 503
            for detail in ("reader", "99", STREAM, "'g'"):
                assert detail not in answer.text.replace("already", "")
        looks.health = FINE
        for _ in range(3):
            assert (await client.get("/rapids/health/ready")).status_code == 200
    begun, over = said(caplog)
    assert begun == f"not ready: the router of group 'g' on stream '{STREAM}': reader_stuck: {STUCK.message}"
    assert over.startswith("ready again after ")


async def test_with_an_emitter_only_it_is_ready_while_redis_answers(
    build: Build, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(readiness, "_FRESH", -1.0)
    async with (
        own_server(build) as server,
        Redis.from_url(server.url) as redis,
        Rapids(redis=redis, emitter=EventEmitter(stream=STREAM)).lifespan() as state,
    ):
        ready = state["rapids"].is_ready
        assert await ready()
        await server.kill()
        assert not await ready()
        await server.start()
        assert await eventually(ready)
        pid = (await redis.info("server"))["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            assert not await asyncio.wait_for(ready(), 30)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert await eventually(ready)
    begun, over, begun_again, _ = said(caplog)
    assert begun.startswith("not ready: Redis unavailable: ")
    assert begun_again.startswith("not ready: Redis unavailable: ")
    assert over.startswith("ready again after ")


async def test_the_emitters_own_redis_must_answer(build: Build, redis: Redis) -> None:
    async with (
        own_server(build) as server,
        Redis.from_url(server.url) as own,
        Rapids(redis=redis, emitter=EventEmitter(own, stream=STREAM)).lifespan() as state,
    ):
        await server.kill()
        assert not await state["rapids"].is_ready()


async def test_an_emitter_without_a_client_cannot_ping() -> None:
    with pytest.raises(NotConfiguredError, match="no Redis client"):
        await EventEmitter(stream=STREAM).ping()


async def test_a_paused_group_is_ready(redis: Redis) -> None:
    router = idle_router(redis, stream=STREAM)
    async with Rapids(redis=redis, routers=[router]).lifespan() as state:
        await router.pause()
        await EventEmitter(redis, STREAM).emit([])
        assert await state["rapids"].is_ready()
        await router.resume()


BLOCKING = """
import time
from rapids._worker import health_check
health_check.MEMORY = 2.0

@router.on(FaServedNoted, name="blocks")
async def block(event: FaServedNoted) -> None:
    if event.n == 99:
        time.sleep(5)
"""


@pytest.mark.integration
@pytest.mark.usefixtures("private_temp")
def test_a_handler_that_blocks_the_event_loop_blocks_probes_and_is_logged(tmp_path: Path) -> None:
    with served(tmp_path, more=BLOCKING) as server:
        until(server.answers)
        with suppress(httpx.TimeoutException):  # the event may be handled before the answer is sent
            httpx.post(server.url + "/99", timeout=0.5, verify=NO_TLS)

        def probe() -> int | None:
            try:
                return httpx.get(server.url + "/rapids/health/ready", timeout=1.0, verify=NO_TLS).status_code
            except httpx.TimeoutException:
                return None

        seen: list[int | None] = []
        until(lambda: seen.append(probe()) or (503 in seen and seen[-1] == 200))
        assert None in seen
        server.process.terminate()
        output = server.process.communicate(timeout=60)[0]
    assert "not ready: the router of group 'default' on stream 'served': loop_blocked: " in output
