"""Routers announce themselves, so that other processes know which streams there are."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis

from rapids._storage import announcements
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import announced_routers
from rapids.inspection import Inspector
from tests.support import eventually, idle_router
from tests.worker.helpers import DLQ, GROUP, STREAM, make_router, running

MOST = 5


async def names(redis: Redis) -> list[tuple[str, str, str | None, int | None]]:
    found = await Inspector(redis).routers()
    return [(one.stream, one.group, one.dlq_stream, one.dlq_maxlen) for one in found]


async def test_a_router_is_known_while_it_runs_and_afterwards(redis: Redis) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    parks = idle_router(redis, "dv:other", GROUP)
    async with running(
        make_router(redis, dlq_stream=DLQ, dlq_maxlen=7), make_router(redis, dlq_stream=DLQ, dlq_maxlen=7), parks
    ):
        await eventually(lambda: _has(redis, 2))
    found = await names(redis)
    assert sorted(found) == [(STREAM, GROUP, DLQ, 7), ("dv:other", GROUP, None, 10_000)]
    assert all(before < one.at < datetime.now(UTC) + timedelta(seconds=1) for one in await Inspector(redis).routers())


async def _has(redis: Redis, count: int) -> bool:
    return len(await names(redis)) == count


async def test_the_last_are_kept_and_none_for_ever(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(announcements, "MAX_ROUTERS", MOST)
    key = announced_routers()
    await redis.zadd(key, {b'["long-ago","g",null,null]': 1, b"no list": 9e15, b'[1,"g"]': 9e15, b"\xff": 9e15})
    commands = SharedPool(redis, key)
    for number in range(2 * MOST):
        await announcements.announce(commands, stream=f"s{number}", group="g", dlq_stream=None, dlq_maxlen=None)
    await announcements.announce(commands, stream="s" * 3_000, group="g", dlq_stream=None, dlq_maxlen=None)
    assert [stream for stream, *_ in await names(redis)] == ["s9", "s8"]
    assert await redis.zcard(key) == MOST
    assert 0 < await redis.pttl(key) <= announcements.REMEMBERED_MS


async def test_a_router_works_where_it_cannot_announce_itself(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    await redis.set(announced_routers(), "somebody's")
    with caplog.at_level(logging.INFO, "rapids.worker"):
        async with running(make_router(redis)) as _:
            await eventually(lambda: "cannot announce its stream" in caplog.text)
            assert not [record for record in caplog.records if record.levelno > logging.INFO]
