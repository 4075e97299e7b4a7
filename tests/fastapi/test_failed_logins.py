"""Wrong credentials slow down the next requests from their address, right ones among them, and no others."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from starlette.requests import HTTPConnection

from rapids_fastapi import AdminUser
from rapids_fastapi.admin import failed_logins
from rapids_fastapi.admin.failed_logins import (
    FREE,
    MAX_ADDRESSES,
    MAX_WAITING,
    MAX_WAITING_IN_ALL,
    SECONDS,
    FailedLogins,
)
from rapids_fastapi.admin.problems import Problem
from tests.fastapi.helpers import BEARER, admin_app, basic, rapids_with
from tests.support import eventually

PATH = "/rapids/api/capabilities"


class Time:
    """A clock, and sleeps that end when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []
        self.over = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.over.wait()


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    monkeypatch.setattr(failed_logins, "DELAY", 2.0)  # as it is outside of tests
    return Time()


@pytest.fixture
def logins(time: Time) -> FailedLogins:
    return FailedLogins(clock=lambda: time.now, sleep=time.sleep)


def connection(host: str | None) -> HTTPConnection:
    return HTTPConnection({"type": "http", "path": PATH, "client": None if host is None else (host, 1), "headers": []})


def fail(logins: FailedLogins, host: str | None, times: int = FREE) -> None:
    for _ in range(times):
        logins.add(connection(host))


async def waits(logins: FailedLogins, time: Time, host: str | None) -> bool:
    before = len(time.slept)
    time.over.set()
    await logins.wait(connection(host))
    time.over.clear()
    return len(time.slept) > before


async def test_an_address_waits_after_ten_wrong_credentials_and_until_a_minute_without(
    logins: FailedLogins, time: Time
) -> None:
    fail(logins, "10.0.0.1", FREE - 1)
    assert not await waits(logins, time, "10.0.0.1")
    fail(logins, "10.0.0.1", 1)
    assert await waits(logins, time, "10.0.0.1")
    assert time.slept == [2.0]
    assert not await waits(logins, time, "10.0.0.2")
    time.now += SECONDS - 1
    assert await waits(logins, time, "10.0.0.1")
    time.now += 1
    assert not await waits(logins, time, "10.0.0.1")
    fail(logins, "10.0.0.1", 1)
    assert not await waits(logins, time, "10.0.0.1"), "it has as many free tries as at first"


async def test_one_client_may_have_a_network_of_ipv6(logins: FailedLogins, time: Time) -> None:
    for n in range(FREE):
        fail(logins, f"2001:db8:0:1::{n:x}", 1)
    assert await waits(logins, time, "2001:db8:0:1:ffff::1")
    assert not await waits(logins, time, "2001:db8:0:2::1")
    fail(logins, "::ffff:10.0.0.1")
    assert await waits(logins, time, "10.0.0.1")


async def test_clients_without_an_address_are_one(logins: FailedLogins, time: Time) -> None:
    fail(logins, None)
    assert await waits(logins, time, None)
    fail(logins, "testclient")
    assert await waits(logins, time, "testclient")


