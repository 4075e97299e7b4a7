"""Limits: a number of searches, exports and live streams at a time; others are refused until one has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect

from rapids import DeadLetterQueue
from rapids_fastapi import AdminLimits, Rapids
from rapids_fastapi.admin import access, progress
from tests.fastapi.admin_paths import guarded
from tests.fastapi.helpers import BEARER, admin_app, put_letter, rapids_with
from tests.support import eventually

API = "/rapids/api"
LIMITED = "x-rapids-limited"


@dataclass
class Served:
    """One application, whose clients may leave."""

    app: FastAPI
    state: dict[str, Any]
    client: httpx.AsyncClient

    def in_progress(self) -> int:
        return sum(self.state["rapids"].in_progress.counts.values())

    async def read_a_part(self, path: str) -> None:
        """Send a request, take the first part of its answer, and then wait until cancelled."""
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"spec_version": "2.4"},
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(name.lower().encode(), value) for name, value in BEARER.items()],
            "http_version": "1.1",
            "scheme": "http",
            "state": self.state,
        }

        async def receive() -> dict[str, Any]:
            return await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.get_running_loop().create_future()

        with suppress(ClientDisconnect):
            await self.app(scope, receive, send)


@pytest.fixture
async def served(redis_url: str) -> AsyncIterator[Served]:
    app = admin_app(rapids_with(redis_url, admin_limits=AdminLimits(searches=1, exports=1, live=1)))
    async with app.router.lifespan_context(app) as state:
        found = dict(state)

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": found}, receive, send)

        transport = httpx.ASGITransport(with_state)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", headers=BEARER) as client:
            yield Served(app, found, client)


@pytest.mark.parametrize("kind", ["exports", "live"])
async def test_a_stream_keeps_its_place_until_its_client_has_left(served: Served, redis_url: str, kind: str) -> None:
    put_letter(redis_url)
    started = await served.client.post(f"{API}/operations", json={"kind": "restore", "selector": {"filter": {}}})
    paths = {"exports": f"{API}/dead-letters/export", "live": f"{API}/operations/{started.json()['id']}/events"}
    reading = asyncio.create_task(served.read_a_part(paths[kind]))
    await eventually(lambda: served.in_progress() == 1)
    refused = await served.client.get(paths[kind])
    problem = refused.json()
    assert (refused.status_code, problem["type"]) == (503, "urn:rapids:problem:too-busy")
    assert problem["detail"] == f"This process runs 1 {'live streams' if kind == 'live' else kind} already."
    assert refused.headers["retry-after"] == {"exports": "10", "live": "5"}[kind]
    assert (await served.client.get(f"{API}/dead-letters")).status_code == 200, "each kind has places of its own"
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await eventually(lambda: served.in_progress() == 0)


@pytest.mark.parametrize("kind", ["exports", "live"])
async def test_who_takes_nothing_of_an_answer_loses_the_place(
    served: Served, redis_url: str, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access, "SEND_TIMEOUT", 0.2)
    put_letter(redis_url)
    started = await served.client.post(f"{API}/operations", json={"kind": "restore", "selector": {"filter": {}}})
    paths = {"exports": f"{API}/dead-letters/export", "live": f"{API}/operations/{started.json()['id']}/events"}
    await served.read_a_part(paths[kind])
    assert served.in_progress() == 0
    [line] = [record.getMessage() for record in caplog.records if "took nothing" in record.getMessage()]
    assert line == f"admin: an answer to {paths[kind]} was ended: its client took nothing for 0.2 s"
    if kind == "exports":
        [ended, *_] = (await served.client.get(f"{API}/audit")).json()["items"]
        assert (ended["action"], ended["details"]) == ("export_ended", {"letters": "0", "end": "interrupted"})


async def test_who_takes_each_part_may_take_longer_in_all(
    served: Served, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "SEND_TIMEOUT", 0.05)
    monkeypatch.setattr(progress, "LOOK_PAUSE", 0.1)
    monkeypatch.setattr(progress, "MAX_SECONDS", 0.5)
    put = put_letter(redis_url)
    body = {"kind": "replay", "selector": {"ids": [put, "1-1"]}, "rate": 0.001}
    started = await served.client.post(f"{API}/operations", json=body)
    events = await served.client.get(f"{API}/operations/{started.json()['id']}/events")
    assert (events.status_code, served.in_progress()) == (200, 0)
    assert "event: progress" in events.text


async def test_searches_wait_for_no_place(served: Served, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, ask = asyncio.Event(), DeadLetterQueue.list
    put = put_letter(redis_url)

    async def slow(queue: DeadLetterQueue, *args: Any, **options: Any) -> Any:
        await go_on.wait()
        return await ask(queue, *args, **options)

    monkeypatch.setattr(DeadLetterQueue, "list", slow)
    first = asyncio.create_task(served.client.get(f"{API}/dead-letters"))
    await eventually(lambda: served.in_progress() == 1)
    body = {"kind": "discard", "selector": {"ids": [put]}, "dry_run": True}
    for refused in (
        await served.client.get(f"{API}/dead-letters"),
        await served.client.get(f"{API}/dead-letters/{put}"),
        await served.client.get(f"{API}/events", params={"correlation_id": "corr-1"}),
        await served.client.post(f"{API}/operations", json=body),
    ):
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    for path in ("causes", "stats"):
        assert (await served.client.get(f"{API}/dead-letters/{path}")).status_code == 200
    go_on.set()
    assert (await first).status_code == 200
    assert (await served.client.get(f"{API}/dead-letters")).status_code == 200
    assert served.in_progress() == 0


async def test_who_is_refused_for_another_reason_takes_no_place(served: Served, redis_url: str) -> None:
    for _ in range(3):
        wrong = {"Authorization": "Bearer wrong"}
        assert (await served.client.get(f"{API}/dead-letters", headers=wrong)).status_code == 401
        assert (await served.client.get(f"{API}/dead-letters?limit=0")).status_code == 422
        assert (await served.client.get(f"{API}/dead-letters/1-1")).status_code == 404
    assert served.in_progress() == 0


def test_the_documentation_says_which_routes_are_limited() -> None:
    limited = {key for key, operation in guarded().items() if LIMITED in operation}
    documented = {
        key for key, one in guarded().items() if "`too-busy`" in one["responses"].get("503", {})["description"]
    }
    assert limited == documented
    assert ("GET", f"{API}/dead-letters/export") in limited


@pytest.mark.parametrize("name", ["searches", "exports", "live"])
def test_a_limit_that_makes_no_sense_is_refused_by_name(name: str) -> None:
    wrong: list[Any] = [0, -1, 1_001]
    for given in wrong:
        with pytest.raises(ValueError, match=rf"^{name} must be a whole number from 1 to 1,000, not {given}$"):
            AdminLimits(**{name: given})
    wrong = [True, 1.5, "2", None]
    for given in wrong:
        with pytest.raises(TypeError, match=f"^{name} must be a whole number from 1 to 1,000, not "):
            AdminLimits(**{name: given})


def test_limits_of_another_kind_are_refused() -> None:
    options: Any = {"admin_limits": 3}
    with pytest.raises(TypeError, match=r"^admin_limits must be an AdminLimits"):
        Rapids(url="redis://localhost", **options)


async def test_the_default_limits(redis_url: str) -> None:
    app = admin_app(rapids_with(redis_url))
    async with app.router.lifespan_context(app) as state:
        assert state["rapids"].in_progress.limits == AdminLimits(searches=8, exports=2, live=50)
