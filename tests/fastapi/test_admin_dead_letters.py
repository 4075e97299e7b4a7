from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis as redis_sync
from fastapi import FastAPI
from fastapi.testclient import TestClient

from rapids import BaseEvent, EventEmitter, EventRouter
from rapids_fastapi import EmitterDep, Rapids, rapids_admin
from rapids_fastapi.admin.redaction import DEFAULT_REDACTED, MASK
from tests.fastapi.helpers import BEARER, DLQ, STREAM, TOKEN, admin_app, put_letter, until

LETTERS = "/rapids/api/dead-letters"


class FaAdminOrdered(BaseEvent):
    n: int
    card_number: str = "4111-1111"


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAPIDS_ADMIN_TOKEN", TOKEN)


def client_for(url: str, **options: Any) -> TestClient:
    options.setdefault("emitter", EventEmitter(stream=STREAM))
    return TestClient(admin_app(Rapids(url=url, **options)), headers=BEARER)  # type: ignore[arg-type]


@pytest.fixture
def client(redis_url: str) -> Iterator[TestClient]:
    with client_for(redis_url) as client:
        yield client


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

    def test_replay_runs_only_the_handler_that_failed(
        self, client: TestClient, broken: dict[str, bool], handled: list[tuple[str, int]]
    ) -> None:
        entry_id = client.post("/orders/1").json()
        (letter,) = until(lambda: client.get(LETTERS).json()["items"])
        assert (letter["handler"], letter["group"], letter["event_type"]) == ("pay", "payments", "fa_admin.ordered")
        assert (letter["state"], letter["reason"]) == ("dead", "max_deliveries_exceeded")
        assert letter["error"] == f"no payment with {MASK}"
        detail = client.get(f"{LETTERS}/{letter['id']}").json()
        assert detail["entry_id"] == entry_id
        assert detail["payload"]["value"] == {"n": 1, "card_number": MASK}
        assert "4111-1111" not in json.dumps(detail)
        assert handled == [("note", 1)]

        broken["broken"] = False
        response = client.post(f"{LETTERS}/{letter['id']}/replay", json={"reason": "mended"})
        assert response.status_code == 200
        replay = response.json()
        assert (replay["letter_id"], replay["scope"]) == (letter["id"], "handler")
        until(lambda: handled == [("note", 1), ("pay", 1)])
        assert client.get(LETTERS).json()["items"] == []
        gone = client.get(f"{LETTERS}/{letter['id']}").json()
        assert gone["state"] == "replayed"
        (change,) = gone["history"]
        assert change["action"] == "replayed"
        assert (change["actor"], change["reason"], change["scope"]) == ("admin", "mended", "handler")
        assert (change["stream"], change["entry_id"]) == (replay["stream"], replay["entry_id"])

    def test_a_second_replay_is_409_with_the_state(self, client: TestClient) -> None:
        client.post("/orders/1")
        (letter,) = until(lambda: client.get(LETTERS).json()["items"])
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
        self, client: TestClient, broken: dict[str, bool], handled: list[tuple[str, int]]
    ) -> None:
        client.post("/orders/1")
        (letter,) = until(lambda: client.get(LETTERS).json()["items"])
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
        until(lambda: sorted(handled) == [("note", 1), ("note", 1), ("pay", 1)])


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
    def test_what_makes_no_sense_is_422_and_not_repeated(self, client: TestClient, query: str) -> None:
        response = client.get(f"{LETTERS}?{query}")
        assert response.status_code == 422
        problem = response.json()
        assert problem["type"] == "urn:rapids:problem:invalid"
        assert "x" * 201 not in response.text

    def test_large_payloads_are_cut_and_whole_in_the_detail(self, client: TestClient, redis_url: str) -> None:
        middle = json.dumps({"password": "hunter2", "text": "y" * 10_000})
        huge = json.dumps({"text": "z" * 5_000_000})
        put = [put_letter(redis_url, data=data, error="e" * 5_000) for data in (middle, huge)]
        page = client.get(LETTERS)
        assert len(page.content) < 50_000
        second, first = [item["payload"] for item in page.json()["items"]]
        assert (first["encoding"], first["truncated"], first["size"]) == ("text", True, len(middle))
        assert first["value"].startswith('{"password":"[redacted]","text":"yyy')
        assert (second["encoding"], second["value"], second["truncated"]) == ("omitted", None, True)
        assert len(page.json()["items"][0]["error"]) == 1_000
        detail = client.get(f"{LETTERS}/{put[1]}").json()
        assert (len(detail["payload"]["value"]["text"]), detail["payload"]["truncated"]) == (5_000_000, False)
        assert len(detail["error"]) == 5_000


