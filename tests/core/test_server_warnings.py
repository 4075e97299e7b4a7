"""Warnings at the start: one line for each danger, for each server, and nothing fails for them."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from rapids import EventEmitter, EventRouter
from rapids._core import server_warnings
from rapids._core.server_warnings import ServerWarnings, check_server, dangers, timeout_dangers
from rapids._storage import server_info as server_module
from rapids._storage.client.connections import SharedPool
from rapids._storage.server_info import ServerFacts, look_at_server, socket_timeout_of
from rapids.embedded import embedded_server
from rapids.exceptions import RapidsError
from rapids_fastapi import Rapids
from tests.redis.own_server import OwnServer, own_server
from tests.servers.builds import Build
from tests.support import idle_router
from tests.worker.helpers import make_router, running

EVICTS = ("--maxmemory-policy", "allkeys-lru")
GOOD = ServerFacts("run", (7, 2, 4), "noeviction", 10, 0, True, 9_000.0, 0.0)


def kinds(**facts: Any) -> list[str]:
    return [danger.kind for danger in dangers(ServerFacts(**facts))]


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [record for record in caplog.records if record.name == "rapids.server_warnings"]
    assert all(record.levelno == logging.WARNING and "\n" not in record.getMessage() for record in records)
    return [vars(record)["danger"] for record in records]


# --- what is a danger -----------------------------------------------------------------------------------------------


def test_a_good_server_and_one_without_information_give_no_warning() -> None:
    assert list(dangers(GOOD)) == []
    assert list(dangers(ServerFacts())) == []


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        ({"version": (6, 0, 16)}, ["version"]),
        ({"version": (5, 0)}, ["version"]),
        ({"version": (6, 2, 0)}, []),
        ({"version": (7, 2, 4)}, []),
        ({"version": (10, 0)}, []),
        ({"policy": "allkeys-lru"}, ["eviction"]),
        ({"policy": "volatile-ttl"}, ["eviction"]),
        ({"used_memory": 85, "maxmemory": 100}, ["memory"]),
        ({"used_memory": 84, "maxmemory": 100}, []),
        ({"used_memory": 84, "maxmemory": 0}, []),
        ({"used_memory": 84}, []),
        ({"is_append_only": False, "unsaved_for": 7_201.0}, ["persistence"]),
        ({"is_append_only": False, "unsaved_for": 7_199.0}, []),
        ({"is_append_only": False}, []),
        ({"is_append_only": True, "unsaved_for": 7_201.0}, []),
        ({"unsaved_for": 7_201.0}, []),
        ({"is_append_only": False, "unsaved_for": 7_201.0, "is_embedded": True}, []),
        ({"is_cluster_node": True}, ["cluster"]),
        ({"clock_ahead": 4.9}, []),
        ({"clock_ahead": 5.1}, ["clock"]),
        ({"clock_ahead": -5.1}, ["clock"]),
    ],
)
def test_settings_that_endanger_the_promises_are_warned_about(facts: dict[str, Any], found: list[str]) -> None:
    assert kinds(**facts) == found


def test_a_cluster_node_gives_no_warning_to_a_cluster_client() -> None:
    assert list(dangers(ServerFacts(is_cluster_node=True), knows_a_cluster=True)) == []


@pytest.mark.parametrize(
    ("timeout", "block_ms", "warns"),
    [(1.0, 5_000, True), (None, 5_000, False), (5.0, 60_000, False), (6, 6_000, False), (6, 6_001, True)],
)
def test_a_time_limit_below_what_a_read_may_wait_for(timeout: float | None, block_ms: int, warns: bool) -> None:
    assert bool(list(timeout_dangers(timeout, block_ms))) == warns


def test_each_warning_says_what_to_do() -> None:
    bad = ServerFacts("", (6, 0), "allkeys-lru", 99, 100, False, 9_000.0, 60.0, is_cluster_node=True)
    texts = [danger.message for danger in [*dangers(bad), *timeout_dangers(1.0, 5_000)]]
    todo = ["redis+cluster://", "upgrade the server", "set it to noeviction", "more memory", "set appendonly yes"]
    todo += ["NTP", "above block_ms"]
    assert len(texts) == len(todo)
    for text, advice in zip(texts, todo, strict=True):
        assert advice in text
    assert "60 s ahead of this machine's" in texts[5]
    assert "99 % of maxmemory" in texts[3]


# --- what a server says ---------------------------------------------------------------------------------------------


class Canned:
    """Answers as they are given, in place of a server."""

    def __init__(self, *replies: Any) -> None:
        self.replies = replies

    async def send(self, commands: Sequence[Any]) -> list[Any]:
        if isinstance(self.replies[0], RedisConnectionError):
            raise self.replies[0]
        return list(self.replies)


REFUSED = ResponseError("NOPERM this user has no permissions to run it")


async def test_a_server_that_refuses_all_questions_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert await look_at_server(Canned(*[REFUSED] * 5)) == ServerFacts()
    await check_server(ServerWarnings(), Canned(*[REFUSED] * 5), Redis(), {})
    await check_server(ServerWarnings(), Canned(RedisConnectionError("gone")), Redis(), {})
    assert said(caplog) == []


async def test_unreadable_answers_of_a_server_are_ignored() -> None:
    info = b"redis_version:7.x\r\nmaxmemory:lots\r\nused_memory:\xff\r\n# Memory\r\nrun_id\r\n"
    facts = await look_at_server(Canned(info, info, b"", b"", REFUSED))
    assert facts == ServerFacts()


@pytest.mark.usefixtures("private_temp")
async def test_a_current_valkey_gives_no_warning() -> None:
    async with embedded_server() as server, Redis.from_url(server.url) as redis:
        facts = await look_at_server(SharedPool(redis, "s"))
    assert facts.version is not None
    assert facts.version >= (7, 2)
    assert (facts.policy, facts.maxmemory, facts.is_append_only, facts.unsaved_for) == ("noeviction", 0, False, None)
    assert (facts.clock_ahead, facts.is_embedded) == (0.0, True)
    assert len(facts.run_id) == 40


@pytest.mark.parametrize(("server", "ahead"), [(105, 0.0), (112, 2.0), (97, -3.0)])
async def test_a_slow_answer_is_no_clock_difference(monkeypatch: pytest.MonkeyPatch, server: int, ahead: float) -> None:
    asked_and_answered = iter([100.0, 110.0])
    monkeypatch.setattr(server_module, "time", SimpleNamespace(time=lambda: next(asked_and_answered)))
    facts = await look_at_server(Canned(b"", b"", b"", b"", [str(server).encode(), b"0"]))
    assert facts.clock_ahead == ahead


@pytest.mark.parametrize(("options", "timeout"), [({}, None), ({"socket_timeout": 0.5}, 0.5), ({"protocol": 2}, None)])
async def test_the_time_limit_of_a_client_is_read(
    redis_url: str, options: dict[str, Any], timeout: float | None
) -> None:
    async with Redis.from_url(redis_url, **options) as redis:
        assert socket_timeout_of(redis) == timeout


# --- at the start ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def a_server(build: Build, *options: str) -> AsyncIterator[tuple[OwnServer, Redis]]:
    async with own_server(build, *options) as server, Redis.from_url(server.url) as redis:
        yield server, redis


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that is on no disk yet is one too many."""
    monkeypatch.setattr(server_warnings, "UNSAVED_TOLERANCE", -10.0)


