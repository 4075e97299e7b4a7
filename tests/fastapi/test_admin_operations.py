"""Operations over HTTP: start, preview, progress, pause and end; permissions, and one of each kind at a time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from redis.exceptions import ConnectionError

from rapids import EventRouter, GenericEvent, NonRetryableError
from rapids.dead_letters import Operations
from rapids_fastapi import AdminUser
from rapids_fastapi.admin import progress
from tests.fastapi.helpers import DLQ, STREAM, client_for, put_letter, until
from tests.fastapi.served_admin import DLQ as SERVED_DLQ
from tests.fastapi.served_admin import OPERATOR, Serving, app_on, serving
from tests.support import NO_TLS, PATIENCE, idle_router

LETTERS = "/rapids/api/dead-letters"
OPERATIONS = "/rapids/api/operations"
ALL = {"filter": {}}


@pytest.fixture(autouse=True)
def whole_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream lasts until its operation ends: none of those here lasts that long, however slow the machine is."""
    monkeypatch.setattr(progress, "MAX_SECONDS", PATIENCE)


def start(client: TestClient, kind: str = "discard", selector: Any = ALL, **options: Any) -> dict[str, Any]:
    response = client.post(OPERATIONS, json={"kind": kind, "selector": selector, **options})
    assert response.status_code == 202, response.text
    return response.json()


def ended(client: TestClient, operation: dict[str, Any]) -> dict[str, Any]:
    def look() -> Any:
        found = client.get(f"{OPERATIONS}/{operation['id']}").json()
        return found if found["state"] in ("completed", "cancelled", "failed") else None

    return until(look)


def put_many(url: str, count: int, **fields: Any) -> list[str]:
    return [put_letter(url, **fields) for _ in range(count)]


class TestStarting:
    def test_all_that_match_are_moved_and_counted(self, client: TestClient, redis_url: str) -> None:
        put = [put_letter(redis_url, handler="ab"[n % 2]) for n in range(6)]
        response = client.post(
            OPERATIONS, json={"kind": "discard", "selector": {"filter": {"handler": "a"}}, "reason": "test orders"}
        )
        assert response.status_code == 202
        started = response.json()
        assert response.headers["location"] == f"{OPERATIONS}/{started['id']}"
        assert (started["kind"], started["total"], started["total_exact"]) == ("discard", 3, True)
        assert (started["dlq"], started["actor"], started["reason"]) == (DLQ, "admin", "test orders")
        assert started["selector"] == {"filter": {"handler": "a"}}
        done = ended(client, started)
        assert (done["state"], done["done"], done["skipped"], done["failed"], done["errors"]) == (
            *("completed", 3, 0, 0),
            [],
        )
        assert done["ended_at"] is not None
        assert [letter["id"] for letter in client.get(LETTERS).json()["items"]] == put[1::2][::-1]
        assert client.get(response.headers["location"]).json() == done
        (change,) = client.get(f"{LETTERS}/{put[0]}").json()["history"]
        assert (change["action"], change["actor"], change["reason"]) == ("discarded", "admin", "test orders")
        assert change["operation"] == started["id"]

    def test_replays_and_restores(self, client: TestClient, redis_url: str) -> None:
        put = put_many(redis_url, 4)
        assert ended(client, start(client, "discard", {"ids": put[:2]}))["done"] == 2
        restored = ended(client, start(client, "restore", {"ids": put[:2]}))
        assert restored["done"] == 2
        fingerprint = client.get(f"{LETTERS}/causes").json()["items"][0]["fingerprint"]
        replay = ended(client, start(client, "replay", {"fingerprint": fingerprint}, rate=1_000, max_items=3))
        assert (replay["done"], replay["rate"], replay["max_items"], replay["scope"]) == (3, 1_000, 3, "handler")
        assert client.get(f"{LETTERS}/stats").json()["length"] == 1

    def test_a_dry_run_changes_nothing_and_answers_a_preview(self, client: TestClient, redis_url: str) -> None:
        put = put_many(redis_url, 30, data='{"password": "hunter2"}')
        response = client.post(OPERATIONS, json={"kind": "replay", "selector": ALL, "dry_run": True, "max_items": 25})
        assert response.status_code == 200
        preview = response.json()
        assert (preview["dlq"], preview["total"], preview["total_exact"]) == (DLQ, 25, True)
        assert [letter["id"] for letter in preview["sample"]] == put[:20]
        assert (preview["checked"], preview["unparseable"]) == (25, 25)  # no class is registered for them
        assert "hunter2" not in response.text
        assert client.get(f"{LETTERS}/stats").json()["length"] == 30
        assert client.get(OPERATIONS).json()["items"] == []

    @pytest.mark.parametrize(
        "body",
        [
            {"kind": "replay"},
            {"kind": "replay", "selector": {}},
            {"kind": "replay", "selector": {"filter": {}, "ids": ["1-1"]}},
            {"kind": "replay", "selector": {"ids": []}},
            {"kind": "replay", "selector": {"ids": ["x"]}},
            {"kind": "replay", "selector": {"ids": ["1-1"] * 1_001}},
            {"kind": "replay", "selector": {"fingerprint": "x"}},
            {"kind": "replay", "selector": {"filter": {"since": "yesterday"}}},
            {"kind": "replay", "selector": {"filter": {"colour": "red"}}},
            {"kind": "erase", "selector": {"filter": {}}},
            {"kind": "replay", "selector": {"filter": {}}, "rate": 0},
            {"kind": "replay", "selector": {"filter": {}}, "max_items": 0},
            {"kind": "replay", "selector": {"filter": {}}, "scope": "nobody"},
            {"kind": "replay", "selector": {"filter": {}}, "canary": {"share": 1.01}},
            {"kind": "replay", "selector": {"filter": {}}, "canary": {"wait": 0}},
            {"kind": "replay", "selector": {"filter": {}}, "canary": 0.1},
            {"kind": "replay", "selector": {"filter": {}}, "canary": {}, "scope": "everyone"},
            {"kind": "discard", "selector": {"filter": {}}, "canary": {}},
        ],
    )
    def test_an_invalid_request_is_422(self, client: TestClient, body: dict[str, Any]) -> None:
        response = client.post(OPERATIONS, json=body)
        assert (response.status_code, response.json()["type"]) == (422, "urn:rapids:problem:invalid")

    def test_hidden_text_cannot_be_found_by_counting(self, client: TestClient, redis_url: str) -> None:
        put_letter(redis_url, data='{"password": "hunter2"}')
        selector = {"filter": {"q": "hunter2"}}
        response = client.post(OPERATIONS, json={"kind": "replay", "selector": selector, "dry_run": True})
        assert response.status_code == 422
        assert "ids" in response.json()["detail"]
        with client_for(redis_url, redact=None) as frank:
            found = frank.post(OPERATIONS, json={"kind": "replay", "selector": selector, "dry_run": True})
        assert found.json()["total"] == 1


