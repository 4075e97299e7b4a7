"""What a Cluster may do under a router and an emitter: move the slot, hand it over, lose the master."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, MovedError

from rapids import EventEmitter, EventRouter
from rapids._storage import appends
from rapids.exceptions import EmitError
from tests.servers.cluster import Cluster, slot_of
from tests.servers.node import Node
from tests.support import PATIENCE, eventually
from tests.worker.helpers import STREAM, DvOrder, make_emitter, make_router, running, until_settled


class Load:
    """Emits numbered events one after another, and handles them."""

    def __init__(self, client: RedisCluster, emitter: EventEmitter) -> None:
        self.handled = Counter[int]()
        self.stored: list[int] = []
        self.failed: list[EmitError] = []
        self.router = self._router(client)
        self._emitter = emitter

    def _router(self, client: RedisCluster) -> EventRouter:
        router = make_router(client, concurrency=10, dlq_stream=None)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            self.handled[event.number] += 1

        return router

    async def _emit(self) -> None:
        number = 0
        while True:
            try:
                await self._emitter.emit(DvOrder(number=number))
            except EmitError as error:
                self.failed.append(error)
            else:
                self.stored.append(number)
            number += 1
            await asyncio.sleep(0.002)

    @asynccontextmanager
    async def under_way(self) -> AsyncIterator[None]:
        """Emit inside the block; afterwards nothing is emitted any more, and all that was stored is handled."""
        async with running(self.router):
            emitting = asyncio.create_task(self._emit())
            try:
                await eventually(lambda: len(self.handled) > 20)
                yield
                await self.goes_on()
            finally:
                emitting.cancel()
                await asyncio.wait([emitting])
                await self._emitter.drain()
            await eventually(lambda: not self.lost)

    async def goes_on(self) -> None:
        """Wait until what is emitted from now on is handled, whether replicas confirmed it or not."""
        handled = len(self.handled)
        await eventually(lambda: len(self.handled) > handled + 5)

    @property
    def lost(self) -> set[int]:
        return set(self.stored) - set(self.handled)

    @property
    def repeated(self) -> dict[int, int]:
        return {number: times for number, times in self.handled.items() if times > 1}


async def test_a_slot_moves_under_load_without_a_loss_a_repetition_or_a_failed_emit(
    cluster: Cluster, client: RedisCluster
) -> None:
    load = Load(client, make_emitter(client))
    async with load.under_way():
        await cluster.move_slot(STREAM)
    assert (load.lost, load.repeated, load.failed) == (set(), {}, [])


async def test_a_migrating_stream_is_written_and_read_at_its_target(
    cluster: Cluster, client: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The stream and the group's replay stream have moved, and the slot has not: each command is answered ASK."""
    load = Load(client, make_emitter(client))
    async with load.under_way():
        migration = await cluster.migration(STREAM)
        await migration.begin()
        while await migration.move_keys():
            pass
        await load.goes_on()
        await migration.finish()
    assert (load.lost, load.repeated, load.failed) == (set(), {}, [])
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert [message for message in errors if "Multiple keys request" not in message] == []


async def test_a_planned_failover_loses_and_repeats_nothing(cluster: Cluster, client: RedisCluster) -> None:
    load = Load(client, make_emitter(client, max_retries=12, timeout=PATIENCE))
    async with load.under_way():
        await cluster.failover(STREAM)
    assert (load.lost, load.failed) == (set(), [])
    assert all(times <= 2 for times in load.repeated.values())


@pytest.mark.parametrize("how", ["kill", "pause"])
async def test_after_a_master_dies_all_that_replicas_confirmed_is_handled(
    cluster: Cluster, client: RedisCluster, how: str
) -> None:
    load = Load(client, make_emitter(client, replicas=1, max_retries=12, timeout=PATIENCE))
    async with load.under_way():
        master = await cluster.master_of(STREAM)
        if how == "kill":
            master.kill()
        else:
            master.pause()
        await eventually(lambda: _has_another_master(cluster, master))
    assert load.lost == set()


async def _has_another_master(cluster: Cluster, than: Node) -> bool:
    other = next(node for node in cluster.nodes if node is not than)
    owners = [member.port for member in await cluster.members(other) if member.owns(slot_of(STREAM))]
    return owners != [than.port]


async def test_a_client_made_before_the_failover_finds_the_new_master_at_its_first_call(
    cluster: Cluster, client: RedisCluster
) -> None:
    emitter, router = make_emitter(client, replicas=1), make_router(client)
    await emitter.emit(DvOrder())
    master = await cluster.kill_master_of(STREAM)
    await cluster.until_failed_over(STREAM, master)
    assert (await router.get_consumer_lag()).last_delivered_id == "0-0"
    await make_emitter(client, max_retries=1).emit(DvOrder())
    assert await client.xlen(STREAM) == 2


async def test_an_emit_whose_answer_was_lost_in_a_failover_is_looked_up_at_the_new_master(
    cluster: Cluster, client: RedisCluster
) -> None:
    await make_emitter(client, replicas=1).emit(DvOrder(number=1))
    emitter = make_emitter(client, max_retries=12, retry_delay=0.05, timeout=PATIENCE)
    master = await cluster.master_of(STREAM)
    master.pause()
    emitting = asyncio.create_task(emitter.emit(DvOrder(number=2)))
    await eventually(lambda: emitting.done())
    master.kill()
    assert emitting.result()
    entries = await client.xrange(STREAM)
    assert [b'"number":2' in fields[b"data"] for _, fields in entries] == [False, True]


async def test_stopping_without_a_master_ends_within_its_time_limit(cluster: Cluster, client: RedisCluster) -> None:
    router = make_router(client)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        pass

    async with running(router):
        await make_emitter(client).emit(DvOrder())
        await until_settled(client)
        (await cluster.master_of(STREAM)).pause()


@pytest.mark.parametrize("sends_on", [MovedError, AskError])
async def test_events_stored_before_a_slot_moved_are_not_stored_again(
    client: RedisCluster, sends_on: type[AskError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two is stored, the second sent on to an unknown node: what had its answer must not be
    reported as not stored."""
    emitter = make_emitter(client)
    await emitter.emit(DvOrder())
    real, moves = appends.round_trip, iter([True])

    async def round_trip(to: AbstractConnection, packed: Sequence[bytes], *options: Any) -> list[Any]:
        if len(packed) != 2 or b"XADD" not in packed[0] or not next(moves, False):
            return await real(to, packed, *options)
        return [*await real(to, packed[:1], *options), sends_on(f"{slot_of(STREAM)} 127.0.0.1:1")]

    monkeypatch.setattr(appends, "round_trip", round_trip)
    await emitter.emit([DvOrder(number=1), DvOrder(number=2)])
    stored = [fields[b"data"] for _, fields in await client.xrange(STREAM)]
    assert [b'"number":%d' % number in data for number, data in enumerate(stored)] == [True] * 3
    assert next(moves, None) is None
