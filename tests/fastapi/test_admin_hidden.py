"""What is hidden in a payload stays out of texts about it, also where that is large, no JSON, or metadata."""

from __future__ import annotations

import json

import pytest
from fastapi.testclient import TestClient

from rapids_fastapi.admin.redaction import MASK
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
def test_neither_lists_nor_details_nor_exports_show_it(
    client: TestClient, redis_url: str, fields: dict[str, str]
) -> None:
    letter_id = put_letter(redis_url, error=f"it is {SECRET}", traceback=f"at {SECRET}", **fields)
    answers = [client.get(LETTERS + path) for path in ("", f"/{letter_id}", "/export")]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    for answer in answers:
        assert MASK in answer.text
        assert SECRET not in answer.text


@EVERY
def test_no_search_finds_it(client: TestClient, redis_url: str, fields: dict[str, str]) -> None:
    put_letter(redis_url, error=f"it is {SECRET}", **fields)
    assert client.get(LETTERS, params={"q": SECRET[:4]}).json()["items"] == []


def test_other_errors_of_what_is_no_json_are_told(client: TestClient, redis_url: str) -> None:
    put_letter(redis_url, data="no JSON", error="it is no JSON")
    assert client.get(LETTERS).json()["items"][0]["error"] == "it is no JSON"
    assert len(client.get(LETTERS, params={"q": "it is no"}).json()["items"]) == 1


def test_where_nothing_is_hidden_errors_of_large_payloads_are_told(redis_url: str) -> None:
    put_letter(redis_url, error="it broke", **LARGE)
    with client_for(redis_url, redact=None) as client:
        assert client.get(LETTERS).json()["items"][0]["error"] == "it broke"