class TestSeveralQueues:
    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[TestClient]:
        routers = [EventRouter(stream=STREAM, group=group, dlq_stream=f"fa:{group}") for group in ("a", "b")]
        with client_for(redis_url, routers=routers, emitter=None) as client:
            yield client

    def test_which_one_must_be_said(self, client: TestClient, redis_url: str) -> None:
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


class TestHostile:
    TEXT = "<script>alert(1)</script>\x00\x1b[31m\u202egnp.exe\u2028\ufeff'\"; DROP"

    def test_text_is_only_data(self, client: TestClient, redis_url: str) -> None:
        names = (
            "event_type",
            "handler",
            "original_group",
            "error",
            "traceback",
            "consumer",
            "correlation_id",
            "reason",
        )
        put = put_letter(redis_url, **dict.fromkeys(names, self.TEXT), data=json.dumps({self.TEXT: self.TEXT}))
        for response in (client.get(LETTERS), client.get(f"{LETTERS}/{put}")):
            assert response.status_code == 200
            assert response.headers["content-type"] == "application/json"
        detail = response.json()
        assert detail["payload"]["value"] == {self.TEXT: self.TEXT}
        assert detail["event_type"] == detail["traceback"] == self.TEXT

    @pytest.mark.parametrize(
        ("data", "encoding"),
        [
            (b"", "text"),
            (b"not json", "text"),
            (b'{"a": NaN}', "text"),
            (b'"\\ud800"', "text"),
            (b"\xff\xfe\x00", "base64"),
            (b"[" * 5_000, "text"),
            (b"[" * 500 + b"]" * 500, "text"),
            (b'{"a":' * 300 + b"1" + b"}" * 300, "text"),
            (b"123456789012345678901234567890", "json"),
            (b"null", "json"),
        ],
    )
    def test_payloads_of_any_kind_are_shown(
        self, client: TestClient, redis_url: str, data: bytes, encoding: str
    ) -> None:
        put = put_letter(redis_url, data=data, metadata=data)
        assert client.get(LETTERS).status_code == 200
        assert client.get(LETTERS, params={"q": "x"}).status_code == 200
        detail = client.get(f"{LETTERS}/{put}").json()
        assert detail["payload"]["encoding"] == detail["metadata"]["encoding"] == encoding
        if encoding == "base64":
            assert base64.b64decode(detail["payload"]["value"]) == data
        if encoding == "text":
            assert detail["payload"]["value"] == data.decode()

    def test_entries_that_are_no_letters_at_all(self, client: TestClient, redis_url: str) -> None:
        with redis_sync.Redis.from_url(redis_url) as raw:
            junk = [
                raw.xadd(DLQ, {b"\xff\x00": b"\x80" * 100}),
                raw.xadd(DLQ, {"deliveries": "many", "failed_at": "once", "replay_count": "-1", "data": "{"}),
                raw.xadd(DLQ, {"letter_id": "../../etc/passwd", "event_type": "x" * 100_000}),
            ]
        page = client.get(LETTERS)
        assert page.status_code == 200
        assert len(page.json()["items"]) == 3
        for letter in junk:
            assert client.get(f"{LETTERS}/{letter.decode()}").status_code == 200  # type: ignore[union-attr]

    @pytest.mark.parametrize("letter_id", ["1-1", "0", "%00", "..%2f", "a b", "*", "1-1\u202e", "9" * 199, "{orders}"])
    def test_an_id_of_no_letter_is_404(self, client: TestClient, letter_id: str) -> None:
        response = client.get(f"{LETTERS}/{letter_id}")
        assert response.status_code == 404
        if response.headers["content-type"] == "application/problem+json":
            assert response.json()["type"] == "urn:rapids:problem:letter-not-found"
        assert client.get(f"{LETTERS}/{'9' * 201}").status_code == 422


