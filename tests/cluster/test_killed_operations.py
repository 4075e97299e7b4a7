"""kill -9 in the middle of a bulk replay: it continues afterwards, and every letter is replayed exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue
from rapids.dead_letters import LetterFilter, Selector
from rapids.dead_letters.operation import Operation
from tests.cluster.bulk import check_replayed_once, write
from tests.cluster.conftest import Place
from tests.cluster.operation_process import begin
from tests.servers.builds import Build
from tests.servers.client import connected
from tests.servers.node import Node, patient
from tests.servers.standalone import Standalone
from tests.support import eventually
from tests.worker.helpers import DLQ

pytestmark = pytest.mark.slow

SYNCED = {"appendonly": "yes", "appendfsync": "always"}
SIZES = {"one server": (30_000, 4), "Cluster": (10_000, 4)}
"""Letters, and kills."""


class Bulk:
    """A replay of so many letters, and what happens in the midst of it."""

    def __init__(self, redis: Redis, dlq: str, letters: int, seed: int) -> None:
        self.random = Random(seed)
        self._redis, self._dlq, self._letters = redis, dlq, letters
        self._operations = DeadLetterQueue(redis, dlq).operations

    async def start(self) -> str:
        """The operation's id."""
        self._letter_ids = await write(self._redis, self._dlq, self._letters)
        selector = Selector(filter=LetterFilter(handler="pay"))
        operation = await self._operations.start("replay", selector, actor="ada")
        assert operation.total == self._letters
        self._id = operation.id
        return operation.id

    async def during(self, happens: Callable[[], Awaitable[None]]) -> None:
        """Have something happen when some more letters were replayed, and not all."""
        enough = await self._done() + 1 + self.random.randrange(self._letters // 10)
        await eventually(lambda: self._has_done(enough), interval=0.001)
        await asyncio.sleep(self.random.random() * 0.02)
        assert await self._done() < self._letters
        await happens()

    async def check(self) -> None:
        """It has ended, and every letter was replayed exactly once."""
        await check_replayed_once(self._redis, self._dlq, self._letter_ids, await self._operation())

    async def _operation(self) -> Operation:
        """The operation, as soon as a server that was killed or paused answers again."""
        return await eventually(patient(lambda: self._operations.get(self._id)))

    async def _done(self) -> int:
        return (await self._operation()).done

    async def _has_done(self, letters: int) -> bool:
        return await self._done() >= letters


@pytest.mark.parametrize("seed", [1])
async def test_after_each_kill_of_its_process_another_one_continues_the_operation(
    place: Place, seed: int, request: pytest.FixtureRequest
) -> None:
    letters, kills = SIZES[request.node.callspec.params["place"]]
    async with connected(place.url) as redis:
        bulk = Bulk(redis, place.dlq, letters, seed)
        operation_id = await bulk.start()
        for _ in range(kills):
            process = await begin(place.url, place.dlq, operation_id)

            async def killed(process: asyncio.subprocess.Process = process) -> None:
                process.kill()
                await process.wait()

            await bulk.during(killed)
        last = await begin(place.url, place.dlq, operation_id)
        assert await asyncio.wait_for(last.wait(), 60) == 0
        await bulk.check()


@pytest.mark.parametrize("seed", [1])
async def test_after_each_death_of_the_server_the_same_process_continues_the_operation(build: Build, seed: int) -> None:
    """The server comes back with all it confirmed (`appendfsync always`). Or it is only paused."""
    async with Standalone(build, settings=SYNCED) as server, server.client() as redis:
        bulk = Bulk(redis, DLQ, 25_000, seed)
        process = await begin(server.url, DLQ, await bulk.start())
        for happens in (server.node.restart, lambda: paused(server.node), server.node.restart):
            await bulk.during(happens)
        assert await asyncio.wait_for(process.wait(), 60) == 0
        await bulk.check()


async def paused(node: Node) -> None:
    """Longer than a process has an operation without renewing its lease."""
    node.pause()
    await asyncio.sleep(1)
    node.resume()