@pytest.fixture
def held(client: TestClient, redis_url: str) -> dict[str, Any]:
    """An operation that takes longer than any test."""
    put_many(redis_url, 20)
    return start(client, "discard", rate=0.01, reason="slowly")


class TestOneAtATime:
    def test_a_second_operation_of_its_kind_is_409_and_names_the_first(
        self, client: TestClient, held: dict[str, Any]
    ) -> None:
        response = client.post(OPERATIONS, json={"kind": "discard", "selector": ALL})
        problem = response.json()
        assert (response.status_code, problem["type"]) == (409, "urn:rapids:problem:operation-running")
        assert (problem["operation"], problem["kind"]) == (held["id"], "discard")
        assert start(client, "replay", {"ids": ["1-1"]})["kind"] == "replay"

    def test_paused_resumed_and_cancelled(self, client: TestClient, held: dict[str, Any]) -> None:
        path = f"{OPERATIONS}/{held['id']}"
        assert client.post(f"{path}/pause", json={"reason": "wait"}).json()["state"] == "paused"
        assert client.post(f"{path}/pause", json={}).json()["state"] == "paused"
        assert client.post(OPERATIONS, json={"kind": "discard", "selector": ALL}).status_code == 409
        assert client.post(f"{path}/resume", json={}).json()["state"] == "running"
        cancelled = client.post(f"{path}/cancel", json={"reason": "enough"}).json()
        assert cancelled["state"] == "cancelled"
        for change in ("pause", "resume"):
            response = client.post(f"{path}/{change}", json={})
            assert (response.status_code, response.json()["type"]) == (409, "urn:rapids:problem:operation-state")
            assert response.json()["state"] == "cancelled"
        assert start(client, "discard", {"ids": ["1-1"]})

    def test_an_unknown_operation_is_404(self, client: TestClient) -> None:
        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/pause"), ("POST", "/cancel")):
            response = client.request(method, f"{OPERATIONS}/nothing{path}", json={} if method == "POST" else None)
            assert (response.status_code, response.json()["type"]) == (404, "urn:rapids:problem:operation-not-found")

    def test_lists_have_pages_newest_first(self, client: TestClient) -> None:
        started = []
        for _ in range(5):
            started.append(start(client, "discard", {"ids": ["1-1"]})["id"])
            ended(client, {"id": started[-1]})
        seen: list[str] = []
        url = f"{OPERATIONS}?limit=2"
        while True:
            response = client.get(url)
            seen += [operation["id"] for operation in response.json()["items"]]
            if response.json()["next_cursor"] is None:
                break
            url = response.links["next"]["url"]
        assert seen == started[::-1]
        assert len(client.get(f"{OPERATIONS}?limit=200").json()["items"]) == 5


