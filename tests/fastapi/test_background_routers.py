"""Routers that fail are logged and restarted."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from rapids import EventRouter, background
from rapids_fastapi import Rapids
from tests.support import eventually, idle_router, ignore


class TestRouters:
    async def test_a_router_that_fails_is_logged_and_restarted(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(background, "RESTART_DELAY", lambda failures: 0.01 * failures)
        die = asyncio.Event()
        starts: list[int] = []

        class FaMortal(EventRouter):
            async def start(self, redis: Redis | None = None) -> None:
                starts.append(len(starts))
                body = asyncio.create_task(super().start(redis))
                fate = asyncio.create_task(die.wait())
                try:
                    await asyncio.wait({body, fate}, return_when=asyncio.FIRST_COMPLETED)
                    if fate.done():
                        die.clear()
                        raise RuntimeError("struck down")
                finally:
                    fate.cancel()
                    body.cancel()
                    await asyncio.wait({body, fate})

        router = FaMortal(stream="fa:life")
        router.on("no.such.event")(ignore)
        async with Rapids(routers=[router], url=redis_url).lifespan() as state:
            assert await state["rapids"].is_ready()
            for times in (2, 3):
                die.set()
                await eventually(lambda times=times: len(starts) == times and router.running)
            assert await eventually(state["rapids"].is_ready)
        assert caplog.text.count("failed, and will be restarted") == 2
        assert "RuntimeError: struck down" in caplog.text
        assert "the router of group 'default' on stream 'fa:life' failed, and will be restarted in" in caplog.text

    async def test_stopping_does_not_wait_for_a_restart(
        self, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(background, "RESTART_DELAY", lambda failures: 3600.0)

        class FaFrail(EventRouter):
            async def start(self, redis: Redis | None = None) -> None:
                body = asyncio.create_task(super().start(redis))
                await eventually(lambda: self.running)
                body.cancel()
                await asyncio.wait({body})
                raise RuntimeError("gone")

        router = FaFrail(stream="fa:life")
        router.on("no.such.event")(ignore)
        async with Rapids(routers=[router], url=redis_url).lifespan() as state:
            await eventually(lambda: "will be restarted in 3600" in caplog.text)
            assert not await state["rapids"].is_ready()

    async def test_a_router_the_application_stops_stays_stopped(
        self, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        router = idle_router(stream="fa:life")
        async with Rapids(routers=[router], url=redis_url).lifespan() as state:
            await router.stop()
            await eventually(lambda: "was stopped by the application and stays stopped" in caplog.text)
            assert not await state["rapids"].is_ready()
        assert not router.running
