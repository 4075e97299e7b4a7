"""Access to the admin: for every route, who is allowed and who is refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection

from rapids_fastapi import AdminUser, Rapids, TokenAuth, allow_anyone, rapids_admin
from rapids_fastapi.admin import failed_logins
from rapids_fastapi.admin.access import AdminRoute
from tests.fastapi.admin_paths import filled, guarded
from tests.fastapi.helpers import BEARER, DLQ, TOKEN, admin_app, basic, client_for, put_letter, rapids_with

JSON = {"Content-Type": "application/json"}


def operations() -> list[tuple[str, str]]:
    """All routes of the admin that need a permission, from the OpenAPI document, which has every route."""
    return [(method, filled(path)) for method, path in guarded()]


@pytest.fixture
def client(redis_url: str) -> Iterator[TestClient]:
    with client_for(redis_url, headers={}) as client:
        yield client


PERMISSIONS = {
    ("GET", "/rapids/api/dead-letters"): "read",
    ("GET", "/rapids/api/dead-letters/1-1"): "read",
    ("POST", "/rapids/api/dead-letters/1-1/replay"): "replay",
    ("DELETE", "/rapids/api/dead-letters/1-1"): "discard",
    ("POST", "/rapids/api/dead-letters/1-1/restore"): "discard",
    ("POST", "/rapids/api/dead-letters/1-1/check"): "edit",
    ("GET", "/rapids/api/archive"): "read",
    ("GET", "/rapids/api/dead-letters/causes"): "read",
    ("GET", "/rapids/api/dead-letters/stats"): "read",
    ("GET", "/rapids/api/dead-letters/export"): "read",
    ("POST", "/rapids/api/dead-letters/reindex"): "edit",
    ("POST", "/rapids/api/operations"): ["replay", "discard"],
    ("GET", "/rapids/api/operations"): "read",
    ("GET", "/rapids/api/operations/1-1"): "read",
    ("GET", "/rapids/api/operations/1-1/events"): "read",
    ("POST", "/rapids/api/operations/1-1/pause"): ["replay", "discard"],
    ("POST", "/rapids/api/operations/1-1/resume"): ["replay", "discard"],
    ("POST", "/rapids/api/operations/1-1/cancel"): ["replay", "discard"],
    ("GET", "/rapids/api/overview"): "read",
    ("GET", "/rapids/api/series"): "read",
    ("GET", "/rapids/api/live"): "read",
    ("GET", "/rapids/api/entries"): "read",
    ("GET", "/rapids/api/entries/1-1"): "read",
    ("GET", "/rapids/api/audit"): "read",
    ("GET", "/rapids/api/events"): "read",
    ("GET", "/rapids/api/catalog"): "read",
    ("GET", "/rapids/api/streams"): "read",
    ("GET", "/rapids/api/groups"): "read",
    ("GET", "/rapids/api/groups/pending"): "read",
    ("POST", "/rapids/api/groups/pause"): "edit",
    ("POST", "/rapids/api/groups/resume"): "edit",
    ("GET", "/rapids/api/capabilities"): ["read", "replay", "edit", "discard"],
    ("POST", "/rapids/api/session"): ["read", "replay", "edit", "discard"],
    ("DELETE", "/rapids/api/session"): ["read", "replay", "edit", "discard"],
}


def test_each_permission_opens_its_operations_and_no_others(redis_url: str) -> None:
    assert set(operations()) == set(PERMISSIONS)
    for permission in ("read", "replay", "edit", "discard"):
        auth = lambda _, permission=permission: AdminUser("ann", [permission])  # noqa: E731
        with client_for(redis_url, headers={}, admin_auth=auth) as client:
            opened = {
                operation for operation in operations() if client.request(*operation, headers=JSON).status_code != 403
            }
        assert opened == {operation for operation, needed in PERMISSIONS.items() if permission in needed}


class TestCallables:
    def ask(self, url: str, auth: Any, **headers: str) -> Any:
        with client_for(url, headers={}, admin_auth=auth) as client:
            return client.get("/rapids/api/capabilities", headers=headers)

    def test_plain_async_and_object(self, redis_url: str) -> None:
        def plain(connection: HTTPConnection) -> AdminUser | None:
            return AdminUser(connection.headers.get("x-user", "?"), ["read"])

        async def asynchronous(connection: HTTPConnection) -> AdminUser | None:
            return plain(connection)

        class Object:
            async def __call__(self, connection: HTTPConnection) -> AdminUser | None:
                return plain(connection)

        for auth in (plain, asynchronous, Object(), lambda connection: asynchronous(connection)):
            response = self.ask(redis_url, auth, **{"X-User": "ann"})
            assert response.json()["user"] == {"name": "ann", "permissions": ["read"]}

    def test_none_is_401_without_a_password_prompt(self, redis_url: str) -> None:
        response = self.ask(redis_url, lambda _: None)
        assert response.status_code == 401
        assert response.headers.get_list("www-authenticate") == ['Bearer realm="rapids"']

    def test_it_wins_over_the_environments_token(self, redis_url: str) -> None:
        assert self.ask(redis_url, lambda _: None, Authorization="Bearer " + "x").status_code == 401
        with client_for(redis_url, headers={}, admin_auth=lambda _: None) as client:
            assert client.get("/rapids/api/capabilities", headers=BEARER).status_code == 401

    @pytest.mark.parametrize("answer", [True, "admin", {"name": "x"}, object()])
    def test_an_answer_that_is_no_user_is_refused(
        self, redis_url: str, answer: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        response = self.ask(redis_url, lambda _: answer)
        assert response.status_code == 500
        assert response.headers["content-type"] == "application/problem+json"
        assert "admin_auth must return an AdminUser or None" in caplog.text

    def test_its_http_errors_are_the_answer(self, redis_url: str) -> None:
        def auth(connection: HTTPConnection) -> AdminUser | None:
            raise HTTPException(429, "slowly", {"Retry-After": "7"})

        response = self.ask(redis_url, auth)
        assert (response.status_code, response.headers["retry-after"]) == (429, "7")
        assert response.json()["detail"] == "slowly"
        assert response.json()["type"] == "about:blank"

    def test_its_other_errors_are_logged_and_not_shown(self, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
        def auth(connection: HTTPConnection) -> AdminUser | None:
            raise KeyError("hunter2")

        response = self.ask(redis_url, auth)
        assert response.status_code == 500
        assert "hunter2" not in response.text
        assert "hunter2" in caplog.text

    def test_allow_anyone_gives_all_permissions(self, redis_url: str) -> None:
        response = self.ask(redis_url, allow_anyone)
        assert response.json()["user"]["permissions"] == ["discard", "edit", "metrics", "read", "replay"]

    def test_a_token_given_in_code(self, redis_url: str) -> None:
        assert self.ask(redis_url, TokenAuth("other"), Authorization="Bearer other").status_code == 200

    def test_dependencies_of_the_application_are_kept(self, redis_url: str) -> None:
        async def no(connection: HTTPConnection) -> None:
            raise HTTPException(418)

        app = FastAPI(lifespan=rapids_with(redis_url).lifespan)
        app.include_router(rapids_admin, dependencies=[Depends(no)])
        with TestClient(app) as client:
            response = client.get("/rapids/api/capabilities", headers=BEARER)
        assert response.status_code == 418
        assert response.headers["content-type"] == "application/problem+json"


HOST = {"Host": "admin.example:8080"}
SAME = "http://admin.example:8080"


class TestCrossOrigin:
    @pytest.mark.parametrize(
        ("headers", "passes"),
        [
            ({}, True),
            ({"Sec-Fetch-Site": "same-origin"}, True),
            ({"Sec-Fetch-Site": "none"}, True),
            ({"Sec-Fetch-Site": "same-site"}, False),
            ({"Sec-Fetch-Site": "cross-site"}, False),
            ({"Sec-Fetch-Site": "garbage"}, False),
            ({"Sec-Fetch-Site": "cross-site", "Origin": SAME}, False),
            ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, True),
            ({"Origin": SAME}, True),
            ({"Origin": "https://ADMIN.example:8080"}, True),
            ({"Origin": "http://admin.example"}, False),
            ({"Origin": "http://admin.example:8081"}, False),
            ({"Origin": "http://evil.example"}, False),
            ({"Origin": "http://admin.example.evil:8080"}, False),
            ({"Origin": "http://evil@admin.example:8080.evil"}, False),
            ({"Origin": "null"}, False),
            ({"Origin": ""}, False),
            ({"Origin": "http://admin.example:x"}, False),
        ],
    )
    def test_basic_and_cookies(self, redis_url: str, headers: dict[str, str], passes: bool) -> None:
        put = put_letter(redis_url)
        with client_for(redis_url, headers={}) as client:
            response = client.delete(f"/rapids/api/dead-letters/{put}", headers={**basic(TOKEN), **HOST, **headers})
        assert response.status_code == (200 if passes else 403)
        if not passes:
            assert response.json()["type"] == "urn:rapids:problem:cross-origin"

    def test_behind_a_proxy_that_replaces_the_host_the_answer_says_so(self, redis_url: str) -> None:
        with client_for(redis_url, headers={}) as client:
            headers = {**basic(TOKEN), "Host": "app:8000", "Origin": "http://admin.example"}
            by_host = client.delete("/rapids/api/dead-letters/1-0", headers=headers)
            by_browser = client.delete(
                "/rapids/api/dead-letters/1-0", headers={**headers, "Sec-Fetch-Site": "cross-site"}
            )
            long = client.delete("/rapids/api/dead-letters/1-0", headers={**headers, "Origin": "http://" + "x" * 9_000})

        for part in ("'http://admin.example'", "'app:8000'", "proxy_set_header Host $http_host;"):
            assert part in by_host.json()["detail"]
        assert "proxy" not in by_browser.json()["detail"]
        assert len(long.json()["detail"]) < 1_000

    @pytest.mark.parametrize(
        ("host", "origin"),
        [
            ("admin.example", "https://admin.example"),
            ("admin.example:443", "https://admin.example"),
            ("admin.example", "http://admin.example:80"),
            ("[::1]:8000", "http://[::1]:8000"),
        ],
    )
    def test_default_ports_are_the_same(self, redis_url: str, host: str, origin: str) -> None:
        put = put_letter(redis_url)
        with client_for(redis_url, headers={}) as client:
            headers = {**basic(TOKEN), "Host": host, "Origin": origin}
            assert client.delete(f"/rapids/api/dead-letters/{put}", headers=headers).status_code == 200

    def test_bearer_needs_no_check(self, redis_url: str) -> None:
        put = put_letter(redis_url)
        with client_for(redis_url, headers={}) as client:
            headers = {**BEARER, **HOST, "Sec-Fetch-Site": "cross-site", "Cookie": "a=b"}
            assert client.delete(f"/rapids/api/dead-letters/{put}", headers=headers).status_code == 200

    def test_reading_needs_no_check(self, redis_url: str) -> None:
        with client_for(redis_url, headers={}) as client:
            headers = {**basic(TOKEN), "Sec-Fetch-Site": "cross-site"}
            assert client.get("/rapids/api/dead-letters", headers=headers).status_code == 200

    def test_with_a_callable_a_bearer_token_with_cookies_needs_the_check(self, redis_url: str) -> None:
        put = put_letter(redis_url)
        foreign = {"Authorization": "Bearer made-up", "Sec-Fetch-Site": "cross-site"}
        with client_for(redis_url, headers={}, admin_auth=allow_anyone) as client:
            path = f"/rapids/api/dead-letters/{put}"
            assert client.delete(path, headers={**foreign, "Cookie": "session=1"}).status_code == 403
            assert client.delete(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
            assert client.delete(path, headers=foreign).status_code == 403  # nobody checks it, so it proves nothing
        own = AdminUser("ann", ["discard"])
        with client_for(redis_url, headers={}, admin_auth=lambda _: own) as client:
            assert client.delete(path, headers={**foreign, "Cookie": "session=1"}).status_code == 403
            assert client.delete(path, headers=foreign).status_code == 200


class TestBodies:
    @pytest.mark.parametrize(
        "content_type", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", ""]
    )
    @pytest.mark.parametrize("body", [b"", b"{}"])
    def test_only_json_is_accepted(self, redis_url: str, content_type: str | None, body: bytes) -> None:
        put = put_letter(redis_url)
        headers = {**BEARER} if content_type is None else {**BEARER, "Content-Type": content_type}
        with client_for(redis_url, headers={}) as client:
            response = client.post(f"/rapids/api/dead-letters/{put}/replay", headers=headers, content=body)
        assert response.status_code == 415
        assert response.headers["accept"] == "application/json"

    def test_delete_may_have_no_body_and_then_no_type(self, redis_url: str) -> None:
        first, second = put_letter(redis_url), put_letter(redis_url)
        with client_for(redis_url) as client:
            assert client.delete(f"/rapids/api/dead-letters/{first}").status_code == 200
            text = {"content": b"x", "headers": {"Content-Type": "text/plain"}}
            assert client.request("DELETE", f"/rapids/api/dead-letters/{second}", **text).status_code == 415  # type: ignore[arg-type]
            response = client.request("DELETE", f"/rapids/api/dead-letters/{second}", json={"reason": "why"})
        assert response.json()["history"][0]["reason"] == "why"

    @pytest.mark.parametrize("declared", [True, False])
    def test_a_large_body_is_refused(self, client: TestClient, declared: bool) -> None:
        body = b'{"reason": "' + b"x" * 70_000 + b'"}'
        response = client.post(
            "/rapids/api/dead-letters/1-1/replay",
            headers={**BEARER, **JSON},
            content=body if declared else iter([body[:40_000], body[40_000:]]),
        )
        assert response.status_code == 413
        assert response.json()["type"] == "urn:rapids:problem:too-large"

    @pytest.mark.parametrize(
        "body",
        [b"{", b"[]", b'"x"', b"\xff", b"[" * 60_000, b'{"scope": "all"}', b'{"reason": 7}', b'{"data": [1]}'],
    )
    def test_an_invalid_body_is_422(self, client: TestClient, body: bytes) -> None:
        response = client.post("/rapids/api/dead-letters/1-1/replay", headers={**BEARER, **JSON}, content=body)
        assert response.status_code in (400, 422)
        assert response.headers["content-type"] == "application/problem+json"

    def test_the_body_of_an_unknown_user_is_not_read(self, client: TestClient) -> None:
        response = client.post("/rapids/api/dead-letters/1-1/replay", content=b"x" * 100_000)
        assert response.status_code == 401


def test_the_users_name_is_in_the_history(redis_url: str) -> None:
    first, second = put_letter(redis_url), put_letter(redis_url)
    with client_for(redis_url, headers={}) as client:
        by_name = client.delete(f"/rapids/api/dead-letters/{first}", headers=basic(TOKEN, "ann\n\x00:"))
        by_token = client.delete(f"/rapids/api/dead-letters/{second}", headers=BEARER)
    assert by_name.status_code == 401  # the name ends at the first colon, so this was another password
    assert by_token.json()["history"][0]["actor"] == "admin"
    with client_for(redis_url, headers={}) as client:
        by_name = client.delete(f"/rapids/api/dead-letters/{first}", headers=basic(TOKEN, "an\nn\x00é"))
    assert by_name.json()["history"][0]["actor"] == "anné"


def test_tokens_are_compared_as_bytes() -> None:
    def given(value: bytes) -> AdminUser | None:
        return TokenAuth(TOKEN)(HTTPConnection({"type": "http", "headers": [(b"authorization", value)]}))

    assert given(b"Bearer " + TOKEN.encode()) is not None
    assert given(b"Bearer " + TOKEN.encode("latin-1")) is None
    assert given(b"Bearer \xff\xfe\x00") is None


def test_the_token_is_never_logged(redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), client_for(redis_url, headers={}) as client:
        client.get("/rapids/api/capabilities", headers=BEARER)
        client.get("/rapids/api/capabilities", headers={"Authorization": "Bearer wrong-one"})
    ours = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("rapids"))
    assert TOKEN not in ours
    assert "wrong-one" not in ours


def test_wrong_credentials_are_logged_and_summed_up(
    redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/rapids/api/capabilities"
    with client_for(redis_url, headers={}) as client:
        client.get(path)  # a browser's first request has no credentials
        assert "wrong credentials" not in caplog.text
        for _ in range(15):
            assert client.get(path, headers=basic("wrong-one")).status_code == 401
        assert caplog.text.count(f"wrong credentials from testclient for {path}") == 10
        monkeypatch.setattr(failed_logins, "SECONDS", 0.0)
        client.get(path, headers={"Authorization": "Bearer wrong-one"})
    assert "wrong credentials 5 more times" in caplog.text
    assert "wrong-one" not in caplog.text


def test_without_routers_the_queue_is_the_default_one(redis_url: str) -> None:
    with client_for(redis_url) as client:
        queues = client.get("/rapids/api/capabilities").json()["dead_letter_queues"]
    assert queues == [{"name": DLQ, "groups": []}]


def test_a_route_without_a_permission_refuses_everybody(redis_url: str) -> None:
    router = APIRouter(route_class=AdminRoute)

    @router.get("/forgotten")
    async def forgotten() -> None:
        raise AssertionError("never called")

    app = FastAPI(lifespan=Rapids(url=redis_url).lifespan)
    app.include_router(router)
    with TestClient(app) as client:
        assert client.get("/forgotten", headers=BEARER).status_code == 500


def test_with_trusted_hosts_no_other_name_reaches_an_admin_that_is_open_to_anyone(redis_url: str) -> None:
    app = admin_app(rapids_with(redis_url, admin_auth=allow_anyone))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["localhost", "127.0.0.1"])
    with TestClient(app, base_url="http://localhost:8000") as client:
        answers = {
            host: client.get("/rapids/api/capabilities", headers={"Host": host}).status_code
            for host in ("localhost:8000", "127.0.0.1", "rebound.example:8000")
        }
    assert answers == {"localhost:8000": 200, "127.0.0.1": 200, "rebound.example:8000": 400}


@pytest.mark.parametrize("permissions", [[], ["metrics"], ["discard"], ["read", "replay"]])
def test_every_user_can_learn_their_permissions(redis_url: str, permissions: list[Any]) -> None:
    with client_for(redis_url, headers={}, admin_auth=lambda _: AdminUser("ann", permissions)) as client:
        found = client.get("/rapids/api/capabilities").json()
    assert found["user"] == {"name": "ann", "permissions": permissions}
    assert bool(found["streams"]) is bool(found["dead_letter_queues"])
    assert bool(found["streams"]) is (permissions not in ([], ["metrics"])), "who reads only metrics gets no names"
