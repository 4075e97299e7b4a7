"""All routes of the admin: who is refused, and what every answer has."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response

from rapids_fastapi import AdminUser, Permission
from tests.fastapi.admin_paths import HEALTH, METHODS, documented, everything, filled, guarded, routed
from tests.fastapi.helpers import BEARER, STREAM, TOKEN, basic, client_for
from tests.support import idle_router

JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"


DOCUMENTED = documented()
GUARDED = guarded()


def served(url: str, **options: Any) -> TestClient:
    return client_for(url, headers={}, routers=[idle_router(stream=STREAM)], **options)


@pytest.fixture
def client(redis_url: str) -> Iterator[TestClient]:
    with served(redis_url) as client:
        yield client


def walk(client: TestClient, headers: Any, is_well: Callable[[Response], bool]) -> None:
    """Request every guarded route, and expect the same of each answer."""
    answers = {operation: ask(client, operation, headers) for operation in GUARDED}
    assert {key: (answer.status_code, answer.text) for key, answer in answers.items() if not is_well(answer)} == {}


def ask(client: TestClient, operation: tuple[str, str], headers: Any) -> Any:
    method, path = operation
    return client.request(method, filled(path), headers=headers)


def test_the_documented_routes_are_all_routes() -> None:
    heads = {("HEAD", f"{HEALTH}live"), ("HEAD", f"{HEALTH}ready")}  # OpenAPI need not name them
    with_tests_of_their_own = {("GET", "/rapids/metrics"), ("GET", "/rapids/asyncapi.json")}
    dashboard = {
        (method, path)
        for method in ("GET", "HEAD")
        for path in ("/rapids", "/rapids/", "/rapids/assets/{version}/{name:path}")
    }
    assert routed(everything()) == set(DOCUMENTED) | heads | with_tests_of_their_own | dashboard
    assert len(GUARDED) >= 11
    assert {path for _, path in DOCUMENTED if path.startswith(HEALTH)} == {f"{HEALTH}live", f"{HEALTH}ready"}


@pytest.mark.parametrize("configured", [None, "", "   "])
def test_without_configuration_it_is_closed_and_says_how_to_open_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, configured: str | None
) -> None:
    if configured is None:
        monkeypatch.delenv("RAPIDS_ADMIN_TOKEN")
    else:
        monkeypatch.setenv("RAPIDS_ADMIN_TOKEN", configured)

    def is_closed(answer: Response) -> bool:
        problem = answer.json()
        names_both_ways = "RAPIDS_ADMIN_TOKEN" in problem["detail"] and "admin_auth" in problem["detail"]
        return answer.status_code == 403 and problem["type"] == "urn:rapids:problem:admin-closed" and names_both_ways

    with served(redis_url) as client:
        for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer x"}, basic("")):
            walk(client, headers, is_closed)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": b"Bearer " + TOKEN.encode() + b"x"},
        {"Authorization": TOKEN.encode()},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + base64.b64encode(b"no colon").decode()},
        basic("wrong"),
        basic("", name=TOKEN),
        {"Authorization": b"Digest " + TOKEN.encode()},
        [(b"authorization", b"Bearer " + TOKEN.encode()), (b"authorization", b"Bearer x")],
    ],
)
def test_401_without_the_token(client: TestClient, headers: Any) -> None:
    challenges = ['Bearer realm="rapids"', 'Basic realm="rapids", charset="UTF-8"']

    def is_refused(answer: Response) -> bool:
        is_asked = answer.headers.get_list("www-authenticate") == challenges
        return is_asked and answer.status_code == 401 and answer.json()["type"] == "urn:rapids:problem:unauthenticated"

    walk(client, headers, is_refused)


@pytest.mark.parametrize("headers", [BEARER, basic(TOKEN), {"Authorization": b"bearer  " + TOKEN.encode()}])
def test_accepted_with_the_token(client: TestClient, headers: Any) -> None:
    walk(client, {**headers, **JSON}, lambda answer: answer.status_code in (200, 202, 204, 404, 409, 422))


@pytest.mark.parametrize("missing", [["read"], ["replay"], ["edit"], ["discard"], ["replay", "discard"]])
def test_no_other_permission_is_enough(redis_url: str, missing: list[Permission]) -> None:
    others = set(get_args(Permission)) - set(missing)
    answers = {}
    with served(redis_url, admin_auth=lambda _: AdminUser("ann", others)) as client:
        for operation, described in GUARDED.items():
            if described["x-rapids-permission"] in (missing, *missing):
                answers[operation] = ask(client, operation, JSON)
    assert answers
    for operation, answer in answers.items():
        problem = answer.json()
        needed = GUARDED[operation]["x-rapids-permission"]
        assert (answer.status_code, problem["type"]) == (403, "urn:rapids:problem:forbidden")
        assert problem["permission"] == (needed if isinstance(needed, str) else " or ".join(needed))
        assert all(permission in problem["detail"] for permission in missing if permission in needed)


def test_a_repeated_parameter_is_refused(client: TestClient) -> None:
    for method, path in GUARDED:
        answer = client.request(method, f"{filled(path)}?limit=1&limit=2", headers={**BEARER, **JSON})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:rapids:problem:invalid"), path


def test_without_the_lifespan_it_is_503_and_says_why() -> None:
    walk(
        TestClient(everything()),
        BEARER,
        lambda answer: answer.status_code == 503 and "lifespan=rapids.lifespan" in answer.json()["detail"],
    )


def stays_where_it_is(answer: Response) -> bool:
    return (
        answer.headers["cache-control"] == "no-store"
        and answer.headers["x-content-type-options"] == "nosniff"
        and answer.headers["content-security-policy"] == "frame-ancestors 'none'"
    )


def test_every_answer_stays_out_of_caches_and_frames(redis_url: str, client: TestClient) -> None:
    for headers in ({}, BEARER, {**BEARER, **JSON}):
        walk(client, headers, stays_where_it_is)
    for method, path in DOCUMENTED:
        assert stays_where_it_is(client.request(method, filled(path)))
    with served(redis_url, admin_auth=lambda _: 1 / 0) as broken:
        walk(broken, JSON, lambda answer: answer.status_code == 500 and stays_where_it_is(answer))
    walk(TestClient(everything()), {}, stays_where_it_is)


def test_every_wrong_method_is_a_problem_that_says_what_is_allowed(client: TestClient) -> None:
    asked = 0
    for path in {path for _, path in DOCUMENTED}:
        allowed = {method for method, other in DOCUMENTED if other == path}
        allowed |= {"HEAD"} if path.startswith(HEALTH) else set()
        for method in METHODS - allowed:
            answer = client.request(method, filled(path), headers={**BEARER, **JSON})
            if answer.status_code == 404 and "letter-not-found" in answer.json()["type"]:
                continue  # the path is that of a letter, too, with a name for its id
            asked += 1
            assert answer.status_code == 405, (method, path)
            assert answer.headers["content-type"] == PROBLEM
            assert answer.json()["status"] == 405
            assert set(answer.headers["allow"].split(", ")) == allowed
            assert stays_where_it_is(answer)
    assert asked > 40