async def test_few_requests_wait_at_a_time_and_others_are_refused(logins: FailedLogins, time: Time) -> None:
    async def waiting(host: str, count: int) -> list[asyncio.Task[None]]:
        fail(logins, host)
        tasks = [asyncio.create_task(logins.wait(connection(host))) for _ in range(count)]
        await asyncio.sleep(0)
        return tasks

    one = await waiting("10.0.0.1", MAX_WAITING)
    with pytest.raises(Problem) as refused:
        await logins.wait(connection("10.0.0.1"))
    assert (refused.value.kind.name, refused.value.all_headers) == ("auth-unavailable", [("Retry-After", "2")])
    others = [await waiting(f"10.0.1.{n}", MAX_WAITING) for n in range(MAX_WAITING_IN_ALL // MAX_WAITING - 1)]
    fail(logins, "10.0.0.2")
    with pytest.raises(Problem):
        await logins.wait(connection("10.0.0.2"))
    one[0].cancel()  # a client that leaves gives its place back
    await asyncio.gather(one[0], return_exceptions=True)
    assert await waits(logins, time, "10.0.0.2")
    time.over.set()
    await asyncio.gather(*one[1:], *(task for tasks in others for task in tasks))
    assert await waits(logins, time, "10.0.0.1")


async def test_a_bounded_number_of_addresses_is_remembered(logins: FailedLogins, time: Time) -> None:
    fail(logins, "10.0.0.1")
    fail(logins, "10.0.0.2")
    fail(logins, "10.0.0.1", 1)
    for n in range(MAX_ADDRESSES - 1):
        fail(logins, f"11.0.{n // 256}.{n % 256}", 1)
    assert await waits(logins, time, "10.0.0.1")
    assert not await waits(logins, time, "10.0.0.2"), "its wrong credentials are the oldest"


async def test_right_credentials_wait_as_wrong_ones_do(redis_url: str, logins: FailedLogins, time: Time) -> None:
    """Otherwise, a quick answer would say that a guess is right, and nobody waits for the others."""
    app = admin_app(rapids_with(redis_url))
    async with app.router.lifespan_context(app) as state:
        parts = {"rapids": replace(state["rapids"], failed_logins=logins)}

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": parts}, receive, send)

        def client(host: str) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                transport=httpx.ASGITransport(with_state, client=(host, 1)), base_url="http://here"
            )

        async with client("10.0.0.1") as attacker, client("10.0.0.2") as other:
            for n in range(FREE):
                assert (await attacker.get(PATH, headers=basic(f"guess-{n}"))).status_code == 401
            assert time.slept == []
            given = [BEARER, basic("wrong"), {}]
            asked = [asyncio.create_task(attacker.get(PATH, headers=headers)) for headers in given]
            await eventually(lambda: len(time.slept) == len(given))
            assert not any(task.done() for task in asked)
            assert (await other.get(PATH, headers=BEARER)).status_code == 200
            time.over.set()
            assert [(await task).status_code for task in asked] == [200, 401, 401]


@pytest.mark.parametrize(("status", "waits"), [(401, True), (403, False)])
async def test_admin_auth_may_refuse_by_raising(
    redis_url: str, logins: FailedLogins, time: Time, status: int, waits: bool
) -> None:
    def refuse(_: HTTPConnection) -> None:
        raise HTTPException(status, "no")

    app = admin_app(rapids_with(redis_url, admin_auth=refuse))
    time.over.set()
    async with app.router.lifespan_context(app) as state:
        parts = {"rapids": replace(state["rapids"], failed_logins=logins)}

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": parts}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://here") as client:
            for _ in range(FREE + 1):
                assert (await client.get(PATH)).status_code == status
            assert time.slept == [], "without credentials, nothing is tried"
            for _ in range(FREE + 1):
                assert (await client.get(PATH, headers=BEARER)).status_code == status
            assert bool(time.slept) is waits


async def test_two_headers_with_credentials_are_tries_as_well(redis_url: str, logins: FailedLogins, time: Time) -> None:
    """`admin_auth` may look at the first one only: so anybody could guess without a wait and without a line."""

    def who(connection: HTTPConnection) -> AdminUser | None:
        return AdminUser("ann", ["read"]) if connection.headers["authorization"] == "Bearer right" else None

    app = admin_app(rapids_with(redis_url, admin_auth=who))
    time.over.set()
    async with app.router.lifespan_context(app) as state:
        parts = {"rapids": replace(state["rapids"], failed_logins=logins)}

        async def with_state(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": parts}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(with_state), base_url="http://here") as client:
            for n in range(FREE + 1):
                headers = [("Authorization", f"Bearer guess-{n}"), ("Authorization", "x")]
                assert (await client.get(PATH, headers=headers)).status_code == 401
            assert time.slept
