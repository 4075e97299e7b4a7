"""Replays with a patch or with other data over HTTP: what is refused and where, and what stays hidden."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_sync
from fastapi.testclient import TestClient
from pydantic import BaseModel, field_validator, model_validator
from starlette.requests import HTTPConnection

from rapids import BaseEvent
from rapids.redaction import MASK
from rapids_fastapi.admin.auth import AdminUser
from tests.fastapi.helpers import DLQ, STREAM, client_for, entries, put_letter

LETTERS = "/rapids/api/dead-letters"
REPLAYS = f"{{{STREAM}}}:rapids:replay:group"


class FaCard(BaseModel):
    name: str = ""
    card_number: str | dict[str, Any] = ""


class FaEdited(BaseEvent):
    n: int = 0
    password: Any = None
    cards: list[FaCard] = []
    when: int | list[int] = 0

    @field_validator("n")
    @classmethod
    def _lucky(cls, n: int) -> int:
        if n == 13:
            raise ValueError("13 is out of the question")
        return n

    @model_validator(mode="after")
    def _together(self) -> FaEdited:
        if self.n == 7:
            raise ValueError(f"not with {self.password}, nor with {self.metadata.get('token')}")
        return self


@pytest.fixture
def put(redis_url: str) -> Callable[..., str]:
    """Writes a letter of `FaEdited` with this payload, and returns its path."""

    def write(data: Any = None, **fields: Any) -> str:
        raw = data if isinstance(data, str | bytes) else json.dumps(data or {})
        return f"{LETTERS}/{put_letter(redis_url, **{'event_type': 'fa.edited', 'data': raw} | fields)}"

    return write


@pytest.fixture
def sent(redis_url: str) -> Callable[[], Any]:
    """The data of the only entry in the replay stream."""

    def read() -> Any:
        [entry] = entries(redis_url, REPLAYS)
        return json.loads(entry["data"])

    return read


def replay(client: TestClient, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(f"{path}/replay", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def test_numbers_are_sent_with_the_digits_of_the_request(
    redis_url: str, put: Callable[..., str], client: TestClient
) -> None:
    path = put('{"n":1,"price":48.90}')
    body = b'{"data": {"n": 9007199254740993, "price": 48.90, "rates": [1.0, 2.50e3]}}'
    answer = client.post(f"{path}/check", content=body, headers={"Content-Type": "application/json"})
    assert [one["pointer"] for one in answer.json()["diff"]] == ["/n", "/rates"]
    for request in (body, b'{"patch": {"rates": [1.0, 2.50e3]}}'):
        path = put('{"n":9007199254740993,"price":48.90}')
        answer = client.post(f"{path}/replay", content=request, headers={"Content-Type": "application/json"})
        assert answer.status_code == 200, answer.text
    expected = '{"n":9007199254740993,"price":48.90,"rates":[1.0,2.50e3]}'
    assert [entry["data"] for entry in entries(redis_url, REPLAYS)] == [expected, expected]


def refused(client: TestClient, path: str, **body: Any) -> list[tuple[str, str, str]]:
    response = client.post(f"{path}/replay", json=body)
    assert response.status_code == 422, response.text
    problem = response.json()
    assert problem["type"] == "urn:rapids:problem:data-invalid"
    assert problem["error_count"] >= len(problem["errors"])
    return [(error["pointer"], error["type"], error["message"]) for error in problem["errors"]]


# --- what is sent, and what is kept of it ---------------------------------------------------------------------------


def test_both_versions_and_the_difference_are_kept(
    client: TestClient, put: Callable[..., str], sent: Callable[[], Any]
) -> None:
    path = put({"n": 1, "when": 2})
    answer = replay(client, path, data={"n": 5, "when": 2}, reason="typo")

    difference = {"pointer": "/n", "op": "replace", "before": 1, "after": 5, "cut": False}
    assert (answer["diff"], sent()) == ([difference], {"n": 5, "when": 2})
    letter = client.get(path).json()
    assert (letter["state"], letter["payload"]["value"]) == ("replayed", {"n": 1, "when": 2})
    [change] = letter["history"]
    assert (change["reason"], change["diff"], change["data"]["value"]) == ("typo", [difference], {"n": 5, "when": 2})


def test_without_changed_data_the_history_has_none(client: TestClient, put: Callable[..., str]) -> None:
    path = put({"n": 1})
    assert client.post(f"{path}/replay", json={"data": None}).json()["diff"] == []
    [change] = client.get(path).json()["history"]
    assert (change["data"], change["diff"]) == (None, [])


def test_to_everyone(client: TestClient, put: Callable[..., str], redis_url: str) -> None:
    assert replay(client, put({"n": 1}), data={"n": 2}, scope="everyone")["stream"] == STREAM
    [entry] = entries(redis_url, STREAM)
    assert (entry["data"], entry["id"]) == ('{"n":2}', "event-1")


# --- permissions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("permissions", [("replay",), ("edit",), ("read", "discard")])
def test_it_needs_both_permissions(redis_url: str, permissions: Any, put: Callable[..., str]) -> None:
    def who(connection: HTTPConnection) -> AdminUser:
        return AdminUser("ada", permissions)

    path = put({"n": 1})
    with client_for(redis_url, admin_auth=who) as client:
        for data in ({"n": 2}, {"n": "x"}, {}):
            response = client.post(f"{path}/replay", json={"data": data})
            assert (response.status_code, response.json()["type"]) == (403, "urn:rapids:problem:forbidden")
            assert response.json()["permission"] == ("edit" if permissions == ("replay",) else "replay")
    assert entries(redis_url, REPLAYS) == []


# --- what is refused ------------------------------------------------------------------------------------------------


def test_errors_have_pointers_into_the_data(client: TestClient, put: Callable[..., str], redis_url: str) -> None:
    path = put({"n": 1})
    assert [row[:2] for row in refused(client, path, data={"n": "x", "cards": [{"name": 5}, 7], "when": ["y"]})] == [
        ("/n", "int_parsing"),
        ("/cards/0/name", "string_type"),
        ("/cards/1", "model_type"),
        ("/when", "int_type"),
        ("/when/0", "int_parsing"),
    ]
    assert refused(client, path, data={"n": 13}) == [("/n", "value_error", "Value error, 13 is out of the question")]
    assert [row[:2] for row in refused(client, path, data={"id": "mine"})] == [("/id", "locked")]
    assert client.get(path).json()["state"] == "dead"
    assert entries(redis_url, REPLAYS) == []


@pytest.mark.parametrize("data", ['{"n": NaN}', '{"when": [1e400]}', '{"password": "\\ud800"}', '{"a\\ud800": 1}'])
def test_data_that_only_some_parsers_accept(client: TestClient, put: Callable[..., str], data: str) -> None:
    content = f'{{"data": {data}}}'
    response = client.post(f"{put()}/replay", content=content, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["type"]) == (422, "urn:rapids:problem:invalid")


def test_data_too_deep_to_search_for_secrets(client: TestClient, put: Callable[..., str]) -> None:
    deep: Any = "hunter2"
    for _ in range(150):
        deep = [deep]
    assert refused(client, put(), data={"password": deep}) == [("", "too_deep", "nested too deep")]


@pytest.mark.parametrize("data", [[], "x", 1, True])
def test_data_that_is_not_an_object(client: TestClient, put: Callable[..., str], data: Any) -> None:
    response = client.post(f"{put()}/replay", json={"data": data})
    assert (response.status_code, response.json()["type"]) == (422, "urn:rapids:problem:invalid")
    assert response.json()["errors"][0]["where"] == "body.data"


def test_megabytes_of_data_are_refused(client: TestClient, put: Callable[..., str]) -> None:
    response = client.post(f"{put()}/replay", json={"data": {"password": "x" * 5_000_000}})
    assert (response.status_code, response.json()["type"]) == (413, "urn:rapids:problem:too-large")
    assert "DeadLetterQueue.replay(data=...)" in response.json()["detail"]


def test_a_megabyte_can_be_patched(client: TestClient, put: Callable[..., str], sent: Callable[[], Any]) -> None:
    path = put({"n": "x", "password": "y" * 600_000, "cards": [{"name": "z" * 100}] * 3_500})
    answer = replay(client, path, patch={"n": 1, "cards": None})
    assert sent() == {"n": 1, "password": "y" * 600_000}
    assert [(one["pointer"], one["op"], one["cut"]) for one in answer["diff"]] == [
        ("/n", "replace", False),
        ("/cards", "remove", True),
    ]


@pytest.mark.parametrize("stored", ["no JSON", "[1]", "null"])
def test_a_patch_needs_an_object_to_change(client: TestClient, put: Callable[..., str], stored: str) -> None:
    [problem] = refused(client, put(stored), patch={"n": 1})
    assert problem[:2] == ("", "not_an_object")
    assert replay(client, put(stored), data={"n": 1})["diff"]


def test_either_a_patch_or_data(client: TestClient, put: Callable[..., str], redis_url: str) -> None:
    response = client.post(f"{put({'n': 1})}/replay", json={"data": {"n": 2}, "patch": {"n": 3}})
    assert (response.status_code, response.json()["type"]) == (422, "urn:rapids:problem:invalid")
    assert entries(redis_url, REPLAYS) == []


def test_an_unknown_type_and_an_unreadable_event(client: TestClient, put: Callable[..., str]) -> None:
    assert refused(client, put(event_type="fa.unheard_of"), data={})[0][:2] == ("", "unknown_type")
    assert refused(client, put(event_type="fa.unheard_of", metadata="{"), data={}) == [("", "unknown_type", MASK)]
    response = client.post(f"{put(metadata='{')}/replay", json={"data": {}})
    assert (response.status_code, response.json()["type"]) == (409, "urn:rapids:problem:letter-unreadable")


def test_the_state_is_checked_first(client: TestClient, put: Callable[..., str]) -> None:
    path = put({"password": "hunter2"})
    client.delete(path)
    response = client.post(f"{path}/replay", json={"data": {"n": "x", "unknown": {"token": MASK}}})
    assert (response.status_code, response.json()["state"]) == (409, "discarded")
    assert client.post(f"{LETTERS}/1-1/replay", json={"data": {}}).status_code == 404


# --- what is hidden -------------------------------------------------------------------------------------------------


def test_fields_that_a_patch_does_not_name_keep_their_values(
    client: TestClient, put: Callable[..., str], sent: Callable[[], Any]
) -> None:
    path = put({"n": "1o", "password": {"pass": ["hunter2"]}, "cards": [{"name": "a", "card_number": "4111"}]})
    shown = client.get(path).json()["payload"]["value"]
    answer = replay(client, path, patch={"n": 10})
    assert sent() == {
        "n": 10,
        "password": {"pass": ["hunter2"]},
        "cards": [{"name": "a", "card_number": "4111"}],
    }
    assert [one["pointer"] for one in answer["diff"]] == ["/n"]
    history = client.get(path).json()["history"]
    assert history[0]["data"]["value"] == shown | {"n": 10}
    assert "hunter2" not in json.dumps([answer, history])


def test_a_patch_can_change_and_remove_hidden_values(
    client: TestClient, put: Callable[..., str], sent: Callable[[], Any]
) -> None:
    path = put({"n": 1, "password": {"old": "hunter2", "same": "hunter3"}, "token": "t0p"})
    answer = replay(client, path, patch={"password": {"old": None, "new": "hunter4"}, "token": None})

    assert sent() == {"n": 1, "password": {"same": "hunter3", "new": "hunter4"}}
    assert [(one["pointer"], one["before"], one["after"]) for one in answer["diff"]] == [
        ("/token", MASK, None),
        ("/password", MASK, MASK),
    ]
    for secret in ("hunter", "t0p", "old", "new"):
        assert secret not in json.dumps([answer, client.get(path).json()["history"]])


def test_a_hidden_value_that_is_changed_shows_as_changed(
    client: TestClient, put: Callable[..., str], sent: Callable[[], Any]
) -> None:
    path = put({"password": {"old": "hunter2"}, "cards": [{"card_number": "4111"}]})
    answer = replay(client, path, data={"password": {"new": "hunter3"}, "cards": [{}], "token": "t0p"})

    assert sent() == {"password": {"new": "hunter3"}, "cards": [{}], "token": "t0p"}
    assert [(one["pointer"], one["op"], one["before"], one["after"]) for one in answer["diff"]] == [
        ("/cards/0/card_number", "remove", MASK, None),
        ("/token", "add", None, MASK),
        ("/password", "replace", MASK, MASK),
    ]
    letter = client.get(path).json()
    assert letter["history"][0]["diff"] == answer["diff"]
    for secret in ("hunter", "4111", "t0p", "old", "new"):
        assert secret not in json.dumps([answer, letter["history"]])


def test_hidden_values_inside_what_was_changed_are_hidden(client: TestClient, put: Callable[..., str]) -> None:
    path = put({"cards": {"card_number": "4111"}})
    answer = replay(client, path, data={"cards": [{"card_number": "4222"}]})
    assert [(one["before"], one["after"]) for one in answer["diff"]] == [
        ({"card_number": MASK}, [{"card_number": MASK}])
    ]


@pytest.mark.parametrize("change", ["data", "patch"])
@pytest.mark.parametrize(
    ("given", "pointers"),
    [
        ({"token": MASK}, ["/token"]),
        ({"n": {"password": MASK}}, ["/n/password"]),
        ({"password": {"pass": "x", "token": MASK}}, ["/password/token"]),
        ({"n": 1, "cards": [{"card_number": "4111"}, {"card_number": MASK}]}, ["/cards/1/card_number"]),
        ({"password": MASK, "cards": [{"card_number": MASK}]}, ["/password", "/cards/0/card_number"]),
        ({"cards": [["authorization", MASK], {"name": "token", "value": MASK}]}, ["/cards/0/1", "/cards/1/value"]),
        ({"cards": ["run", "--password", MASK]}, ["/cards/2"]),
    ],
)
def test_the_mask_instead_of_a_hidden_value_is_refused(
    client: TestClient, put: Callable[..., str], redis_url: str, change: str, given: Any, pointers: list[str]
) -> None:
    shown_before = {"n": 1, "password": {"token": "hunter2"}, "token": "t", "cards": [{"card_number": "4111"}] * 2}
    for stored in (shown_before, "no JSON", b'{"password": %s}' % (b"[" * 150 + b"]" * 150)):
        problems = refused(client, put(stored), **{change: given})
        assert [problem[:2] for problem in problems] == [(pointer, "hidden_value") for pointer in pointers]
    assert entries(redis_url, REPLAYS) == []


def test_in_other_fields_the_mask_is_a_text(
    client: TestClient, put: Callable[..., str], sent: Callable[[], Any]
) -> None:
    replay(client, put({"n": 1}), data={"cards": [{"name": MASK}]})
    assert sent() == {"cards": [{"name": MASK}]}


def test_without_redaction_data_may_have_the_mask(
    redis_url: str, put: Callable[..., str], sent: Callable[[], Any]
) -> None:
    path = put({"password": "hunter2"})
    with client_for(redis_url, redact=None) as client:
        answer = replay(client, path, data={"password": MASK})
        assert (answer["diff"][0]["before"], sent()) == ("hunter2", {"password": MASK})


def test_not_a_number_and_its_hidden_neighbour(
    client: TestClient, put: Callable[..., str], sent: Callable[[], Any]
) -> None:
    answer = replay(client, put('{"n": NaN, "password": "hunter2"}'), patch={"n": 1})
    assert sent() == {"n": 1, "password": "hunter2"}
    assert answer["diff"] == [{"pointer": "/n", "op": "replace", "before": "NaN", "after": 1, "cut": False}]


def test_messages_show_no_secret(client: TestClient, put: Callable[..., str]) -> None:
    path = put({"n": 1, "password": "hunter2", "cards": []}, metadata='{"token": "t0psecret"}')
    message = f"Value error, not with {MASK}, nor with {MASK}"
    assert refused(client, path, patch={"n": 7}) == [("", "value_error", message)]
    assert refused(client, path, patch={"n": 7, "password": "hunter3"}) == [("", "value_error", message)]
    assert refused(client, path, data={"n": 7, "password": "hunter3"}) == [("", "value_error", message)]
    assert refused(client, path, data={"cards": [{"card_number": {"k3y": 1}}, {"card_number": 5}]}) == [
        ("/cards/1/card_number", "string_type", MASK),
        ("/cards/1/card_number", "dict_type", MASK),
    ]
    deep = put({"n": 1}, metadata='{"token": %s}' % ("[" * 150 + "]" * 150))
    assert refused(client, deep, data={"n": 13}) == [("/n", "value_error", MASK)]


def test_hostile_names_are_only_data(client: TestClient, put: Callable[..., str]) -> None:
    name = "<script>alert(1)</script>\x00\u202e/~"
    path = put({name: 1})
    answer = replay(client, path, data={name: [MASK], "~1": "\u2028"})
    assert [one["pointer"] for one in answer["diff"]] == [
        "/" + name.replace("~", "~0").replace("/", "~1"),
        "/~01",
    ]
    assert client.get(path).json()["history"][0]["data"]["value"] == {name: [MASK], "~1": "\u2028"}


@pytest.mark.parametrize(
    "diff", ["x", "[1]", '[{"pointer": 1, "op": "x", "before": 1, "after": 1, "cut": 1}]', "[" * 9_000]
)
def test_a_history_that_another_program_wrote(client: TestClient, raw: redis_sync.Redis, diff: str) -> None:
    change = {"action": "replayed", "scope": "everyone", "data": '{"password": "hunter2", ', "diff": diff}
    letter = {"rapids:letter_id": "5-5", "rapids:history": json.dumps([change])}
    raw.xadd(f"{DLQ}:rapids:archive", letter, id="7-0")  # type: ignore[arg-type]
    raw.zadd(f"{DLQ}:rapids:archived", {"5-5": 7})
    response = client.get(f"{LETTERS}/5-5")
    whole = {"pointer": "", "op": "replace", "before": None, "after": None, "cut": True}
    assert (response.status_code, response.json()["history"][0]["diff"]) == (200, [whole])
    assert "hunter2" not in response.text
