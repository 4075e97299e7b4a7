"""The archive over HTTP: what was moved, by whom and why, and from there back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rapids.redaction import MASK
from rapids_fastapi.admin import archive
from tests.fastapi.helpers import client_for, put_letter, until
from tests.fastapi.test_admin_replay_request import FaEdited

ARCHIVE = "/rapids/api/archive"
LETTERS = "/rapids/api/dead-letters"
OPERATIONS = "/rapids/api/operations"


def archived(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    response = client.get(ARCHIVE, params=query)
    assert response.status_code == 200, response.text
    return response.json()["items"]


def test_what_was_moved_last_comes_first_and_can_be_restored(redis_url: str) -> None:
    data = json.dumps({"n": 1, "password": "hunter2"})
    with client_for(redis_url) as client:
        put = [put_letter(redis_url, handler=f"handler_{n}", data=data, error="hunter2 is wrong") for n in range(3)]
        client.post(f"{LETTERS}/{put[0]}/replay", json={"reason": "fixed"})
        client.request("DELETE", f"{LETTERS}/{put[1]}", json={"reason": "a test"})
        client.request("DELETE", f"{LETTERS}/{put[2]}", json={})

        found = archived(client)
        assert [(one["id"], one["state"], one["moved_by"], one["move_reason"]) for one in found] == [
            (put[2], "discarded", "admin", ""),
            (put[1], "discarded", "admin", "a test"),
            (put[0], "replayed", "admin", "fixed"),
        ]
        assert found[0]["payload"]["value"] == {"n": 1, "password": MASK}
        assert "hunter2" not in json.dumps(found)
        assert [one["id"] for one in archived(client, state="replayed")] == [put[0]]
        assert [one["id"] for one in archived(client, handler="handler_1")] == [put[1]]
        now = datetime.now(UTC)
        assert archived(client, since=(now + timedelta(minutes=5)).isoformat()) == []
        assert len(archived(client, until=(now + timedelta(minutes=5)).isoformat())) == 3
        assert len(archived(client, since="0001-01-01")) == 3
        assert archived(client, until="1969-12-31") == archived(client, since="9999-12-31") == []
        assert client.get(ARCHIVE, params={"q": "hunter"}).status_code == 422

        first = client.get(ARCHIVE, params={"limit": 2})
        assert [one["id"] for one in first.json()["items"]] == [put[2], put[1]]
        [rest] = client.get(first.links["next"]["url"]).json()["items"]
        assert rest["id"] == put[0]

        client.post(f"{LETTERS}/{put[1]}/restore", json={})
        assert [one["id"] for one in archived(client)] == [put[2], put[0]]


def test_a_page_has_fewer_letters_if_these_are_large(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is searched for hidden values: 200 of 60 kB took 7 s."""
    data = json.dumps({"text": "x" * 1_000})
    monkeypatch.setattr(archive, "MAX_PAGE_BYTES", 3 * len(data))
    with client_for(redis_url) as client:
        put = [put_letter(redis_url, data=data, metadata="") for _ in range(7)]
        client.post(OPERATIONS, json={"kind": "discard", "selector": {"ids": put}})
        until(lambda: len(archived(client, limit=1)) and client.get(LETTERS).json()["total"] == 0)
        sizes, found = list[int](), list[str]()
        following: str | None = f"{ARCHIVE}?limit=50"
        while following is not None:
            page = client.get(following)
            sizes.append(len(page.json()["items"]))
            found += [one["id"] for one in page.json()["items"]]
            following = page.links.get("next", {}).get("url")
    assert (sizes, sorted(found)) == ([3, 3, 1], put)


def test_an_edit_is_checked_as_a_replay_checks_it_and_nothing_is_sent(redis_url: str) -> None:
    with client_for(redis_url) as client:
        put = put_letter(redis_url, event_type=FaEdited.event_type, data=json.dumps({"n": 1, "password": "hunter2"}))
        check, replay = f"{LETTERS}/{put}/check", f"{LETTERS}/{put}/replay"
        answers = [client.post(check, json=body) for body in BODIES]
        for body, answer in zip(BODIES, answers, strict=True):
            refused = client.post(replay, json=body) if not answer.json()["accepted"] else None
            if refused is not None:
                assert refused.status_code == 422
                assert answer.json()["problems"] == refused.json()["errors"]
                assert answer.json()["diff"] == []
        accepted = answers[0].json()
        assert (accepted["accepted"], accepted["problems"]) == (True, [])
        assert [(one["pointer"], one["before"], one["after"]) for one in accepted["diff"]] == [("/n", 1, 2)]
        assert [answer.json()["accepted"] for answer in answers] == [True, False, False, False]
        assert "hunter2" not in str([answer.text for answer in answers])
        assert client.get(f"{LETTERS}/{put}").json()["state"] == "dead"
        assert client.post(replay, json=BODIES[0]).json()["diff"] == accepted["diff"]
        assert client.post(check, json={}).status_code == 422
        assert client.post(check, json={"patch": {}, "data": {}}).status_code == 422
        assert client.post(f"{LETTERS}/1-1/check", json={"patch": {}}).status_code == 404


BODIES: list[dict[str, Any]] = [
    {"patch": {"n": 2}},
    {"patch": {"n": "many"}},
    {"patch": {"n": 7}},
    {"data": {"n": 1, "password": MASK}},
]
