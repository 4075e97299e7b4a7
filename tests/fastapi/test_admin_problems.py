"""Errors of the admin are problem documents (RFC 9457); an application's own errors stay as they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from fastapi import FastAPI, HTTPException
from fastapi.testclient import TestClient
from starlette.applications import Starlette

from rapids_fastapi import Rapids, rapids_admin
from rapids_fastapi.admin.router import health_routes
from tests.fastapi.helpers import BEARER, admin_app, client_for


class TestTheApplicationsOwnRoutes:
    @pytest.fixture
    def client(self, redis_url: str) -> Iterator[TestClient]:
        app = FastAPI(lifespan=Rapids(url=redis_url).lifespan)
        app.include_router(rapids_admin)

        @app.get("/own/{n}")
        async def own(n: int) -> None:
            raise HTTPException(418, {"own": "shape"})

        @app.get("/bug")
        async def bug() -> None:
            raise KeyError("bug")

        with TestClient(app, raise_server_exceptions=False) as client:
            yield client

    def test_their_errors_are_those_of_fastapi(self, client: TestClient) -> None:
        plain = FastAPI()

        @plain.get("/own/{n}")
        async def own(n: int) -> None:
            raise HTTPException(418, {"own": "shape"})

        for path in ("/own/1", "/own/x", "/nowhere"):
            ours, theirs = client.get(path), TestClient(plain).get(path)
            assert (ours.status_code, ours.json(), dict(ours.headers)) == (
                theirs.status_code,
                theirs.json(),
                dict(theirs.headers),
            )
        assert client.get("/bug").text == "Internal Server Error"

    def test_no_exception_handler_is_registered(self) -> None:
        app, plain = FastAPI(), FastAPI()
        app.include_router(rapids_admin)
        assert app.exception_handlers == plain.exception_handlers


class TestProblems:
    def test_their_shape(self, redis_url: str) -> None:
        with client_for(redis_url, headers={}) as client:
            for response in (
                client.get("/rapids/api/dead-letters"),
                client.get("/rapids/api/dead-letters/1-1", headers=BEARER),
                client.get("/rapids/api/dead-letters?limit=0", headers=BEARER),
                client.post("/rapids/api/dead-letters/1-1/replay", headers=BEARER, content=b""),
            ):
                assert response.headers["content-type"] == "application/problem+json"
                problem = response.json()
                assert re.fullmatch(r"urn:rapids:problem:[a-z-]+", problem["type"])
                assert problem["status"] == response.status_code
                assert problem["instance"] == response.request.url.path
                assert problem["title"]
                assert problem["detail"]

    def test_a_wrong_method_is_a_problem(self, redis_url: str) -> None:
        with client_for(redis_url, headers={}) as client:
            for path, allowed in (
                ("/rapids/api/dead-letters", "GET"),
                ("/rapids/api/dead-letters/1-1", "GET, DELETE"),
                ("/rapids/api/operations", "POST, GET"),
                ("/rapids/health/ready", "HEAD, GET"),
            ):
                response = client.put(path)
                assert response.status_code == 405
                assert response.headers["content-type"] == "application/problem+json"
                assert response.headers["allow"] == allowed
                assert response.headers["cache-control"] == "no-store"

    def test_a_wrong_method_does_not_make_the_applications_document(self, redis_url: str) -> None:
        app = FastAPI(lifespan=Rapids(url=redis_url).lifespan)
        app.include_router(rapids_admin, prefix="/ops")
        app.openapi = made  # type: ignore[method-assign]
        outer = FastAPI(lifespan=Rapids(url=redis_url).lifespan)
        outer.mount("/shop", app)
        for host, path in ((app, "/ops/rapids/api/operations"), (outer, "/shop/ops/rapids/api/operations")):
            with TestClient(host) as client:
                response = client.put(path)
            assert (response.status_code, response.headers["allow"]) == (405, "POST, GET")

    def test_errors_name_the_field_and_do_not_repeat_the_value(self, redis_url: str) -> None:
        with client_for(redis_url) as client:
            response = client.post("/rapids/api/dead-letters/1-1/replay", json={"hunter2": 1, "scope": "hunter2"})
        assert {fault["where"] for fault in response.json()["errors"]} == {"body.scope", "body.hunter2"}
        assert response.text.count("hunter2") == 1  # the name of the field, which says where the fault is

    def test_their_instance_has_the_prefix_that_a_proxy_removed(self, redis_url: str) -> None:
        app = admin_app(Rapids(url=redis_url))
        with TestClient(app, root_path="/proxy") as client:
            for method, path in (("GET", "/rapids/api/audit"), ("PUT", "/rapids/api/audit")):
                assert client.request(method, path).json()["instance"] == f"/proxy{path}"

    def test_a_mounted_admin_names_its_whole_path(self, redis_url: str) -> None:
        app = FastAPI(lifespan=Rapids(url=redis_url).lifespan)
        inner = FastAPI()
        inner.include_router(rapids_admin)
        app.mount("/ops", inner)
        with TestClient(app) as client:
            response = client.get("/ops/rapids/api/capabilities")
            assert response.json()["instance"] == "/ops/rapids/api/capabilities"
            link = client.get("/ops/rapids/api/dead-letters?limit=1", headers=BEARER)
            assert link.status_code == 200


def made() -> dict[str, object]:
    raise AssertionError("the document was made")


def test_a_mounted_admin_refuses_a_wrong_method_and_an_unknown_parameter(redis_url: str) -> None:
    app = FastAPI(lifespan=Rapids(url=redis_url).lifespan)
    app.mount("/raw", rapids_admin)
    with TestClient(app, headers=BEARER) as client:
        wrong = client.post("/raw/rapids/health/live")
        unknown = client.get("/raw/rapids/api/dead-letters", params={"limit": 1, "handlr": "a"})
    assert (wrong.status_code, "GET" in wrong.headers["allow"] or "HEAD" in wrong.headers["allow"]) == (405, True)
    assert wrong.headers["content-type"] == "application/problem+json"
    assert unknown.status_code == 422
    assert [fault["where"] for fault in unknown.json()["errors"]] == ["query.handlr"]
    assert "cursor, " in unknown.json()["errors"][0]["message"]


def test_a_wrong_method_is_a_problem_in_plain_starlette_too() -> None:
    with TestClient(Starlette(routes=list(health_routes.routes))) as client:
        response = client.post("/health/live")
    assert (response.status_code, response.headers["allow"]) == (405, "HEAD, GET")
    assert response.headers["content-type"] == "application/problem+json"
