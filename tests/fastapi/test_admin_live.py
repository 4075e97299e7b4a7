"""Live updates: one stream of events for letters, groups, pauses and operations, which continues after a reconnect."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from redis.asyncio import Redis

from rapids_fastapi import Rapids
from rapids_fastapi.admin import changes, progress
from tests.fastapi.helpers import BEARER, DLQ, STREAM, admin_app, async_client_of, client_of, put_letter, until
from tests.support import PATIENCE, idle_router

LIVE = "/rapids/api/live"
KINDS = ["letters", "groups", "pauses", "operations"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_SECONDS", 0.0)  # one look
    monkeypatch.setattr(changes, "FRESH", 0.0)
    monkeypatch.setattr("rapids.inspection.overview.FRESH", 0.0)


@pytest.fixture
def client(redis_url: str) -> Iterator[TestClient]:
    router = idle_router(stream=STREAM, group="payments")
    with client_of(admin_app(Rapids(url=redis_url, routers=[router], watch=[])), BEARER) as client:
        until(lambda: '"consumers_alive": 1' in client.get(LIVE).text)
        yield client


def events(text: str) -> list[tuple[str, str, Any]]:
    found = [dict(line.split(": ", 1) for line in block.split("\n")) for block in text.strip("\n").split("\n\n")]
    return [(one["id"], one["event"], json.loads(one["data"])) for one in found if "data" in one]


def names(text: str) -> list[str]:
    return [name for _, name, _ in events(text)]


def test_a_client_that_reconnects_gets_only_the_kinds_that_have_changed(client: TestClient, redis_url: str) -> None:
    put_letter(redis_url, original_group="payments", handler="take_payment", error="secret of an error")
    first = client.get(LIVE)
    assert first.headers["content-type"].startswith("text/event-stream")
    assert (first.headers["cache-control"], first.headers["x-accel-buffering"]) == ("no-store", "no")
    assert first.text.startswith("retry: 1000\n\n")
    found = events(first.text)
    assert [name for _, name, _ in found] == KINDS
    assert all(data["complete"] for _, _, data in found)
    [letters], [group], pauses, operations = (data["items"] for _, _, data in found)
    assert (letters["dlq"], letters["length"], letters["causes"]) == (DLQ, 1, 1)
    assert (group["stream"], group["group"], group["lag"], group["dead_letters"]) == (STREAM, "payments", 0, 1)
    assert (pauses, operations) == ([], [])
    assert "secret" not in first.text

    last = found[-1][0]
    assert names(client.get(LIVE, headers={"Last-Event-ID": last}).text) == []
    assert names(client.get(LIVE, headers={"Last-Event-ID": found[1][0]}).text) == ["pauses", "operations"]
    assert names(client.get(LIVE, headers={"Last-Event-ID": "made.up"}).text) == KINDS

    body = {"stream": STREAM, "group": "payments", "reason": "secret reason"}
    assert client.post("/rapids/api/groups/pause", json=body).status_code == 200
    [(last, name, data)] = events(client.get(LIVE, headers={"Last-Event-ID": last}).text)
    assert (name, data["complete"]) == ("pauses", True)
    assert (data["items"][0]["group"], list(data["items"][0])) == ("payments", ["stream", "group", "since"])

    selected: dict[str, Any] = {"kind": "discard", "selector": {"filter": {}}}
    started = client.post("/rapids/api/operations", json=selected).json()
    until(lambda: client.get(f"/rapids/api/operations/{started['id']}").json()["state"] == "completed")
    found = events(client.get(LIVE, headers={"Last-Event-ID": last}).text)
    assert [name for _, name, _ in found] == ["letters", "groups", "operations"]
    [operation] = found[-1][2]["items"]
    assert (operation["id"], operation["kind"], operation["done"]) == (started["id"], "discard", 1)
    assert "selector" not in operation


async def test_who_listens_gets_what_changes_and_one_read_serves_all(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LOOK_PAUSE", 0.02)
    monkeypatch.setattr(progress, "MAX_SECONDS", PATIENCE)
    monkeypatch.setattr(changes, "FRESH", 0.1)
    read, reads = changes.OverviewReader.read, 0

    async def counted(overview: changes.OverviewReader) -> Any:
        nonlocal reads
        reads += 1
        async with Redis.from_url(redis_url) as redis:
            await redis.xadd(STREAM, {"event_type": "unknown"})
        if reads == 5:
            monkeypatch.setattr(progress, "MAX_SECONDS", 0.0)
            monkeypatch.setattr(changes, "FRESH", PATIENCE)
        return await read(overview)

    monkeypatch.setattr(changes.OverviewReader, "read", counted)
    routers = [idle_router(stream=STREAM, group=group) for group in ("mail", "payments")]
    async with async_client_of(admin_app(Rapids(url=redis_url, routers=routers, watch=[])), BEARER) as client:
        answers = await asyncio.gather(*(client.get(LIVE) for _ in range(10)))
    assert reads == 5
    heard = [[data for _, name, data in events(answer.text) if name == "groups"] for answer in answers]
    for first, *later in heard:
        assert (first["complete"], [one["group"] for one in first["items"]]) == (True, ["mail", "payments"])
        assert not any(data["complete"] for data in later)
    assert max(len(found) for found in heard) > 1


def test_an_outage_is_an_event(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: Any) -> Any:
        raise ConnectionError("gone")

    monkeypatch.setattr(changes.OverviewReader, "read", gone)
    text = client.get(LIVE).text
    assert "event: problem\n" in text
    assert "urn:rapids:problem:redis-unavailable" in text


def test_a_page_that_listens_is_not_asked_for_a_password(client: TestClient) -> None:
    """An `EventSource` has no headers of its own, but the cookie."""
    assert client.post("/rapids/api/session", json={}).status_code == 200
    del client.headers["Authorization"]
    headers = {"Accept": "text/event-stream"}
    assert names(client.get(LIVE, headers=headers).text) == KINDS
    client.cookies.clear()
    refused = client.get(LIVE, headers=headers)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="rapids"')
