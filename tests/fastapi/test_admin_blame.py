"""Problems blame what failed: Redis only for an error of our own calls to it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import httpx
import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from redis.exceptions import ConnectionError as RedisConnectionError

from rapids_fastapi import AdminUser, rapids_admin
from rapids_fastapi.admin import access, auth
from tests.fastapi.helpers import BEARER, admin_app, async_client_of, client_for, rapids_with
from tests.support import eventually

PATH = "/rapids/api/streams"
OUTAGES = [ConnectionRefusedError("ldap"), TimeoutError("ldap"), RedisConnectionError("the sessions' own Redis")]


def kind(response: Any) -> str:
    return response.json()["type"].rpartition(":")[2]


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
class TestErrors:
    @pytest.mark.parametrize("plain", [True, False])
    def test_of_admin_auth(
        self, redis_url: str, error: Exception, plain: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        def ask(connection: Any) -> AdminUser:
            raise error

        async def ask_later(connection: Any) -> AdminUser:
            raise error

        with client_for(redis_url, admin_auth=ask if plain else ask_later) as client, caplog.at_level(logging.WARNING):
            response = client.get(PATH)
        assert (response.status_code, kind(response)) == (503, "auth-unavailable")
        assert response.headers["retry-after"]
        assert [record.message for record in caplog.records] == [f"admin_auth failed: {type(error).__name__}: {error}"]

    def test_of_a_dependency(self, redis_url: str, error: Exception) -> None:
        def meter() -> None:
            raise error

        app = FastAPI(lifespan=rapids_with(redis_url).lifespan)
        app.include_router(rapids_admin, dependencies=[Depends(meter)])
        with TestClient(app, headers=BEARER) as client:
            response = client.get(PATH)
        assert (response.status_code, kind(response)) == (500, "internal")


@pytest.mark.parametrize("plain", [True, False])
def test_an_identity_provider_that_does_not_answer(
    redis_url: str, plain: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "AUTH_TIMEOUT", 0.1)
    ended = threading.Event()

    def ask(connection: Any) -> None:
        ended.wait()

    async def ask_later(connection: Any) -> None:
        await asyncio.Event().wait()

    with client_for(redis_url, admin_auth=ask if plain else ask_later) as client:
        try:
            response = client.get(PATH)
        finally:
            ended.set()
    assert (response.status_code, kind(response)) == (503, "auth-unavailable")
    assert "0.1 s" in response.json()["detail"]


async def test_a_plain_admin_auth_takes_no_threads_of_the_application_and_few_of_its_own(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "AUTH_TIMEOUT", 0.05)
    ended, asked = threading.Event(), list[Any]()

    def ask(connection: Any) -> None:
        asked.append(connection)
        ended.wait()

    app = FastAPI(lifespan=rapids_with(redis_url, admin_auth=ask).lifespan)
    app.include_router(rapids_admin)

    @app.get("/own")
    def own() -> str:
        return "answered"

    async with async_client_of(app) as client:
        try:
            while len(asked) < auth.AUTH_THREADS:
                await client.get(PATH)
            everybody = await asyncio.gather(*(client.get(PATH) for _ in range(60)))
            assert (await client.get("/own")).json() == "answered"
            assert {one.status_code for one in everybody} == {503}
            assert len(asked) == auth.AUTH_THREADS, "those that were left behind count, too"
        finally:
            ended.set()
        assert await eventually(lambda: _answer(client)) == 401, "they are free again"


async def _answer(client: httpx.AsyncClient) -> int:
    """The status, unless it is that of an `admin_auth` that does not answer."""
    status = (await client.get(PATH)).status_code
    return 0 if status == 503 else status


async def test_a_body_that_does_not_arrive(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "BODY_TIMEOUT", 0.1)
    status, body = await posted(redis_url, ["part"])
    assert (status, b"urn:rapids:problem:too-slow" in body) == (408, True)


async def test_a_client_that_leaves_before_its_body_is_complete(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        status, body = await posted(redis_url, ["part", "gone"])
    assert (status, b"urn:rapids:problem:invalid" in body) == (422, True)
    assert caplog.messages == []


async def posted(redis_url: str, arriving: list[str]) -> tuple[int, bytes]:
    """The status and the body that answer a change whose body arrives in this way, and then stops."""
    app = admin_app(rapids_with(redis_url))
    path = "/rapids/api/dead-letters/reindex"
    headers = [(b"authorization", BEARER["Authorization"]), (b"content-type", b"application/json")]
    sent: list[Any] = []

    async def receive() -> Any:
        if not arriving:
            await asyncio.Event().wait()
        if arriving.pop(0) == "gone":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": b"{", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.router.lifespan_context(app) as state:
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "state": dict(state),
        }
        await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)
