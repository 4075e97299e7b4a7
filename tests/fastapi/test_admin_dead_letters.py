from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import redis as redis_sync
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rapids import BaseEvent, EventRouter
from rapids.redaction import MASK
from rapids.testing import TrackedInThread, tracked
from rapids_fastapi import EmitterDep, Rapids, rapids_admin
from tests.fastapi.helpers import BEARER, DLQ, STREAM, client_for, put_letter
from tests.support import idle_router

LETTERS = "/rapids/api/dead-letters"


class FaAdminOrdered(BaseEvent):
    n: int
    card_number: str = "4111-1111"


class TestEndToEnd:
    @pytest.fixture
    def broken(self) -> dict[str, bool]:
        return {"broken": True}

    @pytest.fixture
    def handled(self) -> list[tuple[str, int]]:
        return []

    @pytest.fixture
    def client(self, redis_url: str, broken: dict[str, bool], handled: list[tuple[str, int]]) -> Iterator[TestClient]:
        router = EventRouter(stream=STREAM, group="payments", max_deliveries=1)

        @router.on(FaAdminOrdered)
        async def pay(event: FaAdminOrdered) -> None:
            if broken["broken"]:
                raise RuntimeError(f"no payment with {event.card_number}")
            handled.append(("pay", event.n))

        @router.on(FaAdminOrdered)
        async def note(event: FaAdminOrdered) -> None:
            handled.append(("note", event.n))

        app = FastAPI(lifespan=Rapids(routers=[router], url=redis_url).lifespan)
        app.include_router(rapids_admin)

        @app.post("/orders/{n}")
        async def order(n: int, emitter: EmitterDep) -> str:
            return await emitter.emit(FaAdminOrdered(n=n, correlation_id="web-1"))

        with TestClient(app, headers=BEARER) as client:  # type: ignore[arg-type]
            yield client

    @pytest.fixture
    def work(self, client: TestClient) -> Iterator[TrackedInThread]:
        with tracked(client.app) as t:
            yield t

    def test_replay_runs_only_the_handler_that_failed(
        self, client: TestClient, work: TrackedInThread, broken: dict[str, bool], handled: list[tuple[str, int]]
    ) -> None:
        entry_id = client.post("/orders/1").json()
        work.settled()
        (letter,) = client.get(LETTERS).json()["items"]
        assert (letter["handler"], letter["group"], letter["event_type"]) == ("pay", "payments", "fa_admin.ordered")
        assert (letter["state"], letter["reason"]) == ("dead", "max_deliveries_exceeded")
        assert letter["error"] == f"no payment with {MASK}"
        detail = client.get(f"{LETTERS}/{letter['id']}").json()
        assert detail["entry_id"] == entry_id
        assert detail["payload"]["value"] == {"n": 1, "card_number": MASK}
        assert "4111-1111" not in json.dumps(detail)
        assert handled == [("note", 1)]

        broken["broken"] = False
        response = client.post(f"{LETTERS}/{letter['id']}/replay", json={"reason": "fixed"})
        assert response.status_code == 200
        replay = response.json()
        assert (replay["letter_id"], replay["scope"]) == (letter["id"], "handler")
        work.settled()
        assert handled == [("note", 1), ("pay", 1)]
        assert client.get(LETTERS).json()["items"] == []
        gone = client.get(f"{LETTERS}/{letter['id']}").json()
        assert gone["state"] == "replayed"
        (outcome,) = gone["replays"]
        assert (outcome["outcome"], outcome["inferred"], outcome["letters"]) == ("handled", True, [])
        assert (outcome["stream"], outcome["entry_id"]) == (replay["stream"], replay["entry_id"])
        (change,) = gone["history"]
        assert change["action"] == "replayed"
        assert (change["actor"], change["reason"], change["scope"]) == ("admin", "fixed", "handler")
        assert (change["stream"], change["entry_id"]) == (replay["stream"], replay["entry_id"])

    def test_a_replay_that_fails_again_leads_to_its_letter(self, client: TestClient, work: TrackedInThread) -> None:
        client.post("/orders/1")
        work.settled()
        (letter,) = client.get(LETTERS).json()["items"]
        client.post(f"{LETTERS}/{letter['id']}/replay", json={})
        work.settled()
        (outcome,) = client.get(f"{LETTERS}/{letter['id']}").json()["replays"]
        (again,) = client.get(LETTERS).json()["items"]
        assert (outcome["outcome"], outcome["letters"], outcome["inferred"]) == (
            "failed_again",
            [again["id"]],
            False,
        )
        assert client.get(f"{LETTERS}/{again['id']}").json()["replay_of"] == letter["id"]

    def test_a_second_replay_is_409_with_the_state(self, client: TestClient, work: TrackedInThread) -> None:
        client.post("/orders/1")
        work.settled()
        (letter,) = client.get(LETTERS).json()["items"]
        path = f"{LETTERS}/{letter['id']}"
        assert client.post(f"{path}/replay", json={}).status_code == 200
        for response in (
            client.post(f"{path}/replay", json={}),
            client.delete(path),
            client.post(f"{path}/restore", json={}),
        ):
            assert response.status_code == 409
            problem = response.json()
            assert problem["type"] == "urn:rapids:problem:letter-state"
            assert problem["state"] == "replayed"

    def test_discard_and_restore(
        self, client: TestClient, work: TrackedInThread, broken: dict[str, bool], handled: list[tuple[str, int]]
    ) -> None:
        client.post("/orders/1")
        work.settled()
        (letter,) = client.get(LETTERS).json()["items"]
        path = f"{LETTERS}/{letter['id']}"
        assert client.post(f"{path}/restore", json={}).json()["needed"] == "discarded"
        assert client.delete(path).json()["state"] == "discarded"
        assert client.get(LETTERS).json()["items"] == []
        assert client.post(f"{path}/replay", json={}).json()["state"] == "discarded"
        restored = client.post(f"{path}/restore", json={"reason": "a mistake"}).json()
        assert (restored["id"], restored["state"]) == (letter["id"], "dead")
        assert [change["action"] for change in restored["history"]] == ["discarded", "restored"]
        assert [item["id"] for item in client.get(LETTERS).json()["items"]] == [letter["id"]]
        broken["broken"] = False
        assert client.post(f"{path}/replay", json={"scope": "group"}).json()["scope"] == "group"
        work.settled()
        assert sorted(handled) == [("note", 1), ("note", 1), ("pay", 1)]


