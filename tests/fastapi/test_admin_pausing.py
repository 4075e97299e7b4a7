"""Pausing and resuming a group over HTTP."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest
import redis as redis_sync
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rapids import BaseEvent, EventRouter
from rapids._storage.keys import Source
from rapids_fastapi import AdminUser, EmitterDep, rapids_admin
from tests.fastapi.helpers import BEARER, STREAM, TOKEN, client_for, rapids_with, until

GROUPS = "/rapids/api/groups"
GROUP = "payments"
PLACE = {"stream": STREAM, "group": GROUP}
KEY = Source(STREAM, GROUP).paused
JSON = {"Content-Type": "application/json"}


class FaPausingOrdered(BaseEvent):
    n: int


@pytest.fixture
def raw(raw: redis_sync.Redis) -> redis_sync.Redis:
    """With the group."""
    raw.xgroup_create(STREAM, GROUP, mkstream=True)
    return raw


@pytest.fixture
def client(raw: redis_sync.Redis, client: TestClient) -> TestClient:
    """On a server that has the group."""
    return client


def shown(client: TestClient) -> Any:
    """The group's pause, which is the same in the page of groups and in the group's details."""
    (group,) = client.get(GROUPS).json()["items"]
    assert client.get(GROUPS, params={"group": GROUP}).json()["group"]["pause"] == group["pause"]
    return group["pause"]


def test_a_paused_group_is_shown_stops_and_continues(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rapids")
    router, handled = EventRouter(stream=STREAM, group=GROUP), list[int]()

    @router.on(FaPausingOrdered)
    async def pay(event: FaPausingOrdered) -> None:
        handled.append(event.n)

    app = FastAPI(lifespan=rapids_with(redis_url, routers=[router]).lifespan)
    app.include_router(rapids_admin)

    @app.post("/orders/{n}")
    async def order(n: int, emitter: EmitterDep) -> str:
        return await emitter.emit(FaPausingOrdered(n=n))

    with TestClient(app, headers=BEARER) as client:  # type: ignore[arg-type]
        client.post("/orders/1")
        until(lambda: handled == [1])
        paused = client.post(f"{GROUPS}/pause", json={**PLACE, "reason": "the bank is down"})
        assert paused.status_code == 200
        pause = paused.json()["pause"]
        assert paused.json() == {**PLACE, "pause": pause}
        assert (pause["actor"], pause["reason"]) == ("admin", "the bank is down")
        assert shown(client) == pause
        until(lambda: "is paused by 'admin'" in caplog.text)
        client.post("/orders/2")
        assert client.get(GROUPS).json()["items"][0]["oldest_unsettled_id"] is not None
        assert handled == [1]
        resumed = client.post(f"{GROUPS}/resume", json=PLACE)
        assert (resumed.status_code, resumed.json()) == (200, {**PLACE, "pause": pause})
        assert shown(client) is None
        until(lambda: handled == [1, 2])


def test_a_second_pause_does_not_change_the_first(client: TestClient) -> None:
    pauses = [client.post(f"{GROUPS}/pause", json={**PLACE, "reason": reason}).json() for reason in ("first", "later")]
    assert pauses[0] == pauses[1]
    assert shown(client)["reason"] == "first"


def test_resuming_a_group_that_is_not_paused(client: TestClient) -> None:
    response = client.post(f"{GROUPS}/resume", json=PLACE)
    assert (response.status_code, response.json()) == (200, {**PLACE, "pause": None})


def test_a_missing_group_or_stream_is_404_and_no_key_is_written(client: TestClient, raw: redis_sync.Redis) -> None:
    for action in ("pause", "resume"):
        response = client.post(f"{GROUPS}/{action}", json={"stream": STREAM, "group": "nobody"})
        assert (response.status_code, response.json()["type"]) == (404, "urn:rapids:problem:group-not-found")
    raw.delete(STREAM)
    for action in ("pause", "resume"):
        response = client.post(f"{GROUPS}/{action}", json=PLACE)
        assert (response.status_code, response.json()["type"]) == (404, "urn:rapids:problem:stream-not-found")
    assert raw.keys("*") == []


def test_the_pause_of_a_deleted_group_can_be_ended(client: TestClient, raw: redis_sync.Redis) -> None:
    client.post(f"{GROUPS}/pause", json=PLACE)
    raw.delete(STREAM)
    assert client.post(f"{GROUPS}/resume", json=PLACE).json()["pause"]["actor"] == "admin"
    assert not raw.exists(KEY)


def test_the_actor_of_a_pause_is_the_authenticated_user(client: TestClient) -> None:
    credentials = base64.b64encode(b"ann:" + TOKEN.encode())
    response = client.post(f"{GROUPS}/pause", json=PLACE, headers={"Authorization": b"Basic " + credentials})
    assert response.json()["pause"]["actor"] == "ann"
    refused = client.post(f"{GROUPS}/pause", json={**PLACE, "actor": "somebody else"})
    assert refused.status_code == 422


@pytest.mark.parametrize("action", ["pause", "resume"])
@pytest.mark.parametrize("permission", ["read", "replay", "discard"])
def test_only_edit_pauses_and_resumes(redis_url: str, raw: redis_sync.Redis, action: str, permission: Any) -> None:
    raw.hset(KEY, "actor", "cli")
    auth = lambda _: AdminUser("ann", [permission])  # noqa: E731
    with client_for(redis_url, headers={}, admin_auth=auth) as client:
        response = client.post(f"{GROUPS}/{action}", json=PLACE)
    assert (response.status_code, response.json()["permission"]) == (403, "edit")
    assert raw.hgetall(KEY) == {"actor": "cli"}


def test_a_page_of_another_origin_may_not_pause(client: TestClient, raw: redis_sync.Redis) -> None:
    credentials = base64.b64encode(b"ann:" + TOKEN.encode())
    headers = {"Authorization": b"Basic " + credentials, "Sec-Fetch-Site": b"cross-site"}
    response = client.post(f"{GROUPS}/pause", json=PLACE, headers=headers)
    assert (response.status_code, response.json()["type"]) == (403, "urn:rapids:problem:cross-origin")
    assert not raw.exists(KEY)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"stream": "fa:orders"}',
        b'{"stream": "fa:orders", "group": ""}',
        b'{"stream": "fa:orders", "group": 7}',
        b'{"stream": "fa:orders", "group": "payments", "more": 1}',
        b'{"stream": "fa:orders", "group": "\\ud800"}',
        b'{"stream": "fa:orders", "group": "payments", "reason": "\\ud800"}',
        b'{"stream": "fa:orders", "group": "payments", "reason": "' + b"x" * 1_001 + b'"}',
    ],
)
def test_an_invalid_body_is_422(client: TestClient, raw: redis_sync.Redis, body: bytes) -> None:
    for action in ("pause", "resume"):
        response = client.post(f"{GROUPS}/{action}", content=body, headers=JSON)
        assert (response.status_code, response.json()["type"]) == (422, "urn:rapids:problem:invalid")
    assert not raw.exists(KEY)


def test_a_reason_is_only_data(client: TestClient) -> None:
    reason = "<script>alert(1)</script>\x00\x1b[31m\u202egnp.exe\u2028'\"; DROP"
    response = client.post(f"{GROUPS}/pause", json={**PLACE, "reason": reason})
    assert response.headers["content-type"] == "application/json"
    assert response.json()["pause"]["reason"] == shown(client)["reason"] == reason


def test_a_pause_written_by_hand_is_shown(client: TestClient, raw: redis_sync.Redis) -> None:
    raw.hset(KEY, mapping={"reason": "r" * 5_000, "since_ms": "9" * 30})
    pause = shown(client)
    assert (pause["actor"], len(pause["reason"])) == ("", 1_000)
    assert pause["since"].startswith("9999-12-31")