class TestPermissions:
    @pytest.mark.parametrize(
        ("kind", "permission"), [("replay", "replay"), ("discard", "discard"), ("restore", "discard")]
    )
    def test_each_kind_needs_its_permission(self, redis_url: str, kind: str, permission: str) -> None:
        other = {"replay": "discard", "discard": "replay"}[permission]
        put = put_many(redis_url, 2)
        with client_for(redis_url) as operator:
            if kind == "restore":
                ended(operator, start(operator, "discard"))
            held = start(operator, kind, {"ids": put}, rate=0.01)
            operator.post(f"{OPERATIONS}/{held['id']}/pause", json={})
            with client_for(redis_url, admin_auth=lambda _: AdminUser("ann", [other, "read", "edit"])) as client:
                for dry_run in (True, False):
                    body = {"kind": kind, "selector": ALL, "dry_run": dry_run}
                    self.is_refused(client.post(OPERATIONS, json=body), permission)
                for change in ("pause", "resume", "cancel"):
                    self.is_refused(client.post(f"{OPERATIONS}/{held['id']}/{change}", json={}), permission)
                assert client.get(f"{OPERATIONS}/{held['id']}").json()["state"] == "paused"
            with client_for(redis_url, admin_auth=lambda _: AdminUser("bob", [permission])) as client:
                assert client.post(f"{OPERATIONS}/{held['id']}/cancel", json={}).json()["state"] == "cancelled"

    def test_a_dry_run_needs_the_permission_read(self, redis_url: str) -> None:
        put_letter(redis_url, data='{"where": "home"}')
        with client_for(redis_url, admin_auth=lambda _: AdminUser("bob", ["replay"])) as client:
            response = client.post(OPERATIONS, json={"kind": "replay", "selector": ALL, "dry_run": True})
            self.is_refused(response, "read")
            assert "home" not in response.text

    @staticmethod
    def is_refused(response: Any, permission: str) -> None:
        assert (response.status_code, response.json()["type"]) == (403, "urn:rapids:problem:forbidden")
        assert response.json()["permission"] == permission


def test_with_several_queues_the_location_names_the_queue(redis_url: str) -> None:
    routers = [idle_router(stream=STREAM, group=group, dlq_stream=f"fa:{group}&") for group in ("a", "b")]
    with client_for(redis_url, routers=routers, emitter=None) as client:
        body = {"kind": "discard", "selector": {"ids": ["1-1"]}}
        assert client.post(OPERATIONS, json=body).json()["type"] == "urn:rapids:problem:dlq-needed"
        response = client.post(OPERATIONS, json=body, params={"dlq": "fa:a&"})
        assert response.headers["location"] == f"{OPERATIONS}/{response.json()['id']}?dlq=fa%3Aa%26"
        assert client.get(response.headers["location"]).json()["dlq"] == "fa:a&"


def events(text: str) -> Iterator[dict[str, str]]:
    for block in text.strip("\n").split("\n\n"):
        lines = [line.partition(": ") for line in block.split("\n")]
        yield {name: value for name, _, value in lines}


