"""Cancelled calls: each ends, wherever the cancellation finds it, and its connection is of use afterwards."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from rapids import DeadLetterQueue
from rapids._storage.client.commands import send
from tests.dead_letters.helpers import write
from tests.worker.helpers import DLQ

CANCELLED = 400
TURNS = 60
"""The most turns of the event loop before a call is cancelled: more than a call takes."""


@pytest.mark.parametrize("fails", [False, True])
async def test_sending_is_without_redis_pys_own_limit_which_hides_cancellations_before_python_3_12(fails: bool) -> None:
    class Sending:
        socket_timeout: float | None = 5.0

        async def send_packed_command(self, packed: bytes) -> None:
            limits.append(self.socket_timeout)
            if fails:
                raise ConnectionError

    limits: list[float | None] = []
    connection = Sending()
    with pytest.raises(ConnectionError) if fails else nullcontext():
        await send(cast(AbstractConnection, connection), b"x")
    assert (limits, connection.socket_timeout) == ([None], 5.0)


async def test_every_cancelled_reader_of_letters_ends(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = [await write(redis) for _ in range(3)]

    async def read() -> None:
        while True:
            assert [letter.id for letter in (await queue.list()).items] == ids[::-1]
            for letter_id in ids:
                assert (await queue.get(letter_id)).id == letter_id

    rng = random.Random(0)
    others = [asyncio.create_task(read()) for _ in range(2)]
    for _ in range(CANCELLED):
        task = asyncio.create_task(read())
        for _ in range(rng.randrange(TURNS)):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=60)
        assert task.cancelled()
    assert not [task for task in others if task.done()], "they got the answers of others"
    for task in others:
        task.cancel()
    await asyncio.wait(others, timeout=60)
    assert len((await queue.list()).items) == 3
