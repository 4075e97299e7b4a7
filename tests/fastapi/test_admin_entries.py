"""Entries over HTTP: a stream's by time and id, newest or oldest first, redacted, and one by its id."""

from __future__ import annotations

from typing import Any

import redis as redis_sync
from fastapi.testclient import TestClient

from tests.fastapi.helpers import STREAM

ENTRIES = "/rapids/api/entries"
BASE_MS = 1_763_931_500_000


def fill(raw: redis_sync.Redis, count: int) -> list[str]:
    ids = [f"{BASE_MS + number * 1000}-0" for number in range(count)]
    for number, entry_id in enumerate(ids):
        data = f'{{"number": {number}, "password": "hunter2"}}'
        fields: Any = {"event_type": "fa.thing", "id": f"e{number}", "data": data, "correlation_id": "web-1"}
        raw.xadd(STREAM, fields, id=entry_id)
    return ids


def listed(client: TestClient, **query: Any) -> list[str]:
    """The ids on all pages."""
    found, answer = list[str](), client.get(ENTRIES, params=query)
    while True:
        assert answer.status_code == 200, answer.text
        found += [one["entry_id"] for one in answer.json()["items"]]
        if (cursor := answer.json()["next_cursor"]) is None:
            return found
        answer = client.get(ENTRIES, params=query | {"cursor": cursor})


def test_entries_are_paged_by_time_and_id_in_both_orders(client: TestClient, raw: redis_sync.Redis) -> None:
    ids = fill(raw, 25)
    assert listed(client, limit=7) == ids[::-1]
    assert listed(client, limit=25, order="oldest") == ids
    assert listed(client, start=ids[3], order="oldest", limit=11) == ids[3:]
    assert listed(client, start=ids[3]) == ids[3::-1]
    since, until = "2025-11-23T20:58:25Z", "2025-11-23T20:58:28Z"
    assert listed(client, since=since, until=until, limit=2) == ids[7:4:-1]
    assert listed(client, since=since, until=until, order="oldest", limit=2) == ids[5:8]
    assert listed(client, since=since, until=until, start=ids[9]) == ids[7:4:-1]
    assert listed(client, since=since, until=until, start=ids[6]) == ids[6:4:-1]
    assert listed(client, since=since, start=ids[2], order="oldest", limit=200) == ids[5:]
    assert listed(client, until="1960-01-01") == []


def test_an_entry_is_shown_without_hidden_values(client: TestClient, raw: redis_sync.Redis) -> None:
    [entry_id] = fill(raw, 1)
    raw.xadd(STREAM, {"odd": "\u2028<script>"})  # type: ignore[arg-type]
    for answer in (client.get(ENTRIES), client.get(f"{ENTRIES}/{entry_id}")):
        assert answer.status_code == 200, answer.text
        assert "hunter2" not in answer.text
    found = client.get(f"{ENTRIES}/{entry_id}").json()
    assert (found["event_id"], found["correlation_id"]) == ("e0", "web-1")
    assert found["data"]["value"] == {"number": 0, "password": "[redacted]"}


def test_what_is_not_there_is_said(client: TestClient, raw: redis_sync.Redis) -> None:
    answer = client.get(ENTRIES)
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:rapids:problem:stream-not-found")
    [entry_id] = fill(raw, 1)
    answer = client.get(f"{ENTRIES}/{entry_id[:-1]}1")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:rapids:problem:entry-not-found")
    for wrong in ({"start": "x"}, {"start": "0-0"}, {"order": "x"}, {"cursor": "x"}, {"since": "x"}, {"limit": 0}):
        assert client.get(ENTRIES, params=wrong).status_code == 422, wrong
    raw.delete(STREAM)
    raw.xadd(STREAM, {"a": "b"})  # type: ignore[arg-type]
    raw.xtrim(STREAM, maxlen=0)
    assert listed(client) == []
