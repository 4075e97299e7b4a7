"""Connections that are kept: even if a reader of one fails, the next answer is to the next command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids._storage.client.commands import pack
from rapids._storage.client.connections import OwnConnection, call
from tests.worker.helpers import STREAM


def fails(_replies: Sequence[Any]) -> None:
    raise ValueError("a bug")


def is_cancelled(_replies: Sequence[Any]) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize(("on_ahead", "error"), [(fails, ValueError), (is_cancelled, asyncio.CancelledError)])
async def test_an_unread_answer_is_not_read_as_the_next_one(
    redis: Redis, on_ahead: Callable[[Sequence[Any]], None], error: type[BaseException]
) -> None:
    await redis.xadd(STREAM, {"a": "b"})
    connection = OwnConnection(redis, STREAM, timeout=5.0)
    blocks = pack([("XREAD", "BLOCK", 50, "STREAMS", STREAM, "$")])
    try:
        task = asyncio.create_task(connection.send_ahead([("XLEN", STREAM)], blocks, on_ahead))
        await asyncio.wait([task])
        with pytest.raises(error):
            task.result()
        assert await call(connection, "XLEN", STREAM) == 1
    finally:
        await connection.close()