class TestRedaction:
    def test_nested_in_any_case_and_spelling(self, client: TestClient, redis_url: str) -> None:
        secret = {
            "Password": "p",
            "apiKey": "k",
            "X-API-Key": ["a", {"b": "c"}],
            "Authorization": {"a": "b"},
            "cvv": 123,
        }
        data = {"order": [{"card_number": "4111"}, secret], "tokens": 3, "note": "password", "token": None}
        put = put_letter(
            redis_url, data=json.dumps(data), metadata=json.dumps({"headers": {"authorization": "Bearer x"}})
        )
        masked = dict.fromkeys(secret, MASK)
        wanted = {"order": [{"card_number": MASK}, masked], "tokens": 3, "note": "password", "token": MASK}
        detail = client.get(f"{LETTERS}/{put}").json()
        assert detail["payload"]["value"] == wanted
        assert detail["metadata"]["value"] == {"headers": {"authorization": MASK}}
        assert client.get(LETTERS).json()["items"][0]["payload"]["value"] == wanted

    @pytest.mark.parametrize("name", DEFAULT_REDACTED)
    def test_every_default_name(self, client: TestClient, redis_url: str, name: str) -> None:
        put = put_letter(
            redis_url, data=json.dumps({name.upper(): "hunter2", "n": [{name.replace("_", "-"): "hunter2"}]})
        )
        assert "hunter2" not in client.get(f"{LETTERS}/{put}").text

    def test_names_of_ones_own_come_on_top(self, redis_url: str) -> None:
        put = put_letter(redis_url, data='{"iban": "DE02", "password": "p", "n": 1}')
        with client_for(redis_url, redact=["IBAN"]) as client:
            value = client.get(f"{LETTERS}/{put}").json()["payload"]["value"]
        assert value == {"iban": MASK, "password": MASK, "n": 1}

    def test_it_can_be_turned_off(self, redis_url: str) -> None:
        put = put_letter(redis_url, data='{"password": "p"}')
        with client_for(redis_url, redact=None) as client:
            assert client.get(f"{LETTERS}/{put}").json()["payload"]["value"] == {"password": "p"}
            assert client.get(LETTERS, params={"q": '"password": "p"'}).json()["items"][0]["id"] == put

    def test_errors_and_tracebacks_do_not_tell_either(self, client: TestClient, redis_url: str) -> None:
        put = put_letter(
            redis_url,
            data='{"password": "hunter2"}',
            metadata='{"token": "tok-7"}',
            error="login with hunter2 and tok-7 failed",
            traceback="File x: login('hunter2')",
        )
        for response in (client.get(LETTERS), client.get(f"{LETTERS}/{put}")):
            assert "hunter2" not in response.text
            assert "tok-7" not in response.text
            assert f"login with {MASK} and {MASK} failed" in response.text

    @pytest.mark.parametrize(
        "data",
        [
            b'{"password": "hunter2", ',
            b"{'api-key': 'hunter2'}",
            b"Authorization: hunter2",
            b'\xff{"Token":"hunter2"}',
            b"password=hunter2&x=1",
        ],
    )
    def test_what_is_no_json_is_masked_by_its_looks(self, client: TestClient, redis_url: str, data: bytes) -> None:
        put = put_letter(redis_url, data=data)
        payload = client.get(f"{LETTERS}/{put}").json()["payload"]
        value = base64.b64decode(payload["value"]) if payload["encoding"] == "base64" else payload["value"].encode()
        assert b"hunter2" not in value
        assert MASK.encode() in value

    def test_a_search_finds_nothing_that_is_hidden(self, client: TestClient, redis_url: str) -> None:
        for n in range(3):
            put_letter(redis_url, data=json.dumps({"password": "hunter2" if n == 1 else "other", "n": n}))
        pages = [client.get(LETTERS, params={"q": q, "limit": 1}).json() for q in ("hunter2", "absent")]
        assert pages[0] == pages[1]
        assert pages[0]["items"] == []

    def test_a_replay_sends_what_was_stored(self, client: TestClient, redis_url: str) -> None:
        raw = '{"password" : "hunter2",   "n":1}'
        put = put_letter(redis_url, data=raw)
        replay = client.post(f"{LETTERS}/{put}/replay", json={"scope": "everyone"}).json()
        assert replay["stream"] == STREAM
        with redis_sync.Redis.from_url(redis_url, decode_responses=True) as client_:
            ((_, fields),) = client_.xrange(STREAM)  # type: ignore[misc]
        assert fields["data"] == raw