class TestList:
    def test_pages_follow_the_link(self, client: TestClient, redis_url: str) -> None:
        put = [put_letter(redis_url) for _ in range(5)]
        seen: list[str] = []
        url = f"{LETTERS}?limit=2&handler=handle"
        for _ in range(3):
            response = client.get(url)
            page = response.json()
            assert page["dlq"] == DLQ
            assert page["total"] == 5
            seen += [item["id"] for item in page["items"]]
            if page["next_cursor"] is None:
                assert "link" not in response.headers
                break
            url = response.links["next"]["url"]
            assert "handler=handle" in url
        assert seen == put[::-1]

    def test_filters(self, client: TestClient, redis_url: str) -> None:
        put_letter(redis_url, event_type="order.placed", handler="a", original_group="g1", error_type="KeyError")
        put_letter(redis_url, event_type="order.paid", handler="b", original_group="g2", reason="non_retryable")
        put_letter(redis_url, event_type="user.created", handler="c", data='{"name": "Zoë Ümlaut"}')

        def handlers(**query: str) -> list[str]:
            response = client.get(LETTERS, params=query)
            assert response.status_code == 200, response.text
            return [item["handler"] for item in response.json()["items"]]

        assert handlers() == ["c", "b", "a"]
        assert handlers(event_type="order.*") == ["b", "a"]
        assert handlers(event_type="order.*", handler="a") == ["a"]
        assert handlers(group="g2") == handlers(reason="non_retryable") == ["b"]
        assert handlers(error_type="KeyError") == ["a"]
        assert handlers(q="zoë") == ["c"]
        assert handlers(q='"name": "Zoë') == handlers(q='"name":"Zoë') == ["c"]
        assert handlers(q="__import__('os')") == []
        assert handlers(since="2999-01-01") == []
        assert handlers(until="2001-01-01T00:00:00Z") == []
        assert handlers(since="2001-01-01T00:00:00", until="2999-01-01T00:00:00+02:00") == ["c", "b", "a"]

    @pytest.mark.parametrize(
        "query",
        [
            "limit=0",
            "limit=201",
            "limit=x",
            "cursor=nonsense",
            "since=yesterday",
            "q=" + "x" * 201,
            "handler=" + "x" * 201,
        ],
    )
    def test_an_invalid_query_is_422_and_its_values_are_not_repeated(self, client: TestClient, query: str) -> None:
        response = client.get(f"{LETTERS}?{query}")
        assert response.status_code == 422
        problem = response.json()
        assert problem["type"] == "urn:rapids:problem:invalid"
        assert "x" * 201 not in response.text

    def test_large_payloads_are_cut_and_whole_in_the_detail(self, client: TestClient, redis_url: str) -> None:
        middle = json.dumps({"password": "hunter2", "text": "y" * 10_000})
        huge = json.dumps({"text": "z" * 2_000_000})
        put = [put_letter(redis_url, data=data, error="e" * 5_000) for data in (middle, huge)]
        page = client.get(LETTERS)
        assert len(page.content) < 50_000
        second, first = [item["payload"] for item in page.json()["items"]]
        assert (first["encoding"], first["truncated"], first["size"]) == ("text", True, len(middle))
        assert first["value"].startswith('{"password":"[redacted]","text":"yyy')
        assert (second["encoding"], second["value"], second["truncated"]) == ("omitted", None, True)
        assert [len(item["error"]) for item in page.json()["items"]] == [len(MASK), 1_000]
        detail = client.get(f"{LETTERS}/{put[1]}").json()
        assert (len(detail["payload"]["value"]["text"]), detail["payload"]["truncated"]) == (2_000_000, False)
        assert len(detail["error"]) == 5_000


