"""Hostile texts in letters: they are shown as data only, and secrets in them are hidden."""

from __future__ import annotations

import base64
import json
import tracemalloc

import pytest
import redis as redis_sync
from fastapi.testclient import TestClient
from httpx2 import Response

from rapids.redaction import DEFAULT_REDACTED, MASK
from tests.fastapi.helpers import DLQ, STREAM, client_for, entries, put_letter

LETTERS = "/rapids/api/dead-letters"


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
            (b"not json", "withheld"),
            (b'{"a": NaN}', "json"),
            (b'"\\ud800"', "withheld"),
            (b"\xff\xfe\x00", "withheld"),
            (b"[" * 5_000, "withheld"),
            (b"[" * 500 + b"]" * 500, "withheld"),
            (b'{"a":' * 300 + b"1" + b"}" * 300, "withheld"),
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
        if encoding == "withheld":
            assert detail["payload"]["value"] is None
        with client_for(redis_url, redact=None) as unredacted:
            shown = unredacted.get(f"{LETTERS}/{put}").json()["payload"]
        if shown["encoding"] == "base64":
            assert base64.b64decode(shown["value"]) == data
        if shown["encoding"] == "text":
            assert shown["value"] == data.decode()

    def test_entries_that_are_no_letters_at_all(self, client: TestClient, raw: redis_sync.Redis) -> None:
        junk = [
            raw.xadd(DLQ, {b"\xff\x00": b"\x80" * 100}),
            raw.xadd(DLQ, {"deliveries": "many", "failed_at": "once", "replay_count": "-1", "data": "{"}),
            raw.xadd(DLQ, {"letter_id": "../../etc/passwd", "event_type": "x" * 100_000}),
        ]
        page = client.get(LETTERS)
        assert page.status_code == 200
        assert len(page.json()["items"]) == 3
        for letter in junk:
            assert client.get(f"{LETTERS}/{letter}").status_code == 200

    @pytest.mark.parametrize("letter_id", ["1-1", "0", "%00", "..%2f", "a b", "*", "1-1\u202e", "9" * 199, "{orders}"])
    def test_an_id_of_no_letter_is_404(self, client: TestClient, letter_id: str) -> None:
        response = client.get(f"{LETTERS}/{letter_id}")
        assert response.status_code == 404
        if response.headers["content-type"] == "application/problem+json":
            assert response.json()["type"] == "urn:rapids:problem:letter-not-found"
        assert client.get(f"{LETTERS}/{'9' * 201}").status_code == 422


HOSTILE = "<script>alert(1)</script>\r\nX-Injected: yes\x00\x1b[31m\u202egnp.exe\u2028\ufeff'\"; DROP"
LARGE_NAMES = ("event_type", "handler", "original_group", "error")
LARGE = 5 * 1024 * 1024


def is_harmless(response: Response) -> bool:
    """Whether the answer is only data: of a media type that no browser runs, and without the text in a header."""
    kinds = ("application/json", "application/problem+json", "application/x-ndjson", "text/event-stream")
    headers = "".join(f"{name}: {value}\n" for name, value in response.headers.items())
    return (
        response.headers["content-type"].partition(";")[0] in kinds
        and response.headers["x-content-type-options"] == "nosniff"
        and "script" not in headers
        and "injected" not in headers.lower()
        and headers.isascii()
    )


