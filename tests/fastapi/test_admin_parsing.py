"""Parse checks in the details of a dead letter: whether it would parse now, without secrets of the payload."""

from __future__ import annotations

import json
from typing import Any

from fastapi.testclient import TestClient
from pydantic import create_model, field_validator, model_validator

from rapids import BaseEvent
from rapids.redaction import MASK
from tests.fastapi.helpers import put_letter

LETTERS = "/rapids/api/dead-letters"


class FaParsed(BaseEvent):
    n: int
    password: str | dict[str, int] = ""
    by_name: dict[str, int] = {}

    @field_validator("password")
    @classmethod
    def _strong(cls, password: Any) -> Any:
        if password == "hunter2":
            raise ValueError(f"{password[:4]}... is weak")
        return password

    @model_validator(mode="after")
    def _together(self) -> FaParsed:
        if self.n == 7:
            raise RuntimeError(f"not with {self.password}\ud800, secret=abc")
        return self


def check_of(client: TestClient, url: str, data: str | bytes | dict[str, Any], **fields: str | bytes) -> dict[str, Any]:
    raw = json.dumps(data) if isinstance(data, dict) else data
    letter_id = put_letter(url, **{"event_type": "fa.parsed", "data": raw, **fields})
    response = client.get(f"{LETTERS}/{letter_id}")
    assert response.status_code == 200
    return response.json()["parse_check"]


def test_a_fixed_class_is_seen_before_a_replay(client: TestClient, redis_url: str) -> None:
    create_model("FaChanging", __base__=BaseEvent, __module__=__name__, total=(int, ...))
    path = f"{LETTERS}/{put_letter(redis_url, event_type='fa.changing', data=json.dumps({'total': '12.50'}))}"

    before = client.get(path).json()["parse_check"]
    create_model("FaChanging", __base__=BaseEvent, __module__=__name__, total=(float, ...))
    after = client.get(path).json()["parse_check"]

    assert (before["outcome"], before["problems"][0]["pointer"]) == ("invalid", "/total")
    event_class = f"{__name__}.FaChanging"
    assert after == {"outcome": "parses", "event_class": event_class, "problems": [], "problem_count": 0}


def test_problems_point_into_the_event(client: TestClient, redis_url: str) -> None:
    check = check_of(client, redis_url, {"n": "4111", "by_name": {"a/b~c": "4112 x"}, "password": "x"} | {"n": None})

    assert (check["outcome"], check["problem_count"]) == ("invalid", 2)
    assert [(problem["pointer"], problem["type"]) for problem in check["problems"]] == [
        ("/n", "int_type"),
        ("/by_name/a~1b~0c", "int_parsing"),
    ]
    assert check["problems"][0]["message"] == "Input should be a valid integer"
    assert "4112" not in json.dumps(check)


def test_other_outcomes(client: TestClient, redis_url: str) -> None:
    unknown = check_of(client, redis_url, {}, event_type="fa.unheard_of")
    assert unknown == {"outcome": "unknown_type", "event_class": None, "problems": [], "problem_count": 0}
    unreadable = check_of(client, redis_url, b'{"n": \xff\x00}')
    assert (unreadable["outcome"], unreadable["event_class"]) == ("unreadable", f"{__name__}.FaParsed")
    assert unreadable["problems"][0]["message"].startswith("Invalid JSON: ")


def test_a_newer_schema_version_is_said(client: TestClient, redis_url: str) -> None:
    newer = check_of(client, redis_url, {"n": 1}, schema_version="2")
    assert (newer["outcome"], newer["event_class"]) == ("newer_version", f"{__name__}.FaParsed")
    why = "its schema version is 2, and the class of this process has 1"
    assert newer["problems"] == [{"pointer": "", "message": why, "type": "newer_version"}]


def test_what_is_hidden_in_the_payload_is_hidden_in_the_messages(client: TestClient, redis_url: str) -> None:
    weak = check_of(client, redis_url, {"n": 1, "password": "hunter2"})
    assert weak["problems"] == [{"pointer": "/password", "message": MASK, "type": "value_error"}]
    keys = check_of(client, redis_url, {"n": 1, "password": {"k3y": "x"}})
    assert {problem["message"] for problem in keys["problems"]} == {MASK}
    assert "k3y" not in json.dumps(keys)
    together = check_of(client, redis_url, {"n": 7, "password": "hunter3"})
    message = f"not with {MASK}?, secret={MASK}"
    assert together["problems"] == [{"pointer": "", "message": message, "type": "RuntimeError"}]


def test_a_payload_not_searched_for_secrets_keeps_its_messages(client: TestClient, redis_url: str) -> None:
    odd = '{"n": 7, "password": "hunter3", "x": %s}'
    check = check_of(client, redis_url, odd.replace("%s", "[" * 150 + "]" * 150))

    assert (check["outcome"], check["problems"][0]["message"]) == ("invalid", MASK)


def test_a_letter_without_metadata_shows_its_messages(client: TestClient, redis_url: str) -> None:
    assert check_of(client, redis_url, {}, metadata="")["problems"][0]["message"] == "Field required"


def test_megabytes_are_not_parsed(client: TestClient, redis_url: str) -> None:
    assert check_of(client, redis_url, {"n": 1, "x": "y" * 1_000_000})["outcome"] == "parses"
    for data in ({"n": 1, "x": "y" * 5_000_000}, b"[" * 5_000_000):
        check = check_of(client, redis_url, data)
        assert check == {"outcome": "too_large", "event_class": None, "problems": [], "problem_count": 0}