class TestSeveralQueues:
    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[TestClient]:
        routers = [idle_router(stream=STREAM, group=group, dlq_stream=f"fa:{group}") for group in ("a", "b")]
        with client_for(redis_url, routers=routers, emitter=None) as client:
            yield client

    def test_a_request_must_name_the_queue(self, client: TestClient, redis_url: str) -> None:
        put = put_letter(redis_url, dlq="fa:b")
        for path in (LETTERS, f"{LETTERS}/{put}"):
            response = client.get(path)
            assert response.status_code == 422
            assert response.json()["type"] == "urn:rapids:problem:dlq-needed"
            assert response.json()["allowed"] == ["fa:a", "fa:b"]
        assert client.get(LETTERS, params={"dlq": "fa:a"}).json()["items"] == []
        assert client.get(LETTERS, params={"dlq": "fa:b"}).json()["items"][0]["id"] == put
        assert client.delete(f"{LETTERS}/{put}", params={"dlq": "fa:b"}).json()["dlq"] == "fa:b"

    def test_no_other_key_can_be_read(self, client: TestClient, redis_url: str) -> None:
        put_letter(redis_url, dlq="fa:secret")
        response = client.get(LETTERS, params={"dlq": "fa:secret"})
        assert response.status_code == 404
        assert response.json()["type"] == "urn:rapids:problem:dlq-not-found"

    def test_capabilities_name_them(self, client: TestClient) -> None:
        assert client.get("/rapids/api/capabilities").json()["dead_letter_queues"] == [
            {"name": "fa:a", "groups": ["a"]},
            {"name": "fa:b", "groups": ["b"]},
        ]


def test_without_any_queue_there_is_none_to_read(redis_url: str) -> None:
    with client_for(redis_url, dead_letters=False) as client:
        assert client.get(LETTERS).status_code == 404
        assert client.get("/rapids/api/capabilities").json()["dead_letter_queues"] == []


def test_a_replay_to_everyone_does_not_trim_the_event_stream(
    client: TestClient, redis_url: str, raw: redis_sync.Redis
) -> None:
    """Only emitters decide how long their stream is."""
    with raw.pipeline(transaction=False) as pipe:
        for _ in range(100_500):
            pipe.xadd(STREAM, {"a": 1})
        pipe.execute()
    letter_id = put_letter(redis_url)
    assert client.post(f"/rapids/api/dead-letters/{letter_id}/replay", json={"scope": "everyone"}).is_success
    assert raw.xlen(STREAM) == 100_501
