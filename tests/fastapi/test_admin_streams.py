"""Streams and groups over HTTP: what is shown of them, and that no other key is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
import redis as redis_sync
from fastapi.testclient import TestClient

from rapids._storage.keys import PARKED, WAITING, Source
from rapids.redaction import MASK
from tests.fastapi.helpers import STREAM, client_for
from tests.support import idle_router

STREAMS = "/rapids/api/streams"
GROUPS = "/rapids/api/groups"
PENDING = f"{GROUPS}/pending"
GROUP = "payments"
OTHER = "fa:invoices"
SOURCE = Source(STREAM, GROUP)
HOSTILE = "<script>alert(1)</script>\x00\x1b[31m\u202egnp.exe\u2028'\"; DROP"


def add(raw: redis_sync.Redis, count: int, stream: str = STREAM) -> list[str]:
    return [str(raw.xadd(stream, {"n": "1"}, id=f"{number}-1")) for number in range(1, count + 1)]


def make_group(raw: redis_sync.Redis, name: str | bytes = GROUP, *, taken: int = 0, consumer: str = "worker") -> None:
    raw.xgroup_create(STREAM, name, "0", mkstream=True)
    if taken:
        raw.xreadgroup(str(name), consumer, {STREAM: ">"}, count=taken)


def wait(raw: redis_sync.Redis, entry_id: str, due_ms: int) -> None:
    raw.zadd(SOURCE.due, {entry_id: due_ms})
    raw.xclaim(STREAM, GROUP, WAITING.decode(), 0, [entry_id], justid=True)


def park(raw: redis_sync.Redis, entry_id: str, error: str) -> None:
    why = orjson.dumps([{"handler": "pay", "reason": "non_retryable", "error": error}])
    raw.hset(SOURCE.parked, entry_id, why)  # type: ignore[arg-type]
    raw.xclaim(STREAM, GROUP, PARKED.decode(), 0, [entry_id], justid=True)


def all_items(client: TestClient, url: str, items: Callable[[Any], list[Any]]) -> list[Any]:
    """The items of all pages, by their links. All pages except the last one must be full."""
    found: list[Any] = []
    for _ in range(20):
        response = client.get(url)
        assert response.status_code == 200, response.text
        found += items(response.json())
        if (cursor := response.json()["next_cursor"]) is None:
            assert "link" not in response.headers
            return found
        assert response.links["next"]["rel"] == "next"
        url = response.links["next"]["url"]
        assert dict(response.request.url.copy_with(raw_path=url.encode()).params)["cursor"] == cursor
    raise AssertionError("no end")


def refused(response: Any, status: int, name: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["type"] == f"urn:rapids:problem:{name}"
    return problem


class TestStreams:
    def test_those_of_the_emitter_and_the_routers(self, redis_url: str, raw: redis_sync.Redis) -> None:
        add(raw, 3, OTHER)
        raw.xadd("fa:secret", {"n": "1"})
        with client_for(redis_url, routers=[idle_router(stream=OTHER, group=GROUP)]) as client:
            found = client.get(STREAMS).json()
            assert client.get("/rapids/api/capabilities").json()["streams"] == [OTHER, STREAM]
        assert found["missing"] == [STREAM]
        (stream,) = found["items"]
        assert (stream["stream"], stream["length"], stream["groups"]) == (OTHER, 3, 1)
        assert (stream["first_id"], stream["last_id"]) == ("1-1", "3-1")
        assert stream["first_at"] == "1970-01-01T00:00:00.001000Z"

    def test_of_several_streams_one_must_be_named(self, redis_url: str, raw: redis_sync.Redis) -> None:
        make_group(raw)
        with client_for(redis_url, routers=[idle_router(stream=OTHER, group="billing")]) as client:
            for path in (GROUPS, f"{PENDING}?group={GROUP}"):
                assert refused(client.get(path), 422, "stream-needed")["allowed"] == [OTHER, STREAM]
            for stream, group in ((STREAM, GROUP), (OTHER, "billing")):
                page = client.get(GROUPS, params={"stream": stream}).json()
                assert (page["stream"], [item["group"] for item in page["items"]]) == (stream, [group])
                params = {"stream": stream, "group": group}
                assert client.get(PENDING, params=params).json()["items"] == []

    def test_no_other_key_can_be_read_as_a_stream(self, client: TestClient, raw: redis_sync.Redis) -> None:
        raw.xgroup_create("fa:secret", GROUP, mkstream=True)
        answers: list[Any] = []
        for stream in ("fa:secret", "fa:absent", HOSTILE, ""):
            query = {"stream": stream, "group": GROUP}
            gets = [client.get(path, params=query) for path in (GROUPS, PENDING)]
            posts = [client.post(f"{GROUPS}/{action}", json=query) for action in ("pause", "resume") if stream]
            for response in (*gets, *posts):
                problem = refused(response, 404, "stream-not-found")
                assert problem["allowed"] == [STREAM]
                answers.append(problem["detail"])
        assert len(set(answers)) == 1
        assert set(raw.keys("*")) == {"fa:secret"}


class TestGroups:
    def test_a_missing_stream_or_group_is_404_and_named(self, client: TestClient, raw: redis_sync.Redis) -> None:
        refused(client.get(GROUPS), 404, "stream-not-found")
        add(raw, 1)
        assert client.get(GROUPS).json() == {"stream": STREAM, "items": [], "next_cursor": None}
        for path in (GROUPS, PENDING):
            refused(client.get(path, params={"group": "nobody"}), 404, "group-not-found")
        make_group(raw)
        problem = refused(client.get(GROUPS, params={"group": GROUP, "replays": True}), 404, "stream-not-found")
        assert SOURCE.replays().stream in problem["detail"]

    def test_the_progress_of_a_group(self, client: TestClient, raw: redis_sync.Redis) -> None:
        add(raw, 5)
        make_group(raw, taken=3)
        wait(raw, "2-1", 4_102_444_800_000)
        park(raw, "3-1", "no")
        (group,) = client.get(GROUPS).json()["items"]
        detail = client.get(GROUPS, params={"group": GROUP}).json()
        for shown in (group, detail["group"]):
            assert (shown["stream"], shown["group"], shown["lag"], shown["lag_exact"]) == (STREAM, GROUP, 2, True)
            assert (shown["pending"], shown["held"], shown["waiting"], shown["parked"]) == (3, 1, 1, 1)
            assert (shown["last_delivered_id"], shown["oldest_unsettled_id"]) == ("3-1", "1-1")
            assert (shown["consumers"], shown["consumers_alive"], shown["pause"]) == (1, 0, None)
        (consumer,) = detail["consumers"]
        assert (consumer["consumer"], consumer["alive"], consumer["pending"]) == ("worker", False, 1)

    def test_pages_follow_the_link(self, client: TestClient, raw: redis_sync.Redis) -> None:
        names = [f"g{number}" for number in range(5)]
        for name in names:
            make_group(raw, name)
        found = all_items(client, f"{GROUPS}?limit=2&stream={STREAM}", lambda page: page["items"])
        assert [group["group"] for group in found] == names

    def test_consumers_have_pages_too(self, client: TestClient, raw: redis_sync.Redis) -> None:
        make_group(raw)
        names = [f"c{number}" for number in range(5)]
        for name in names:
            raw.xgroup_createconsumer(STREAM, GROUP, name)
        found = all_items(client, f"{GROUPS}?limit=2&group={GROUP}", lambda page: page["consumers"])
        assert [consumer["consumer"] for consumer in found] == names

    def test_the_replay_stream_by_a_flag(self, client: TestClient, raw: redis_sync.Redis) -> None:
        replays = SOURCE.replays().stream
        make_group(raw)
        add(raw, 2, replays)
        raw.xgroup_create(replays, GROUP, "0")
        raw.xreadgroup(GROUP, "worker", {replays: ">"}, count=1)
        query = {"group": GROUP, "replays": True}
        detail = client.get(GROUPS, params=query).json()
        assert (detail["group"]["stream"], detail["group"]["lag"], detail["group"]["pending"]) == (replays, 1, 1)
        assert [entry["entry_id"] for entry in client.get(PENDING, params=query).json()["items"]] == ["1-1"]
        assert client.get(PENDING, params={"group": GROUP}).json()["items"] == []
        refused(client.get(GROUPS, params={"replays": True}), 422, "invalid")


class TestPending:
    @pytest.fixture(autouse=True)
    def entries(self, raw: redis_sync.Redis) -> None:
        add(raw, 8)
        make_group(raw, taken=7)
        for number in (2, 3):
            wait(raw, f"{number}-1", 4_102_444_800_000 - number)
        for number in (4, 5):
            park(raw, f"{number}-1", "no payment with hunter2")
        raw.xclaim(STREAM, GROUP, "other", 0, ["7-1"])

    def shown(self, client: TestClient, **query: str) -> list[tuple[str, str]]:
        url = str(client.build_request("GET", PENDING, params={"group": GROUP, "limit": "2", **query}).url)
        return [(e["entry_id"], e["state"]) for e in all_items(client, url, lambda page: page["items"])]

    def test_pages_by_state_and_by_consumer(self, client: TestClient) -> None:
        held, waiting, parked = "held", "waiting", "parked"
        assert self.shown(client) == [
            ("1-1", held),
            ("2-1", waiting),
            ("3-1", waiting),
            ("4-1", parked),
            ("5-1", parked),
            ("6-1", held),
            ("7-1", held),
        ]
        assert self.shown(client, state=waiting) == [("3-1", waiting), ("2-1", waiting)]
        assert self.shown(client, state=parked) == [("4-1", parked), ("5-1", parked)]
        assert self.shown(client, consumer="other") == [("7-1", held)]
        assert self.shown(client, consumer="nobody") == []

    def test_the_fields_of_a_pending_entry(self, client: TestClient) -> None:
        page = client.get(PENDING, params={"group": GROUP}).json()
        assert (page["stream"], page["group"]) == (STREAM, GROUP)
        held, waiting = page["items"][:2]
        assert (held["consumer"], held["consumer_alive"], held["deliveries"]) == ("worker", False, 1)
        assert held["idle_ms"] >= 0
        assert (waiting["consumer"], waiting["due_at"]) == (None, "2099-12-31T23:59:59.998000Z")

    def test_an_entry_that_nobody_holds_after_an_xnack(self, client: TestClient, raw: redis_sync.Redis) -> None:
        raw.xclaim(STREAM, GROUP, "", 0, ["1-1"], retrycount=2**63 - 1, justid=True)
        entry, *_ = client.get(PENDING, params={"group": GROUP}).json()["items"]
        assert (entry["state"], entry["consumer"], entry["consumer_alive"]) == ("held", None, False)
        assert entry["deliveries"] == 1_000_000_000

    def test_errors_are_hidden_since_the_payload_is_not_read(self, client: TestClient, redis_url: str) -> None:
        with client_for(redis_url, redact=None) as open_client:
            (failure,) = open_client.get(PENDING, params={"group": GROUP, "state": "parked"}).json()["items"][0][
                "failures"
            ]
        assert failure == {"handler": "pay", "reason": "non_retryable", "error": "no payment with hunter2"}
        for query in ({}, {"state": "parked"}):
            response = client.get(PENDING, params={"group": GROUP, **query})
            assert "hunter2" not in response.text
            assert MASK in response.text

    @pytest.mark.parametrize("query", ["", "group=", "state=held", "state=parked&consumer=worker", "limit=0"])
    def test_an_invalid_request_is_422(self, client: TestClient, query: str) -> None:
        group = "" if query in ("", "group=") else f"group={GROUP}&"
        refused(client.get(f"{PENDING}?{group}{query}"), 422, "invalid")


class TestHostile:
    def test_names_are_only_data(self, client: TestClient, raw: redis_sync.Redis) -> None:
        add(raw, 3)
        names: list[str | bytes] = [GROUP, HOSTILE, "x" * 5_000, b"\xff\x00"]
        for name in names:
            make_group(raw, name)
        raw.xreadgroup(GROUP, HOSTILE, {STREAM: ">"}, count=1)
        found = all_items(client, f"{GROUPS}?limit=1", lambda page: page["items"])
        assert [group["group"] for group in found] == [HOSTILE, GROUP, "x" * 999 + "…", "\\xff\x00"]
        detail = client.get(GROUPS, params={"group": GROUP})
        assert detail.headers["content-type"] == "application/json"
        assert detail.json()["consumers"][0]["consumer"] == HOSTILE
        (entry,) = client.get(PENDING, params={"group": GROUP}).json()["items"]
        assert entry["consumer"] == HOSTILE

    def test_a_name_that_rapids_does_not_accept_is_422(self, client: TestClient, raw: redis_sync.Redis) -> None:
        add(raw, 1)
        make_group(raw, HOSTILE)
        make_group(raw)
        for path in (GROUPS, PENDING):
            refused(client.get(path, params={"group": HOSTILE}), 422, "invalid")
        refused(client.get(PENDING, params={"group": GROUP, "consumer": HOSTILE}), 422, "invalid")
        for action in ("pause", "resume"):
            response = client.post(f"{GROUPS}/{action}", json={"stream": STREAM, "group": HOSTILE})
            refused(response, 422, "invalid")

    @pytest.mark.parametrize("cursor", ["nonsense", "1-1", "-", "é", "9" * 400 + "-1_1-1", "Li==", "nan_1-1_nan"])
    def test_a_cursor_that_no_page_gave_out_is_422(
        self, client: TestClient, raw: redis_sync.Redis, cursor: str
    ) -> None:
        make_group(raw)
        queries = [(GROUPS, {}), (GROUPS, {"group": GROUP}), (PENDING, {"group": GROUP})]
        for path, query in [*queries, *((PENDING, {"group": GROUP, "state": s}) for s in ("waiting", "parked"))]:
            refused(client.get(path, params={**query, "cursor": cursor}), 422, "invalid")

    @pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "replays=maybe", "stream=" + "x" * 513])
    def test_an_invalid_query_is_422_and_its_values_are_not_repeated(self, client: TestClient, query: str) -> None:
        response = client.get(f"{GROUPS}?{query}")
        refused(response, 422, "invalid")
        assert "x" * 513 not in response.text

    def test_a_key_that_is_not_a_stream(self, client: TestClient, raw: redis_sync.Redis) -> None:
        raw.set(STREAM, "text")
        for path in (GROUPS, f"{PENDING}?group={GROUP}"):
            refused(client.get(path), 503, "redis-unavailable")

    def test_a_name_of_no_stream_does_not_hide_the_others(self, redis_url: str, raw: redis_sync.Redis) -> None:
        raw.set("fa:text", "text")
        raw.xadd(STREAM, {"event_type": "x.y", "id": "e-1", "correlation_id": "corr-1"})
        with client_for(redis_url, watch=["fa:text", "fa:none"]) as client:
            found = client.get(STREAMS).json()
            tree = client.get("/rapids/api/events?correlation_id=corr-1").json()
        assert [one["stream"] for one in found["items"]] == [STREAM]
        assert found["missing"] == ["fa:none", "fa:text"]
        assert [one["event_id"] for one in tree["events"]] == ["e-1"]
        assert tree["complete"] is True
