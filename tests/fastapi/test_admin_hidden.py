"""Secrets in a payload are hidden in all texts about it, also if it is large, not JSON, or metadata."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from rapids.redaction import MASK
from tests.fastapi.helpers import client_for, put_letter

LETTERS = "/rapids/api/dead-letters"
SECRET = "hunter2"

LARGE = {"data": json.dumps({"password": SECRET, "text": "x" * 70_000})}
METADATA = {"metadata": json.dumps({"token": SECRET})}
NO_JSON = {"data": f'{{"password": "{SECRET}", "n": NaN}}'}
FORM = {"data": f"password={SECRET}&n=1"}
ENDLESS = {"data": f"password={SECRET} " + "x" * 70_000}

EVERY = pytest.mark.parametrize("fields", [LARGE, METADATA, NO_JSON, FORM, ENDLESS])


@EVERY
def test_lists_details_and_exports_do_not_show_a_secret(
    client: TestClient, redis_url: str, fields: dict[str, str]
) -> None:
    letter_id = put_letter(redis_url, error=f"it is {SECRET}", traceback=f"at {SECRET}", **fields)
    answers = [client.get(LETTERS + path) for path in ("", f"/{letter_id}", "/export")]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    for answer in answers:
        assert MASK in answer.text
        assert SECRET not in answer.text


@EVERY
def test_no_search_finds_a_secret(client: TestClient, redis_url: str, fields: dict[str, str]) -> None:
    put_letter(redis_url, error=f"it is {SECRET}", **fields)
    assert client.get(LETTERS, params={"q": SECRET[:4]}).json()["items"] == []


def test_of_data_that_is_not_json_only_what_the_parser_says_is_shown(client: TestClient, redis_url: str) -> None:
    error = "Invalid JSON: expected value at line 1 column 1"
    put_letter(redis_url, data="no JSON", error=error)
    put_letter(redis_url, data="no JSON", error="it is no JSON")
    assert [letter["error"] for letter in client.get(LETTERS).json()["items"]] == [MASK, error]
    assert len(client.get(LETTERS, params={"q": "at line 1"}).json()["items"]) == 1
    assert client.get(LETTERS, params={"q": "it is no"}).json()["items"] == []


def test_without_redaction_errors_of_large_payloads_are_shown(redis_url: str) -> None:
    put_letter(redis_url, error="it broke", **LARGE)
    with client_for(redis_url, redact=None) as client:
        assert client.get(LETTERS).json()["items"][0]["error"] == "it broke"
