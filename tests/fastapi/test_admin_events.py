"""The causation tree over HTTP, and the links of a dead letter."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import redis as redis_sync
from fastapi.testclient import TestClient

from rapids._storage.keys import PARKED, Source
from rapids.redaction import MASK
from tests.fastapi.helpers import DLQ, STREAM, client_for, put_letter
from tests.support import idle_router

EVENTS = "/rapids/api/events"
HOSTILE = "<script>alert(1)</script>\x00\x1b[31m\u202egnp.exe\u2028'\"; DROP"


def put(url: str, event_id: str, cause: str = "", stream: str = STREAM, **more: Any) -> str:
    fields = {
        "event_type": "fa.thing",
        "schema_version": "1",
        "data": '{"n": 1}',
        "id": event_id,
        "timestamp": "2026-01-01T00:00:00+00:00",
        "correlation_id": "corr-1",
        "causation_id": cause,
        "metadata": "{}",
        **more,
    }
    with redis_sync.Redis.from_url(url) as raw:
        return raw.xadd(stream, fields).decode()  # type: ignore[union-attr,arg-type]


def trace(client: TestClient, correlation_id: str = "corr-1", **query: Any) -> dict[str, Any]:
    response = client.get(EVENTS, params={"correlation_id": correlation_id, **query})
    assert response.status_code == 200, response.text
    return response.json()


def test_events_and_letters_with_their_addresses(redis_url: str) -> None:
    router = idle_router(stream=STREAM, group="group", dlq_stream=DLQ)
    with client_for(redis_url, routers=[router]) as client:
        entry_id = put(redis_url, "event-1")
        put(redis_url, "event-2", "event-1")
        put(redis_url, "event-3", correlation_id="corr-2")
        letter_id = put_letter(redis_url, original_msg_id=entry_id)
        tree = trace(client)
        assert [(event["event_id"], event.get("parent"), event["depth"]) for event in tree["events"]] == [
            ("event-1", None, 0),
            ("event-2", 0, 1),
        ]
        assert tree["roots"] == [0]
        [made] = tree["events"][0]["deliveries"]
        assert made["letters"] == [letter_id]
        [letter] = tree["letters"]
        assert client.get(letter["href"]).json()["id"] == letter_id
        assert {(window["stream"], window["kind"]) for window in tree["windows"]} >= {
            (STREAM, "events"),
            (DLQ, "letters"),
            (f"{{{STREAM}}}:rapids:replay:group", "replays"),
        }
        assert tree["complete"]


def test_a_letter_leads_to_the_tree_and_to_the_others(redis_url: str) -> None:
    router = idle_router(stream=STREAM, group="group", dlq_stream=DLQ)
    with client_for(redis_url, routers=[router]) as client:
        put(redis_url, "event-1")
        first, second, third = (put_letter(redis_url, handler=name) for name in ("a", "b", "c"))
        put_letter(redis_url, correlation_id="corr-2")
        letters = "/rapids/api/dead-letters"
        assert client.delete(f"{letters}/{third}").status_code == 200
        links = client.get(f"{letters}/{first}").json()["links"]
        assert [(one["id"], one["state"]) for one in links["letters"]] == [(second, "dead"), (third, "discarded")]
        assert links["complete"]
        assert [event["event_id"] for event in client.get(links["causation_tree"]).json()["events"]] == ["event-1"]
        assert client.get(links["letters"][1]["href"]).json()["id"] == third


def test_the_letter_and_the_tree_show_the_same_outcome_of_a_replay(redis_url: str, raw: redis_sync.Redis) -> None:
    with client_for(redis_url, routers=[idle_router(stream=STREAM, group="group", dlq_stream=DLQ)]) as client:
        put(redis_url, "event-1")
        letter = f"/rapids/api/dead-letters/{put_letter(redis_url, original_group='nobody')}"
        stream = client.post(f"{letter}/replay", json={}).json()["stream"]
        for expected in ("undelivered", "unknown"):
            [outcome] = client.get(letter).json()["replays"]
            assert outcome["outcome"] == expected
            assert trace(client)["letters"][0]["replays"] == [outcome]
            raw.delete(stream)


def test_what_is_hidden_in_payloads_is_hidden_in_the_tree(redis_url: str) -> None:
    router = idle_router(stream=STREAM, group="group", dlq_stream=DLQ)
    with client_for(redis_url, routers=[router]) as client:
        secret = '{"password": "hunter2", "n": 1}'
        put(redis_url, "event-1", data=secret, metadata=secret)
        put(redis_url, "event-2", data="x" * 70_000)
        put_letter(redis_url, data=secret, error="hunter2 is wrong")
        put_letter(redis_url, data="x" * 70_000, error="hunter2 is wrong")
        tree = trace(client)
        letter = client.get(f"/rapids/api/dead-letters/{tree['letters'][0]['id']}").text
    assert tree["events"][0]["data"]["value"] == {"password": MASK, "n": 1}
    assert tree["events"][1]["data"] == {"encoding": "omitted", "value": None, "size": 70_000, "truncated": True}
    assert [one["error"] for one in tree["letters"]] == [f"{MASK} is wrong", MASK]
    assert "hunter2" not in f"{tree}{letter}"


def test_reasons_of_parked_entries_hide_secrets_of_the_payload(redis_url: str, raw: redis_sync.Redis) -> None:
    source, error = Source(STREAM, "group"), "hunter2 is wrong"
    failure = {"handler": "pay", "reason": "non_retryable", "error": error}
    with client_for(redis_url) as client:
        ids = [put(redis_url, f"event-{n}", data='{"password": "hunter2"}') for n in range(2)]
        ids.append(put(redis_url, "large", data="x" * 70_000))
        raw.xgroup_create(STREAM, "group", "0")
        raw.xreadgroup("group", "worker", {STREAM: ">"})
        for entry_id in ids[1:]:
            raw.hset(source.parked, entry_id, orjson.dumps([failure]))  # type: ignore[arg-type]
            raw.xclaim(STREAM, "group", PARKED.decode(), 0, [entry_id], justid=True)
        tree = trace(client)
    made = [event["deliveries"][0] for event in tree["events"]]
    assert [(one["state"], one["pending"].get("consumer")) for one in made] == [
        ("held", "worker"),
        ("parked", None),
        ("parked", None),
    ]
    assert [[why["error"] for why in one["pending"]["failures"]] for one in made] == [
        [],
        [f"{MASK} is wrong"],
        [MASK],
    ]


def test_hostile_text_comes_back_as_data(client: TestClient, redis_url: str) -> None:
    put(redis_url, HOSTILE, HOSTILE, event_type=HOSTILE, correlation_id=HOSTILE)
    response = client.get(EVENTS, params={"correlation_id": HOSTILE})
    assert response.headers["content-type"] == "application/json"
    [event] = response.json()["events"]
    assert (event["event_id"], event["event_type"], event["in_cycle"]) == (HOSTILE, HOSTILE, True)


def test_pages_by_the_link(client: TestClient, raw: redis_sync.Redis) -> None:
    pipeline = raw.pipeline(transaction=False)
    for number in range(2_500):
        pipeline.xadd(STREAM, {"id": f"e{number}", "correlation_id": "corr-1"})
    pipeline.execute()
    url, found = f"{EVENTS}?correlation_id=corr-1", 0
    while True:
        response = client.get(url)
        found += len(response.json()["events"])
        if "next" not in response.links:
            break
        assert not response.json()["complete"]
        url = response.links["next"]["url"]
    assert found == 2_500
    assert response.json()["next_cursor"] is None


@pytest.mark.parametrize(
    "query",
    [{}, {"correlation_id": ""}, {"correlation_id": "x" * 1_001}, {"correlation_id": "x", "cursor": "bGV0dGVyczp4"}],
)
def test_an_invalid_query_is_422(client: TestClient, query: dict[str, str]) -> None:
    response = client.get(EVENTS, params=query)
    assert (response.status_code, response.json()["type"]) == (422, "urn:rapids:problem:invalid")


def test_the_first_and_last_possible_times(client: TestClient, redis_url: str) -> None:
    put(redis_url, "event-1")
    for query in ({"until": "1970-01-01"}, {"until": "0001-01-01"}, {"since": "9999-12-31"}):
        assert trace(client, **query)["events"] == []
    assert len(trace(client, since="0001-01-01", until="9999-12-31")["events"]) == 1
