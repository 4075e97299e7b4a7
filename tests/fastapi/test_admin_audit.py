"""The audit log over HTTP: all changes, of all queues and streams, in one order."""

from __future__ import annotations

import json
from typing import Any

import redis as redis_sync
from fastapi.testclient import TestClient

from rapids.redaction import MASK
from tests.fastapi.helpers import DLQ, STREAM, client_for, put_letter
from tests.support import idle_router

LETTERS = "/rapids/api/dead-letters"
AUDIT = "/rapids/api/audit"
OPERATIONS = "/rapids/api/operations"
LOGS = (f"{DLQ}:rapids:audit", f"{{{STREAM}}}:rapids:audit")


def audited(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    response = client.get(AUDIT, params=query)
    assert response.status_code == 200, response.text
    return response.json()["items"]


def test_all_changes_newest_first(redis_url: str) -> None:
    with client_for(redis_url, routers=[idle_router(stream=STREAM, group="payments")]) as client:
        put = [put_letter(redis_url, original_group="payments") for _ in range(2)]
        assert audited(client) == []
        client.post(f"{LETTERS}/{put[0]}/replay", json={"reason": "fixed"})
        client.request("DELETE", f"{LETTERS}/{put[1]}", json={"reason": "a test"})
        client.post(f"{LETTERS}/{put[1]}/restore", json={"reason": "no test"})
        group = {"stream": STREAM, "group": "payments"}
        client.post("/rapids/api/groups/pause", json={**group, "reason": "moving"})
        client.post("/rapids/api/groups/resume", json={**group, "reason": "moved"})
        body = {"kind": "discard", "selector": {"ids": [put[1]]}, "reason": "many"}
        operation = client.post("/rapids/api/operations", json=body).json()["id"]
        entries = [entry for entry in audited(client) if entry["action"] != "operation_completed"][::-1]
    assert [(entry["action"], entry["reason"], entry["target"]) for entry in entries] == [
        ("letter_replayed", "fixed", put[0]),
        ("letter_discarded", "a test", put[1]),
        ("letter_restored", "no test", put[1]),
        ("group_paused", "moving", "payments"),
        ("group_resumed", "moved", "payments"),
        ("operation_started", "many", operation),
    ]
    assert {entry["actor"] for entry in entries} == {"admin"}
    assert [entry["stream"] for entry in entries] == [DLQ, DLQ, DLQ, STREAM, STREAM, DLQ]
    assert entries[0]["details"]["scope"] == "handler"
    assert entries[-1]["operation"] == operation


def test_pages_have_each_entry_once_also_with_equal_times(client: TestClient, raw: redis_sync.Redis) -> None:
    for n in range(12):
        for log in LOGS[: 1 + n % 2]:
            raw.xadd(log, {"action": f"a{n}", "letter": "1-1"}, id=f"{1_000 + n // 3}-{n}")
    whole = audited(client)
    assert len(whole) == 18
    assert [entry["action"] for entry in whole] == sorted(
        (entry["action"] for entry in whole), key=lambda action: -int(action[1:])
    )
    for limit in (1, 2, 5, 17, 18):
        seen: list[dict[str, Any]] = []
        url: str | None = f"{AUDIT}?limit={limit}"
        while url is not None:
            response = client.get(url)
            seen += response.json()["items"]
            assert (response.json()["next_cursor"] is None) == ("next" not in response.links)
            url = response.links.get("next", {}).get("url")
        assert seen == whole


def test_text_of_any_kind_is_shown_and_cut(client: TestClient, raw: redis_sync.Redis) -> None:
    hostile = b"<script>\x00\xff\xe2\x80\xae" + b"x" * 5_000
    raw.xadd(LOGS[0], {"action": hostile, "actor": hostile, "reason": hostile, "letter": hostile, hostile: hostile})
    (entry,) = audited(client)
    assert entry["actor"].startswith("<script>\x00\ufffd\u202e")
    assert len(entry["actor"]) == 1_000
    (detail,) = entry["details"]
    assert len(detail) == 1_000


def test_a_text_that_the_command_line_searched_is_not_shown_beside_how_many_letters_have_it(redis_url: str) -> None:
    put_letter(redis_url, data='{"password": "hunter2-secret"}')
    selector = {"filter": {"q": "hunter2-secret", "handler": "a"}}
    with client_for(redis_url, redact=None) as client:  # as Python and the command line do, which search what is stored
        body = {"kind": "discard", "selector": selector, "max_items": 1}
        operation = client.post("/rapids/api/operations", json=body).json()["id"]
        assert f'"q": "{selector["filter"]["q"]}"' in str(audited(client))
    with redis_sync.Redis.from_url(redis_url) as raw:
        raw.xadd(LOGS[0], {"action": "operation_started", "selector": '{"filter": {"q": "hunter2-secr'})
        raw.xadd(LOGS[0], {"action": "export_started", "filter": '["hunter2-secret", "q"]'})
    with client_for(redis_url) as client:
        answers = [client.get(path) for path in (AUDIT, OPERATIONS, f"{OPERATIONS}/{operation}")]
        answers.append(client.get(f"{OPERATIONS}/{operation}/events"))
        entries = audited(client)
    assert "hunter2" not in "".join(answer.text for answer in answers)
    assert answers[2].json()["selector"] == {"filter": {"handler": "a", "q": MASK}}
    assert [entry["details"].get("filter") for entry in entries][:1] == [MASK]
    assert [json.loads(entry["details"]["selector"]) for entry in entries if "total" in entry["details"]] == [
        {"filter": {"handler": "a", "q": MASK}}
    ]


def test_a_text_that_was_searched_is_shown_where_nothing_is_hidden(redis_url: str) -> None:
    with client_for(redis_url, redact=None) as client:
        client.get("/rapids/api/dead-letters/export", params={"q": "hunter2"})
        assert json.loads(audited(client)[-1]["details"]["filter"]) == {"q": "hunter2"}


def test_filters_find_what_is_asked_and_pages_go_on_after_it(client: TestClient, raw: redis_sync.Redis) -> None:
    for n in range(1_200):
        fields = {"action": "letter_discarded", "letter": f"{n}-1", "actor": "ann" if n % 100 == 7 else "bob"}
        raw.xadd(LOGS[0], fields, id=f"{1_000_000 + n}-0")
    raw.xadd(LOGS[1], {"action": "group_paused", "group": "payments", "actor": "ann"}, id="1000006-1")
    assert [entry["target"] for entry in audited(client, action="group_paused")] == ["payments"]
    assert [entry["target"] for entry in audited(client, target="42-1")] == ["42-1"]
    assert len(audited(client, actor="ann", limit=200)) == 13
    assert [entry["stream"] for entry in audited(client, actor="ann", stream=STREAM)] == [STREAM]
    assert len(audited(client, since="1970-01-01T00:16:41.190Z", until="1970-01-01T00:16:41.193Z")) == 3
    assert audited(client, operation="none") == []
    found, url = list[str](), f"{AUDIT}?actor=ann&limit=5"
    while True:
        page = client.get(url)
        found += [entry["target"] for entry in page.json()["items"]]
        if "next" not in page.links:
            break
        url = page.links["next"]["url"]
    assert found == [*(f"{n}-1" for n in range(1107, 0, -100)), "payments"]
    assert client.get(AUDIT, params={"stream": "secret"}).status_code == 404
