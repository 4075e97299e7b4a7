"""The health routes of the admin: live, ready, and not ready while Redis is unavailable or hangs."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis.asyncio import Redis

from rapids._worker.health_check import Limits
from tests.fastapi.helpers import BEARER, STREAM, admin_app, async_client_of, client_for, rapids_with, until
from tests.redis.own_server import own_server
from tests.servers.builds import Build
from tests.support import SOON, eventually, idle_router


class TestHealth:
    def test_live_and_ready_answer_one_word_without_authentication(self, redis_url: str) -> None:
        with client_for(redis_url, routers=[idle_router(stream=STREAM)]) as client:
            for path in ("live", "ready"):
                response = client.get(f"/rapids/health/{path}")
                assert (response.status_code, response.json()) == (200, {"status": "ok"})
                assert response.headers["cache-control"] == "no-store"

    def test_head_answers_with_the_same_status_and_headers(self, redis_url: str) -> None:
        def heads(client: TestClient, path: str) -> None:
            responses = client.get(path), client.head(path)
            assert len({response.status_code for response in responses}) == 1
            assert len({tuple(response.headers.items()) for response in responses}) == 1

        with client_for(redis_url) as client:
            heads(client, "/rapids/health/live")
            heads(client, "/rapids/health/ready")
        heads(client_for("redis://nowhere"), "/rapids/health/ready")

    def test_live_but_not_ready_without_the_lifespan(self) -> None:
        client = client_for("redis://nowhere")
        assert client.get("/rapids/health/live").status_code == 200
        assert client.get("/rapids/health/ready").status_code == 503

    def test_a_router_whose_reader_is_stuck_is_not_ready(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with client_for(redis_url, routers=[idle_router(stream=STREAM)]) as client:
            assert client.get("/rapids/health/ready").status_code == 200
            monkeypatch.setattr(Limits, "of", lambda *_: Limits(-1, -1, 60, 60, 60))
            response = until(lambda: _refused(client))
        assert response.status_code == 503
        assert response.json()["type"] == "urn:rapids:problem:not-ready"


def _refused(client: TestClient) -> Any:
    """The answer of a process that is not ready; it may be a second old."""
    response = client.get("/rapids/health/ready")
    return response if response.status_code == 503 else None


async def test_during_an_outage_it_is_503_and_not_ready(build: Build) -> None:
    async with (
        own_server(build) as server,
        async_client_of(admin_app(rapids_with(server.url, routers=[idle_router(stream=STREAM)])), BEARER) as client,
    ):

        async def is_ready() -> bool:
            return (await client.get("/rapids/health/ready")).status_code == 200

        async def is_not_ready() -> bool:
            return not await is_ready()

        assert await is_ready()
        await server.kill()
        await eventually(is_not_ready)
        assert (await client.get("/rapids/health/live")).status_code == 200
        response = await client.get("/rapids/api/dead-letters")
        assert response.status_code == 503
        assert response.json()["type"] == "urn:rapids:problem:redis-unavailable"
        assert response.headers["retry-after"] == "5"
        assert server.url not in response.text
        await server.start()
        await eventually(is_ready)
        assert (await client.get("/rapids/api/dead-letters")).status_code == 200


async def test_a_server_that_hangs_is_not_ready_within_seconds(build: Build) -> None:
    async with (
        own_server(build) as server,
        Redis.from_url(server.url) as redis,
        async_client_of(admin_app(rapids_with(server.url))) as client,
    ):
        pid = (await redis.info("server"))["process_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(SOON):
                assert (await client.get("/rapids/health/ready")).status_code == 503
        finally:
            os.kill(pid, signal.SIGCONT)

        async def is_ready() -> bool:
            return (await client.get("/rapids/health/ready")).status_code == 200

        await eventually(is_ready)