class TestLarge:
    """Five megabytes of hostile text in every field."""

    @pytest.fixture
    def letter(self, redis_url: str) -> str:
        text = HOSTILE + "é" * (LARGE // 2)
        data = json.dumps({text: text}, ensure_ascii=False)
        return put_letter(redis_url, **dict.fromkeys(LARGE_NAMES, text), data=data, metadata=data)

    def test_what_is_shown_of_it_is_data_and_bounded(self, client: TestClient, letter: str) -> None:
        bounds = {
            LETTERS: 100_000,
            f"{LETTERS}?limit=1&q=alert": 100_000,
            f"{LETTERS}/{letter}": 30_000_000,
            f"{LETTERS}/export": 30_000_000,
            f"{LETTERS}/causes": 20_000,
            f"{LETTERS}/stats": 1_000,
        }
        for address, most in bounds.items():
            tracemalloc.start()
            try:
                response = client.get(address)
                _, in_memory = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert response.status_code == 200, address
            assert is_harmless(response), address
            assert len(response.content) < most, address
            assert in_memory < 60 * LARGE, "eight large texts: raw, decoded, opened, as JSON, and as the client has it"

    def test_it_can_be_discarded_and_restored(self, client: TestClient, letter: str) -> None:
        path = f"{LETTERS}/{letter}"
        body = {"kind": "discard", "selector": {"filter": {}}, "dry_run": True}
        for response in (
            client.post("/rapids/api/operations", json=body),
            client.post(f"{path}/replay", json={"reason": HOSTILE}),
            client.request("DELETE", path, json={"reason": HOSTILE}),
            client.post(f"{path}/restore", json={"reason": HOSTILE}),
            client.get("/rapids/api/audit"),
        ):
            assert is_harmless(response)
            assert response.status_code == 200 or len(response.content) < 5_000
        assert response.json()["items"][0]["reason"] == HOSTILE
        assert client.get(path).json()["state"] == "dead"


def test_links_of_pages_are_safe_also_with_hostile_filters(client: TestClient, redis_url: str) -> None:
    for _ in range(2):
        put_letter(redis_url, handler=HOSTILE)
    response = client.get(LETTERS, params={"handler": HOSTILE, "limit": 1})
    assert is_harmless(response) or "%3Cscript%3E" in response.headers["link"]
    assert response.headers["link"].isascii()
    assert response.headers["link"].count("<") == response.headers["link"].count(">") == 1
    following = client.get(response.links["next"]["url"])
    assert len(following.json()["items"]) == 1


@pytest.mark.parametrize(
    "name", ["event_type", "handler", "group", "reason", "error_type", "q", "dlq", "cursor", "since"]
)
def test_hostile_parameters_are_not_reflected_in_headers(client: TestClient, redis_url: str, name: str) -> None:
    put_letter(redis_url)
    response = client.get(LETTERS, params={name: HOSTILE})
    assert is_harmless(response)


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

    def test_given_names_are_hidden_in_addition(self, redis_url: str) -> None:
        put = put_letter(redis_url, data='{"iban": "DE02", "password": "p", "n": 1}')
        with client_for(redis_url, redact=["IBAN"]) as client:
            value = client.get(f"{LETTERS}/{put}").json()["payload"]["value"]
        assert value == {"iban": MASK, "password": MASK, "n": 1}

    def test_it_can_be_turned_off(self, redis_url: str) -> None:
        put = put_letter(redis_url, data='{"password": "p"}')
        with client_for(redis_url, redact=None) as client:
            assert client.get(f"{LETTERS}/{put}").json()["payload"]["value"] == {"password": "p"}
            assert client.get(LETTERS, params={"q": '"password": "p"'}).json()["items"][0]["id"] == put

    def test_errors_and_tracebacks_do_not_show_secrets(self, client: TestClient, redis_url: str) -> None:
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
    def test_data_that_is_not_json_is_withheld(self, client: TestClient, redis_url: str, data: bytes) -> None:
        put = put_letter(redis_url, data=data)
        payload = client.get(f"{LETTERS}/{put}").json()["payload"]
        assert (payload["encoding"], payload["value"], payload["size"]) == ("withheld", None, len(data))

    def test_a_search_finds_nothing_that_is_hidden(self, client: TestClient, redis_url: str) -> None:
        for n in range(3):
            put_letter(redis_url, data=json.dumps({"password": "hunter2" if n == 1 else "other", "n": n}))
        pages = [client.get(LETTERS, params={"q": q, "limit": 1}).json() for q in ("hunter2", "absent")]
        assert pages[0] == pages[1]
        assert pages[0]["items"] == []

    def test_a_replay_sends_what_was_stored(self, client: TestClient, redis_url: str) -> None:
        data = '{"password" : "hunter2",   "n":1}'
        put = put_letter(redis_url, data=data)
        replay = client.post(f"{LETTERS}/{put}/replay", json={"scope": "everyone"}).json()
        assert replay["stream"] == STREAM
        [entry] = entries(redis_url, STREAM)
        assert entry["data"] == data

    def test_very_many_secrets_do_not_take_long(self, client: TestClient, redis_url: str) -> None:
        """A search for each of them in each text would take hours."""
        data = json.dumps([{"a": n, "password": f"secret{n}"} for n in range(50_000)])
        put = put_letter(redis_url, data=data, error="e" * 50_000, traceback="secret7")
        detail = client.get(f"{LETTERS}/{put}").json()
        assert detail["error"] == detail["traceback"] == MASK
        assert detail["payload"]["value"][7] == {"a": 7, "password": MASK}

    def test_large_data_that_is_not_json_is_cut_or_withheld(self, client: TestClient, redis_url: str) -> None:
        texts = [b"password=hunter2 " * 100_000, "é".encode() * 1_000_001, b"\xff" * 1_000_000]
        with client_for(redis_url, redact=None) as unredacted:
            for data, encoding in zip(texts, ("text", "text", "base64"), strict=True):
                path = f"{LETTERS}/{put_letter(redis_url, data=data)}"
                payload = client.get(path).json()["payload"]
                assert (payload["encoding"], payload["value"], payload["size"]) == ("withheld", None, len(data))
                payload = unredacted.get(path).json()["payload"]
                assert (payload["encoding"], payload["truncated"], payload["size"]) == (encoding, True, len(data))
