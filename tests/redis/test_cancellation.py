"""Cancelled calls: each ends, wherever the cancellation finds it, and its connection is of use afterwards."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

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


async def test_a_cancellation_that_sending_hides_is_raised() -> None:
    """As `asyncio.wait_for` hides one before Python 3.12. The answer may come later, so the connection is closed."""

    class Hiding:
        is_connected = True

        async def send_packed_command(self, packed: bytes) -> None:
            cast("asyncio.Task[Any]", asyncio.current_task()).cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.sleep(0)

        async def disconnect(self, nowait: bool = False) -> None:
            self.is_connected = False

    connection = Hiding()
    task = asyncio.create_task(send(cast(AbstractConnection, connection), b""))
    await asyncio.wait([task])
    assert (task.cancelled(), connection.is_connected) == (True, False)


async def test_sending_while_a_cancelled_task_cleans_up_is_not_cancelled_again() -> None:
    class Sending:
        async def send_packed_command(self, packed: bytes) -> None:
            sent.append(packed)

    async def clean_up() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await send(cast(AbstractConnection, Sending()), b"x")

    sent: list[bytes] = []
    task = asyncio.create_task(clean_up())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert sent == [b"x"]


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
