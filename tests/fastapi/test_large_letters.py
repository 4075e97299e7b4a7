"""Letters that are too large to be searched for hidden values: what is parsed is bounded, by bytes and by values."""

from __future__ import annotations

import json
from typing import Any

import pytest
import redis as redis_sync
from fastapi.testclient import TestClient

from rapids.redaction import MASK, Redactor, redactor
from rapids.redaction.redactor import MAX_BYTES, MAX_JSON_VALUES
from rapids_fastapi.admin import replay_request
from tests.fastapi.helpers import STREAM, client_for, entries, put_letter

LETTERS = "/rapids/api/dead-letters"
PAGE = 1024 * 1024
MANY = b'{"a":[' + b",".join([b"[]"] * (MAX_JSON_VALUES // 2)) + b"]}"
LONG = b'{"a":"' + b"x" * MAX_BYTES + b'"}'


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all documents that are parsed to be searched."""
    sizes: list[int] = []
    parse = redactor.from_json

    def counted(raw: Any) -> Any:
        sizes.append(len(raw))
        return parse(raw)

    monkeypatch.setattr(redactor, "from_json", counted)
    monkeypatch.setattr(replay_request, "from_json", counted)
    return sizes


@pytest.mark.parametrize("data", [MANY, LONG], ids=["many values", "many bytes"])
def test_what_is_too_large_is_never_parsed_and_is_replayed_as_it_is(
    client: TestClient, redis_url: str, parsed: list[int], data: bytes
) -> None:
    put = put_letter(redis_url, data=data, error="secret")
    omitted = {"encoding": "omitted", "value": None, "size": len(data), "truncated": True}
    one = f"{LETTERS}/{put}"
    for change in ({"patch": {"b": 1}}, {"data": {"b": 1}}):
        refused = client.post(f"{one}/replay", json=change)
        assert (refused.status_code, refused.json()["errors"][0]["type"]) == (422, "too_large")
    exported = json.loads(client.get(f"{LETTERS}/export").text)
    page = client.get(LETTERS).json()["items"][0]
    discarded = client.request("DELETE", one).json()
    restored = client.post(f"{one}/restore", json={}).json()
    for shown in (client.get(one).json(), exported, page, discarded, restored):
        assert (shown["payload"], shown["error"]) == (omitted, MASK)
    assert client.get(LETTERS, params={"q": "secret"}).json()["items"] == []
    assert max(parsed) < 1_000, "only the metadata, and the examples of requests"
    with client_for(redis_url, redact=None) as unredacted:
        shown = unredacted.get(one).json()
    assert (shown["payload"], shown["error"]) == (omitted, "secret")
    client.post(f"{one}/replay", json={"scope": "everyone"})
    assert [entry["data"].encode() for entry in entries(redis_url, STREAM)] == [data]


def test_an_ordinary_letter_of_a_megabyte_is_shown_whole_and_can_be_changed(client: TestClient, redis_url: str) -> None:
    lines = [{"sku": f"A-{n}", "n": n % 7, "price": 12.5, "name": "Blue shoes, size 42"} for n in range(14_000)]
    data = {"lines": lines, "password": "hunter2"}
    assert 1_000_000 < len(json.dumps(data)) < PAGE
    put = put_letter(redis_url, data=json.dumps(data), error="for hunter2")
    shown = client.get(f"{LETTERS}/{put}").json()
    assert shown["payload"]["value"] == {"lines": lines, "password": MASK}
    assert shown["error"] == f"for {MASK}"
    errors = client.post(f"{LETTERS}/{put}/replay", json={"patch": {"n": 1}}).json()["errors"]
    assert [error["type"] for error in errors] == ["unknown_type"], "only the class of its event is missing"


def test_a_page_has_no_more_letters_than_can_be_searched_at_once(
    client: TestClient, redis_url: str, parsed: list[int]
) -> None:
    data = json.dumps({"a": "x" * 60_000})
    put = [put_letter(redis_url, data=data, error=f"error {n}") for n in range(40)]
    fitting = PAGE // (len(data) + len("{}"))
    for query in ({"limit": 200}, {"limit": 200, "q": "error"}):
        found: list[str] = []
        cursor: str | None = None
        while cursor is not None or not found:
            parsed.clear()
            page = client.get(LETTERS, params={**query, **({"cursor": cursor} if cursor else {})}).json()
            assert len(page["items"]) <= fitting + 1
            assert sum(parsed) <= 2 * (PAGE + len(data)), "to search, and to show"
            found += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert found == put[::-1]
    absent = client.get(LETTERS, params={"q": "absent"}).json()
    assert (absent["items"], absent["scanned"] <= fitting + 1) == ([], True)
    assert absent["next_cursor"]


def test_a_tree_has_no_more_payloads_than_can_be_searched_at_once(
    client: TestClient, raw: redis_sync.Redis, redis_url: str, parsed: list[int]
) -> None:
    data = json.dumps({"a": "x" * 60_000})
    for n in range(30):
        put_letter(redis_url, data=data, error=f"error {n}", id=f"event-{n}")
        common = {"event_type": "fa.thing", "id": f"event-{n}", "correlation_id": "corr-1", "metadata": "{}"}
        raw.xadd(STREAM, {**common, "data": data})
    fitting = PAGE // (len(data) + len("{}"))
    tree = client.get("/rapids/api/events", params={"correlation_id": "corr-1"}).json()
    assert [event["data"]["encoding"] for event in tree["events"]] == ["text"] * fitting + ["omitted"] * (30 - fitting)
    assert [letter["error"] == MASK for letter in tree["letters"]] == [False] * fitting + [True] * (30 - fitting)
    assert sum(parsed) <= 2 * PAGE


def test_what_is_hidden_at_too_many_places_is_withheld() -> None:
    inside = ",".join(['{"pin":1}'] * 20_000)
    for depth, is_searched in ((10, True), (90, False)):
        found = Redactor.of(()).document(("[" * depth + inside + "]" * depth).encode())
        assert (found is not None) == is_searched


def test_hidden_values_that_are_parts_of_the_mask_do_not_let_a_text_grow() -> None:
    parts = ["abcd", *(MASK[at:end] for at in range(10) for end in range(at + 4, 11))]
    found = Redactor.of(()).document(json.dumps({"password": parts, "a": "abcd" * 1_000}).encode())
    assert found is not None
    assert found.shown["a"] == MASK * 1_000


def test_a_call_with_many_brackets_is_hidden_whole() -> None:
    hiding = Redactor.of(())
    call = "password=SecretStr('hunter2', (1, [2])) failed"
    assert hiding.named(call, set()) == f"password={MASK} failed"
    endless = "password=a" + "( " * 1_000 + "end"
    assert hiding.named(endless, set()).startswith(f"password={MASK}( ")


def test_a_patch_of_data_that_cannot_be_searched_is_refused(client: TestClient, redis_url: str) -> None:
    """It could remove what is too deep, and show what was hidden there."""
    deep = '{"a":' + "[" * 120 + "]" * 120 + "}"
    put = put_letter(redis_url, data=deep)
    refused = client.post(f"{LETTERS}/{put}/replay", json={"patch": {"a": None}})
    assert (refused.status_code, refused.json()["errors"][0]["type"]) == (422, "too_deep")
