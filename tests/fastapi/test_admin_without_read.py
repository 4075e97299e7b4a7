"""Nobody sees content without the permission `read`: every route, with every set of permissions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, cast

import pytest
import redis as redis_sync
from fastapi.testclient import TestClient
from pydantic import model_validator
from starlette.requests import HTTPConnection

from rapids import BaseEvent
from rapids._storage import keys
from rapids_fastapi import AdminUser
from rapids_fastapi.admin.auth import Permission
from tests.fastapi.admin_paths import guarded
from tests.fastapi.helpers import DLQ, STREAM, client_for, put_letter

API = "/rapids/api"
MARK = "kryptonite"
GROUP = "walkers"
ALL = ("read", "replay", "edit", "discard")
SETS = [chosen for size in range(len(ALL) + 1) for chosen in combinations(ALL, size)]
WITHOUT_READ = [chosen for chosen in SETS if "read" not in chosen]


class FaWalked(BaseEvent):
    n: int = 0
    text: str = ""
    texts: dict[str, int] = {}
    header: dict[str, str] = {}

    @model_validator(mode="after")
    def _fits(self) -> FaWalked:
        if self.n == 7:
            raise ValueError(f"not with {self.text}")
        return self


CONTENT = {
    "event_type": "fa.walked",
    "data": json.dumps({"n": 1, "text": MARK, "header": {"name": "authorization", f"{MARK}_value": "hunter2"}}),
    "metadata": json.dumps({"from": MARK}),
    "error": f"no {MARK}",
    "traceback": f"at {MARK}",
    "handler": f"handle_{MARK}",
    "error_type": f"{MARK}Error",
    "correlation_id": MARK,
    "id": f"event-{MARK}",
    "consumer": MARK,
}
UNREADABLE = CONTENT | {"event_type": f"fa.{MARK}", "original_stream": f"{MARK}\n"}


@dataclass
class Walk:
    """One application. Its operator prepares what a user with other permissions then asks for."""

    url: str
    client: TestClient
    asked: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])

    def operator(self, method: str, path: str, **body: Any) -> Any:
        answer = self.client.request(method, f"{API}{path}", json=body or {}, headers={"X-May": " ".join(ALL)})
        assert answer.status_code in (200, 202), answer.text
        return answer.json()

    def ask(self, may: tuple[str, ...], method: str, path: str, *, of: str = "", **options: Any) -> Any:
        self.asked.add((method, API + (of or path.partition("?")[0])))
        return self.client.request(method, f"{API}{path}", headers={"X-May": " ".join(may)}, **options)

    def discarded(self) -> str:
        put = put_letter(self.url, **CONTENT)
        self.operator("DELETE", f"/dead-letters/{put}", reason=f"since {MARK}")
        return put

    def operation(self) -> str:
        """A running operation, which is slow. Another one is ended for it."""
        for one in self.operator_get("/operations")["items"]:
            if one["state"] in ("running", "paused"):
                self.operator("POST", f"/operations/{one['id']}/cancel")
        for _ in range(2):
            put_letter(self.url, **CONTENT)
        selector = {"filter": {"error_type": f"{MARK}Error"}}
        more = {"kind": "replay", "rate": 0.001, "reason": f"since {MARK}", "canary": {}}
        started = self.operator("POST", "/operations", selector=selector, **more)["id"]
        failure = [put_letter(self.url, **CONTENT), "failed_again", put_letter(self.url, **CONTENT)]
        known = {"canary_why": f"group {MARK}", "canary_failures": json.dumps([failure])}
        with redis_sync.Redis.from_url(self.url) as redis:
            redis.hset(keys.operation(DLQ, started), mapping=known)
        return started

    def operator_get(self, path: str) -> Any:
        return self.client.get(f"{API}{path}", headers={"X-May": "read"}).json()


@pytest.fixture
def walk(redis_url: str, raw: redis_sync.Redis) -> Iterator[Walk]:
    def auth(connection: HTTPConnection) -> AdminUser:
        return AdminUser("ann", cast("list[Permission]", connection.headers["x-may"].split()))

    raw.xgroup_create(STREAM, GROUP, mkstream=True)
    with client_for(redis_url, headers={}, admin_auth=auth) as client:
        yield Walk(redis_url, client)


def changes(walk: Walk, may: tuple[str, ...]) -> Iterator[Any]:
    """Answers to all requests that change something."""
    for fields in (CONTENT, UNREADABLE):
        for body in (
            {},
            {"scope": "group"},
            {"patch": {"n": 2}},
            {"patch": {"text": "other"}},
            {"data": {"n": 3}},
            {"patch": {"n": 7}},
            {"patch": {"texts": {MARK[:3]: "x"}}},
            {"patch": {"header": {"name": "x"}}},
            {"data": {"n": "no", "password": "[redacted]"}},
        ):
            put = put_letter(walk.url, **fields)
            path = f"/dead-letters/{put}/replay"
            check = {name: value for name, value in body.items() if name != "scope"}
            yield walk.ask(may, "POST", f"/dead-letters/{put}/check", of="/dead-letters/{letter_id}/check", json=check)
            yield walk.ask(may, "POST", path, of="/dead-letters/{letter_id}/replay", json=body)
            yield walk.ask(may, "POST", path, of="/dead-letters/{letter_id}/replay", json=body)  # it was moved
        put = put_letter(walk.url, **fields)
        path = f"/dead-letters/{put}"
        yield walk.ask(may, "DELETE", path, of="/dead-letters/{letter_id}")
        yield walk.ask(may, "DELETE", path, of="/dead-letters/{letter_id}")
    put = put_letter(walk.url, **CONTENT, **{f"field-{n}": MARK for n in range(4_000)})
    yield walk.ask(may, "DELETE", f"/dead-letters/{put}", of="/dead-letters/{letter_id}")
    restoring = f"/dead-letters/{walk.discarded()}/restore"
    for _ in range(2):
        yield walk.ask(may, "POST", restoring, of="/dead-letters/{letter_id}/restore", json={})
    yield walk.ask(may, "POST", "/dead-letters/reindex", json={})
    for action in ("pause", "resume", "cancel"):
        running = walk.operation()
        if action == "resume":
            walk.operator("POST", f"/operations/{running}/pause", reason=MARK)
        path = f"/operations/{running}/{action}"
        for _ in range(2):
            yield walk.ask(may, "POST", path, of=f"/operations/{{operation_id}}/{action}", json={})
    walk.operation()
    selector = {"filter": {"error_type": f"{MARK}Error"}}
    for kind in ("replay", "discard", "restore"):
        for dry_run in (True, False):
            body = {"kind": kind, "selector": selector, "dry_run": dry_run, "rate": 0.001}
            yield walk.ask(may, "POST", "/operations", json=body)
    place = {"stream": STREAM, "group": GROUP}
    for action in ("pause", "resume"):
        walk.operator("POST", "/groups/pause", **place, reason=f"since {MARK}")
        yield walk.ask(may, "POST", f"/groups/{action}", json=place)
    for method in ("POST", "DELETE"):
        yield walk.ask(may, method, "/session", json={})


def reads(walk: Walk, may: tuple[str, ...]) -> Iterator[Any]:
    """Answers to all requests that only read."""
    put, running = put_letter(walk.url, **CONTENT), walk.operation()
    walk.operator("POST", "/groups/pause", stream=STREAM, group=GROUP, reason=f"since {MARK}")
    for path in ("", "?q=krypto", "/causes", "/stats", "/export"):
        yield walk.ask(may, "GET", f"/dead-letters{path}")
    yield walk.ask(may, "GET", f"/dead-letters/{put}", of="/dead-letters/{letter_id}")
    yield walk.ask(may, "GET", "/operations")
    yield walk.ask(may, "GET", f"/operations/{running}", of="/operations/{operation_id}")
    walk.operator("POST", f"/operations/{running}/cancel")  # so that its stream ends at once
    yield walk.ask(may, "GET", f"/operations/{running}/events", of="/operations/{operation_id}/events")
    looks = (
        "/entries",
        "/overview",
        "/live",
        "/series",
        "/archive",
        "/streams",
        "/groups",
        "/capabilities",
        "/catalog",
    )
    for path in ("/audit", f"/events?correlation_id={MARK}", *looks):
        yield walk.ask(may, "GET", path)
    yield walk.ask(may, "GET", "/entries/1-1", of="/entries/{entry_id}")
    yield walk.ask(may, "GET", f"/groups/pending?group={GROUP}", of="/groups/pending")


@pytest.mark.parametrize("may", WITHOUT_READ, ids="+".join)
def test_no_answer_shows_content_without_read(walk: Walk, may: tuple[str, ...]) -> None:
    for answer in (*changes(walk, may), *reads(walk, may)):
        assert MARK not in answer.text, f"{answer.request.method} {answer.request.url} {answer.text}"
        assert MARK not in str(answer.headers)
    assert walk.asked == set(guarded())


def test_the_walk_meets_content_with_read(walk: Walk) -> None:
    found = [answer for answer in (*changes(walk, ALL), *reads(walk, ALL)) if MARK in answer.text]
    places = {(answer.request.method, answer.request.url.path.split("/")[-1]) for answer in found}
    for place in ("replay", "restore", "pause", "resume", "cancel", "operations", "export", "dead-letters"):
        assert any(path == place for _, path in places), place
    assert {answer.status_code for answer in found} >= {200, 202, 409, 422}


def test_without_read_a_change_still_says_what_was_done(walk: Walk) -> None:
    put = put_letter(walk.url, **CONTENT)
    discarded = walk.ask(("discard",), "DELETE", f"/dead-letters/{put}").json()
    assert (discarded["id"], discarded["state"]) == (put, "discarded")
    restored = walk.ask(("discard",), "POST", f"/dead-letters/{put}/restore", json={}).json()
    assert (restored["id"], restored["state"]) == (put, "dead")
    replayed = walk.ask(("replay", "edit"), "POST", f"/dead-letters/{put}/replay", json={"patch": {"n": 2}}).json()
    assert (replayed["scope"], replayed["diff"]) == ("handler", [])
    assert walk.operator_get(f"/dead-letters/{put}")["history"][-1]["diff"] != []


def test_without_read_nobody_selects_by_text(redis_url: str) -> None:
    put_letter(redis_url, **CONTENT)

    def auth(_: HTTPConnection) -> AdminUser:
        return AdminUser("ann", ["discard"])

    with client_for(redis_url, headers={}, redact=None, admin_auth=auth) as client:
        body = {"kind": "discard", "selector": {"filter": {"q": MARK[:3]}}}
        answer = client.post(f"{API}/operations", json=body)
    assert (answer.status_code, answer.json()["permission"]) == (403, "read")
