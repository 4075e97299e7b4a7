"""Junk in every parameter and every body of the admin: it is refused, or used as a text, and never a 500."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from tests.fastapi.admin_paths import document, documented, filled
from tests.fastapi.served_admin import OPERATOR, app_on, fill

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

JSON = {**OPERATOR, "Content-Type": "application/json"}
PROBLEM = "application/problem+json"

DOCUMENTED = documented()
WITH_PARAMETERS = [operation for operation, described in DOCUMENTED.items() if described.get("parameters")]
WITH_BODY = [operation for operation, described in DOCUMENTED.items() if "requestBody" in described]
FIRST_WITH: dict[str, tuple[str, str]] = {}
"""The first operation with each parameter: there, all junk is tried. The others read it by the same code."""
for _operation in WITH_PARAMETERS:
    for _parameter in DOCUMENTED[_operation]["parameters"]:
        FIRST_WITH.setdefault(json.dumps(_parameter, sort_keys=True), _operation)

# As they are written in an address. Some are not valid text after they are decoded.
JUNK = [
    "",
    "%00",
    "a%00b",
    "%ED%A0%80",
    "%FF%FE",
    "%C0%AF..%C0%AF",
    "%E2%80%AE",
    "%0D%0AX-Injected:%20yes",
    "%22%3E%3Cscript%3E",
    "%",
    "%zz",
    "x" * 5_000,
    "%F0%9F%92%A5" * 200,
    "9" * 400,
    "-" + "9" * 400,
    "1e400",
    "NaN",
    "-0",
    "0x10",
    "%D9%A1%D9%A2",
    "1-99999999999999999999999",
    "99999999999999999999-0",
    "18446744073709551615-18446744073709551615",
    "%2B",
    "-",
    "*",
    "[",
    "**",
    "%7B%7D",
    "0001-01-01T00:00:00%2B23:59",
    "9999-12-31T23:59:59.999999-23:59",
    "9999-12-31",
    "0001-01-01",
    "2025-02-30",
    "2025-01-01T25:00:00",
    "2016-12-31T23:59:60Z",
    "1e10",
    "true",
    "null",
    "[]",
]
BODIES = [
    b"",
    b"\xff",
    b"\xef\xbb\xbf{}",
    b"[" * 60_000,
    b'{"a":' * 10_000,
    b"9" * 5_000,
    b'{"reason": ' + b"9" * 5_000 + b"}",
    b"1e999999",
    b"NaN",
    b'{"reason": NaN}',
    b'{"reason": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"' + b"x" * 60_000 + b'": 1}',
    json.dumps({f"f{n}": n for n in range(4_000)}).encode(),
    b'{"reason": "a", "reason": "b"}',
    b"null",
    b"[]",
    b"0",
    b'""',
    b"{",
    b"{}" * 2,
    b"x" * (64 * 1024 + 1),
]
TEXTS = [
    "",
    "\0",
    "a\0b",
    "\u202e",
    "x" * 5_000,
    "\n\r",
    "'",
    "${7*7}",
    "*",
    "{",
    "}",
    "{}",
    "{x}y",
    " ",
    "\u2028",
    "💥",
]
VALUES = [*TEXTS, None, True, -1, 0, 10**30, 1e308, 0.5, [], {}, [[]], {"a": {}}, ["x"] * 3_000]


@pytest.fixture
def client(redis_url: str) -> Iterator[TestClient]:
    fill(redis_url)
    with TestClient(app_on(redis_url)) as client:
        yield client


def check(answer: Any, operation: tuple[str, str], asked: object) -> None:
    documented = DOCUMENTED[operation]["responses"]
    if answer.status_code == 404 and answer.json() == {"detail": "Not Found"}:
        return  # such a path has no route: it is another one, or none
    assert str(answer.status_code) in documented, (asked, answer.text[:500])
    assert answer.status_code < 500, (asked, answer.text[:500])
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == PROBLEM
        described = documented[str(answer.status_code)]["description"]
        assert set(answer.json()) <= set(document()["components"]["schemas"]["RapidsProblem"]["properties"])
        assert f"`{answer.json()['type'].removeprefix('urn:rapids:problem:')}`" in described
        assert len(answer.content) < 20_000
    assert not any("injected" in name.lower() for name in answer.headers)
    assert all(value.isascii() and value.isprintable() for value in answer.headers.values())


@pytest.mark.parametrize("operation", WITH_PARAMETERS, ids=" ".join)
def test_in_parameters(client: TestClient, operation: tuple[str, str]) -> None:
    method, path = operation
    content = b"{}" if operation in WITH_BODY else None
    for parameter in DOCUMENTED[operation]["parameters"]:
        name, others = parameter["name"], needed(operation, parameter["name"])
        is_first = FIRST_WITH[json.dumps(parameter, sort_keys=True)] == operation
        for junk in JUNK if is_first else JUNK[:: len(JUNK) // 4]:
            if parameter["in"] == "query":
                address = f"{filled(path)}?{others}&{name}={junk}"
            elif junk:
                address = f"{filled(path.replace(f'{{{name}}}', junk))}?{others}"
            else:
                continue
            answer = client.request(method, address, headers=JSON, content=content)
            check(answer, operation, address[:300])


def needed(operation: tuple[str, str], but: str) -> str:
    """The other parameters that the operation requires."""
    others = [other for other in DOCUMENTED[operation]["parameters"] if other["name"] != but and other["required"]]
    return "&".join(f"{other['name']}={quote(example(other))}" for other in others if other["in"] == "query")


def example(parameter: dict[str, Any]) -> str:
    return str(parameter["schema"]["examples"][0])


@pytest.mark.parametrize("operation", WITH_BODY, ids=" ".join)
def test_in_bodies(client: TestClient, operation: tuple[str, str]) -> None:
    method, path = operation
    for body in BODIES:
        answer = client.request(method, filled(path), headers=JSON, content=body)
        check(answer, operation, body[:100])
    schema = DOCUMENTED[operation]["requestBody"]["content"]["application/json"]["schema"]
    fitting = schema_named(schema["$ref"])["example"]
    for field in schema_named(schema["$ref"])["properties"]:
        for value in VALUES:
            answer = client.request(method, filled(path), headers=OPERATOR, json={**fitting, field: value})
            check(answer, operation, {field: str(value)[:100]})
    for headers in ({**OPERATOR, "Content-Type": "text/plain"}, {**OPERATOR, "Content-Type": "multipart/form-data"}):
        answer = client.request(method, filled(path), headers=headers, content=b"{}")
        assert answer.status_code == 415


def schema_named(reference: str) -> dict[str, Any]:
    return document()["components"]["schemas"][reference.rpartition("/")[2]]


@pytest.mark.parametrize("query", [b"q=\xff\xfe&limit=1", b"limit=1&\xff", b"=&=&;", b"limit=1&cursor=\xff", b"%&&&"])
@pytest.mark.parametrize("path", ["/rapids/api/dead-letters", "/rapids/api/groups"])
def test_a_query_of_unescaped_bytes(redis_url: str, path: str, query: bytes) -> None:
    """Some servers pass on bytes that the client did not escape."""
    fill(redis_url)
    app = app_on(redis_url)

    async def raw(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "query_string": query} if scope["type"] == "http" else scope, receive, send)

    with TestClient(raw) as client:
        check(client.get(path, headers=OPERATOR), ("GET", path), query)