class TestWatching:
    def test_progress_until_it_has_ended(self, client: TestClient, redis_url: str) -> None:
        put_many(redis_url, 20)
        started = start(client, "discard", rate=20)
        response = client.get(f"{OPERATIONS}/{started['id']}/events")
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["content-security-policy"] == "frame-ancestors 'none'"
        sent = list(events(response.text))
        assert sent[0] == {"retry": "1000"}
        *under_way, last = sent[1:]
        assert last["event"] == "ended"
        assert {event["event"] for event in under_way} == {"progress"}
        assert len({event["id"] for event in sent[1:]}) == len(sent[1:]) > 1
        assert json.loads(last["data"]) == client.get(f"{OPERATIONS}/{started['id']}").json()
        again = client.get(f"{OPERATIONS}/{started['id']}/events", headers={"Last-Event-ID": last["id"]})
        assert (again.status_code, again.content) == (204, b"")
        assert again.headers["cache-control"] == "no-store"
        other = client.get(f"{OPERATIONS}/{started['id']}/events", headers={"Last-Event-ID": "older"})
        assert [event.get("event") for event in events(other.text)] == [None, "ended"]

    def test_a_stream_ends_in_time_and_continues_after_a_reconnect(
        self, client: TestClient, held: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = f"{OPERATIONS}/{held['id']}"
        until(lambda: client.get(path).json()["done"] == 1)  # the first is moved at once
        client.post(f"{path}/pause", json={})
        until(lambda: client.get(path).json()["owner"] == "")  # the process that had it has seen the pause
        monkeypatch.setattr(progress, "MAX_SECONDS", 1.0)
        monkeypatch.setattr(progress, "LOOK_PAUSE", 0.02)
        monkeypatch.setattr(progress, "KEEP_ALIVE_PAUSE", 0.1)
        response = client.get(f"{path}/events")
        assert ": nothing new\n\n" in response.text
        (event,) = [event for event in events(response.text) if "data" in event]
        assert (event["event"], json.loads(event["data"])["state"]) == ("progress", "paused")
        again = client.get(f"{path}/events", headers={"Last-Event-ID": event["id"]})
        assert again.status_code == 200
        assert "data:" not in again.text

    def test_an_outage_is_an_event(
        self, client: TestClient, held: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask, asked = Operations.get, 0

        async def gone(operations: Operations, operation_id: str) -> Any:
            nonlocal asked
            asked += 1
            if asked > 1:
                raise ConnectionError("gone")
            return await ask(operations, operation_id)

        monkeypatch.setattr(Operations, "get", gone)
        response = client.get(f"{OPERATIONS}/{held['id']}/events")
        *_, last = events(response.text)
        assert last["event"] == "problem"
        assert json.loads(last["data"])["type"] == "urn:rapids:problem:redis-unavailable"

    def test_hostile_text_ends_no_event(self, client: TestClient, redis_url: str) -> None:
        hostile = "a\n\ndata: b\r\revent: ended\u2028\x00"
        started = start(client, "discard", {"ids": ["1-1"]}, reason=hostile)
        ended(client, started)
        response = client.get(f"{OPERATIONS}/{started['id']}/events")
        (event,) = [event for event in events(response.text) if "data" in event]
        assert json.loads(event["data"])["reason"] == hostile


def test_errors_of_letters_are_shown_without_what_looks_like_a_secret(client: TestClient, redis_url: str) -> None:
    bad = put_letter(redis_url, original_stream="password=hunter2 {}")
    put_letter(redis_url)
    done = ended(client, start(client, "replay"))
    assert (done["state"], done["done"], done["failed"]) == ("completed", 1, 1)
    (error,) = done["errors"]
    assert error["letter_id"] == bad
    assert "hunter2" not in error["error"]


class TestCanary:
    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[TestClient]:
        """An operator's client of an application with a router whose handler fails for good."""
        router = EventRouter(stream=STREAM, group="group", dlq_stream=DLQ)

        @router.on("fa.thing", name="handle")
        async def handle(event: GenericEvent) -> None:
            raise NonRetryableError(f"the password is {event.data['password']}")

        with client_for(redis_url, routers=[router]) as client:
            yield client

    def test_it_stops_by_itself_with_both_errors_and_continues_without(
        self, client: TestClient, redis_url: str
    ) -> None:
        put = put_many(redis_url, 8, data='{"password": "hunter2"}', error="no entry with hunter2")
        body = {"kind": "replay", "selector": ALL, "canary": {"share": 0.5}}
        assert client.post(OPERATIONS, json={**body, "dry_run": True}).json()["steps"] == [1, 5, 2]
        started = start(client, **body)
        path = f"{OPERATIONS}/{started['id']}"
        assert (started["canary"]["share"], started["canary"]["wait"]) == (0.5, 3_600)
        stopped = until(lambda: (one := client.get(path).json())["state"] == "paused" and one)
        canary = stopped["canary"]
        assert (stopped["done"], canary["stopped"], canary["failed_again"]) == (1, "failed_again", 1)
        assert canary["why"] == "1 of 1 replays of step 1 failed again: a share of 1, and 0.5 is allowed"
        step = {"step": 1, "size": 1, "sent": 1, "handled": 0, "failed_again": 1, "waiting": 0}
        assert canary["steps"] == [step]
        (failure,) = canary["failures"]
        (new,) = client.get(f"{LETTERS}/{put[0]}").json()["replays"][0]["letters"]
        assert failure == {
            "letter_id": put[0],
            "outcome": "failed_again",
            "error_type": "RuntimeError",
            "error": "no entry with [redacted]",
            "new_letter_id": new,
            "new_error_type": "rapids.exceptions.NonRetryableError",
            "new_error": "the password is [redacted]",
        }
        (listed,) = client.get(OPERATIONS).json()["items"]
        assert listed["canary"] == {**canary, "failures": []}
        assert client.post(OPERATIONS, json=body).status_code == 409
        resumed = client.post(f"{path}/resume", json={"reason": "try once more"}).json()
        assert (resumed["state"], resumed["canary"]["stopped"]) == ("running", None)
        until(lambda: client.get(path).json()["state"] == "paused")
        assert client.post(f"{path}/resume", json={"canary": False}).json()["canary"] is None
        assert ended(client, started)["done"] == 8
        log = client.get("/rapids/api/audit").json()["items"]
        assert json.loads(next(one for one in log if one["action"] == "operation_started")["details"]["canary"]) == {
            "share": 0.5,
            "wait": 3600.0,
        }

    def test_its_progress_is_an_event(self, client: TestClient, redis_url: str) -> None:
        put_many(redis_url, 1, data='{"password": "hunter2"}')
        started = start(client, "replay", canary={"share": 0})
        sent = [event for event in events(client.get(f"{OPERATIONS}/{started['id']}/events").text) if "data" in event]
        last = json.loads(sent[-1]["data"])
        assert (sent[-1]["event"], last["canary"]["stopped"]) == ("ended", "failed_again")
        assert last == client.get(f"{OPERATIONS}/{started['id']}").json()
        assert len({event["id"] for event in sent}) == len(sent)


class TestServed:
    """Under uvicorn, which waits at shutdown for answers that are not complete."""

    @pytest.fixture
    def paused(self, redis_url: str) -> Iterator[str]:
        put_many(redis_url, 3, dlq=SERVED_DLQ)
        with serving(app_on(redis_url)) as base:
            body = {"kind": "discard", "selector": ALL, "rate": 0.01}
            operation = httpx.post(
                f"{base}{OPERATIONS}", json=body, headers=OPERATOR, timeout=60, verify=NO_TLS
            ).json()["id"]
            path = f"{base}{OPERATIONS}/{operation}"
            assert httpx.post(f"{path}/pause", json={}, headers=OPERATOR, timeout=60, verify=NO_TLS).status_code == 200
            yield f"{path}/events"

    def test_a_stream_does_not_delay_the_shutdown(self, paused: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress, "MAX_SECONDS", 1.0)
        lines: list[str] = []
        with httpx.stream("GET", paused, headers=OPERATOR, timeout=60, verify=NO_TLS) as response:
            for line in response.iter_lines():
                lines.append(line)
                if line.startswith("data:"):
                    for thread in threading.enumerate():
                        if isinstance(thread, Serving):
                            thread.server.should_exit = True
        assert "event: progress" in lines
        assert "event: problem" not in lines
        until(lambda: not any(isinstance(thread, Serving) for thread in threading.enumerate()))

    def test_after_the_client_disconnects_the_operation_is_not_read_any_more(
        self, paused: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask, asked = Operations.get, 0

        async def counted(operations: Operations, operation_id: str) -> Any:
            nonlocal asked
            asked += 1
            return await ask(operations, operation_id)

        monkeypatch.setattr(Operations, "get", counted)
        monkeypatch.setattr(progress, "LOOK_PAUSE", 0.01)
        with httpx.stream("GET", paused, headers=OPERATOR, timeout=60, verify=NO_TLS) as response:
            until(lambda: asked > 2)
            assert response.status_code == 200

        def is_quiet() -> bool:
            before = asked
            time.sleep(0.1)
            return asked == before

        until(is_quiet)
