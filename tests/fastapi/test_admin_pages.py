"""Pages: every list has opaque cursors and links to the next page, and refuses cursors of other lists."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from fastapi import Response
from fastapi.testclient import TestClient
from starlette.requests import Request

from rapids_fastapi.admin.pages import MAX_CURSOR, link_next_page
from tests.fastapi.admin_paths import document
from tests.fastapi.helpers import BEARER, admin_app, put_letter, rapids_with

LETTERS = "/rapids/api/dead-letters"


def test_a_link_is_one_line_of_ascii_whatever_the_path() -> None:
    path = '/ops">,\r\nX: y/é\u202e'
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "query_string": b"q=%0D%0A%3E&x=%FF&cursor=old",
        "headers": [],
        "server": None,
    }
    response = Response()
    link_next_page(Request(scope), response, "abc")
    link = response.headers["link"]
    assert link.isascii()
    assert link.isprintable()
    assert link == f'<{quote(path)}?q=%0D%0A%3E&x=%EF%BF%BD&cursor=abc>; rel="next"'


def test_every_list_has_a_cursor_for_the_next_page() -> None:
    def properties(schema: dict[str, Any]) -> set[str]:
        members = [schema, *schema.get("anyOf", ())]
        names = {member["$ref"].rpartition("/")[2] for member in members if "$ref" in member}
        return {name for schema in names for name in document()["components"]["schemas"][schema]["properties"]}

    lists = 0
    for methods in document()["paths"].values():
        for operation in methods.values():
            parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", ())}
            answer = operation["responses"].get("200", {}).get("content", {}).get("application/json", {})
            if "application/x-ndjson" in operation["responses"].get("200", {}).get("content", {}):
                continue  # its last line says it
            assert ("cursor" in parameters) == ("next_cursor" in properties(answer.get("schema", {})))
            lists += "cursor" in parameters
    assert lists >= 3


def test_a_letters_id_is_no_cursor(client: TestClient, redis_url: str) -> None:
    put = [put_letter(redis_url) for _ in range(3)]
    page = client.get(LETTERS, params={"limit": 1}).json()
    assert put[2] not in page["next_cursor"]
    assert client.get(LETTERS, params={"cursor": put[2]}).status_code == 422
    assert client.get(LETTERS, params={"cursor": page["next_cursor"]}).json()["items"][0]["id"] == put[1]
    assert client.get(LETTERS, params={"cursor": "A" * (MAX_CURSOR + 1)}).status_code == 422


@pytest.mark.parametrize("prefix", ["/behind", "/behind/"])
def test_links_have_the_prefix_that_a_proxy_removed(redis_url: str, prefix: str) -> None:
    put_letter(redis_url)
    letter_id = put_letter(redis_url)
    with TestClient(admin_app(rapids_with(redis_url)), headers=BEARER, root_path=prefix) as client:  # type: ignore[arg-type]
        assert client.get(f"{LETTERS}?limit=1").headers["link"].startswith(f"</behind{LETTERS}?limit=1&cursor=")
        links = client.get(f"{LETTERS}/{letter_id}").json()["links"]
        assert links["causation_tree"].startswith("/behind/rapids/api/events?")
        assert [link["href"].partition("?")[0].rpartition("/")[0] for link in links["letters"]] == [f"/behind{LETTERS}"]
        asked = {"kind": "replay", "selector": {"ids": ["1-1"]}}
        started = client.post("/rapids/api/operations", json=asked)
        assert started.headers["location"] == f"/behind/rapids/api/operations/{started.json()['id']}"