@pytest.mark.usefixtures("private_temp", "at_once")
async def test_the_embedded_server_gives_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    async with embedded_server() as server, Redis.from_url(server.url) as redis:
        await redis.set("a change", 1)
        async with running(make_router(redis)):
            pass
    assert said(caplog) == []


@pytest.mark.usefixtures("at_once")
async def test_an_eviction_policy_and_no_persistence_and_little_memory(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_server(build, "--appendonly", "no", "--maxmemory-policy", "allkeys-lru") as (_, redis):
        await redis.setrange("ballast", 30_000_000, "x")
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", round(used * 1.1))
        router = make_router(redis)
        for _ in range(2):  # also started again
            async with running(router):
                pass
    assert said(caplog) == ["eviction", "memory", "persistence"]
    [record, *_] = [record for record in caplog.records if record.name == "rapids.server_warnings"]
    assert {"stream", "group", "danger"} <= set(vars(record))


@pytest.mark.usefixtures("at_once")
async def test_a_server_with_an_append_only_file_gives_no_warning(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_server(build) as (_, redis):
        await redis.set("a change", 1)
        async with running(make_router(redis)):
            pass
    assert said(caplog) == []


async def test_a_user_without_the_right_to_ask_can_start(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    async with a_server(build, *EVICTS) as (server, redis):
        await redis.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "-info")
        async with Redis.from_url(server.url, username="app", password="pw") as limited, running(make_router(limited)):
            pass
    assert said(caplog) == []


async def test_clocks_that_differ_much_are_warned_about(
    build: Build, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_server(build) as (_, redis):
        monkeypatch.setattr(server_module, "time", SimpleNamespace(time=lambda: time.time() - 60))
        async with running(make_router(redis)):
            pass
    assert said(caplog) == ["clock"]
    assert "60 s ahead of" in caplog.text


async def test_a_client_with_a_short_time_limit_is_warned_about(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Redis.from_url(redis_url, socket_timeout=2.0) as redis:
        async with running(make_router(redis, block_ms=5_000)):
            pass
        assert said(caplog).count("socket_timeout 5000") == 1
        async with running(make_router(redis, block_ms=2_000)):
            pass
    assert len([kind for kind in said(caplog) if kind.startswith("socket_timeout")]) == 1


async def test_routers_that_share_warnings_log_each_once_for_each_server(
    build: Build,
    caplog: pytest.LogCaptureFixture,
) -> None:
    warnings = ServerWarnings()
    async with a_server(build, *EVICTS) as (server, redis):
        routers = [make_router(redis, group=f"dv-group{number}") for number in range(3)]
        for router in routers:
            router.use_server_warnings(warnings)
        async with running(*routers):
            with pytest.raises(RapidsError, match=r"use_server_warnings\(\) must come before"):
                routers[0].use_server_warnings(warnings)
        assert said(caplog) == ["eviction"]
        await server.kill()
        await server.start(*EVICTS)
        async with running(*routers):
            pass
    assert said(caplog) == ["eviction"] * 2


def test_a_value_that_is_no_server_warnings_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^warnings must be a ServerWarnings, not None"):
        EventRouter().use_server_warnings(None)  # type: ignore[arg-type]


async def test_the_plug_in_logs_each_warning_once_for_all_its_routers(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_server(build, *EVICTS) as (_, redis):
        routers = [idle_router(stream="s", group=f"g{number}") for number in range(2)]
        rapids = Rapids(redis=redis, routers=routers)
        for _ in range(2):
            async with rapids.lifespan():
                pass
    assert said(caplog) == ["eviction"]


async def test_the_plug_in_logs_warnings_for_an_emitter_alone(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    async with a_server(build, *EVICTS) as (_, redis), Rapids(redis=redis, emitter=EventEmitter()).lifespan():
        pass
    assert said(caplog) == ["eviction"]
