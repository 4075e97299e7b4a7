"""A group that vanishes while several processes are at work in it: each of them keeps what it holds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter, EventRouter
from rapids._storage import groups
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from rapids._worker.inflight import Inflight
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError, RetryAfter
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    check_keys,
    fields_of,
    letters,
    make_emitter,
    make_router,
    pending,
    running,
    until_settled,
)


class OuKept(BaseEvent):
    number: int = 0


class Fleet:
    """Some routers of one group whose handlers wait for an event of the test."""

    def __init__(self, redis: Redis, size: int, **options: object) -> None:
        self.seen: list[int] = []
        self.go_on = asyncio.Event()
        self.emitter = EventEmitter(redis, STREAM)
        self.fails: dict[int, Exception] = {}
        defaults: dict[str, object] = {"block_ms": 100, "claim_min_idle_ms": 1_000, "batch_size": 5}
        self.routers = [make_router(redis, **(defaults | options)) for _ in range(size)]
        for router in self.routers:
            self._register(router)

    def _register(self, router: EventRouter) -> None:
        @router.on(OuKept)
        async def handle(event: OuKept) -> None:
            self.seen.append(event.number)
            await self.go_on.wait()
            if (error := self.fails.pop(event.number, None)) is not None:
                raise error

    def check(self, count: int) -> None:
        """One process runs nothing twice. Of several, the first to make the group again may have read less far."""
        assert set(self.seen) == set(range(count))
        assert max(self.seen.count(number) for number in range(count)) <= min(len(self.routers), 2)

    async def emit(self, *numbers: int) -> list[str]:
        return await self.emitter.emit([OuKept(number=number) for number in numbers])


async def destroy(redis: Redis) -> None:
    assert await redis.xgroup_destroy(STREAM, GROUP)


async def made_again(redis: Redis) -> bool:
    return await redis.exists(STREAM) == 1 and len(await redis.xinfo_groups(STREAM)) == 1


async def ids_held(redis: Redis) -> set[str]:
    return {row["message_id"].decode() for row in await pending(redis)}


@pytest.mark.parametrize("size", [1, 2, 4])
async def test_every_process_registers_again_what_it_holds(
    redis: Redis, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """Else only the one that recreated the group would: what the others had buffered would never run."""
    fleet, count = Fleet(redis, size), 10 * size
    async with running(*fleet.routers):
        ids = await fleet.emit(*range(count))
        await eventually(lambda: _is_held(redis, ids))
        await destroy(redis)
        await eventually(lambda: _is_held(redis, ids))
        fleet.go_on.set()
        await until_settled(redis)
    fleet.check(count)
    assert [record.levelno for record in caplog.records if "recreated" in record.getMessage()] == [logging.ERROR]
    await check_keys(redis)


async def _is_held(redis: Redis, ids: list[str]) -> bool:
    return await made_again(redis) and await ids_held(redis) == set(ids)


async def test_entries_of_a_process_whose_leases_lapsed_are_run_by_one_consumer(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others recreated the group while it was suspended: no consumer has its entries, so none would run them."""
    fleet = Fleet(redis, 2)
    source = Source(STREAM, GROUP)
    async with running(*fleet.routers):
        ids = await fleet.emit(*range(20))
        await eventually(lambda: _is_held(redis, ids))
        monkeypatch.setattr(Inflight, "lease_lasts", lambda *_: False)
        await destroy(redis)
        assert await groups.recreate(SharedPool(redis, STREAM), source, ids[-1], delivered=True)
        await eventually(lambda: _is_held(redis, ids))
        fleet.go_on.set()
        await until_settled(redis)
    fleet.check(20)
    await check_keys(redis)


async def test_a_group_may_be_lost_any_number_of_times(redis: Redis) -> None:
    fleet = Fleet(redis, 3)
    async with running(*fleet.routers):
        ids = await fleet.emit(*range(30))
        for _ in range(5):
            await eventually(lambda: _is_held(redis, ids))
            await destroy(redis)
        await eventually(lambda: _is_held(redis, ids))
        fleet.go_on.set()
        await until_settled(redis)
    assert set(fleet.seen) == set(range(30))
    await check_keys(redis)


async def fail_again(fleet: Fleet) -> None:
    fleet.fails[0] = ValueError("again")


async def fail_for_good(fleet: Fleet) -> None:
    fleet.fails[0] = NonRetryableError("for good")


@pytest.mark.parametrize("fail", [fail_again, fail_for_good])
async def test_a_failure_while_the_group_is_lost_is_retried_or_becomes_a_letter(
    redis: Redis, fail: Callable[[Fleet], Awaitable[None]]
) -> None:
    fleet = Fleet(redis, 2, redelivery_backoff=constant(0.05))
    async with running(*fleet.routers):
        ids = await fleet.emit(*range(20))
        await eventually(lambda: _is_held(redis, ids))
        await fail(fleet)
        await destroy(redis)
        fleet.go_on.set()
        await eventually(lambda: made_again(redis))
        await eventually(lambda: set(fleet.seen) == set(range(20)))
        # Until its process has registered it with the group made again, nothing is pending though something is owed.
        await eventually(lambda: fleet.seen.count(0) >= 2 if fail is fail_again else letters(redis, DLQ))
        await until_settled(redis)
    assert len(await letters(redis, DLQ)) == (1 if fail is fail_for_good else 0)
    await check_keys(redis)


@pytest.mark.standalone("flushes and writes in one transaction")
async def test_a_flushed_stream_is_read_from_its_beginning(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Emitted after the flush, before the group is recreated."""
    fleet = Fleet(redis, 2)
    fleet.go_on.set()
    async with running(*fleet.routers):
        await fleet.emit(*range(10))
        await until_settled(redis)
        async with redis.pipeline(transaction=True) as at_once:
            at_once.flushall()
            for number in range(10, 15):
                at_once.xadd(STREAM, fields_of(OuKept(number=number)))
            await at_once.execute()
        await eventually(lambda: sorted(fleet.seen) == list(range(15)))
        await until_settled(redis)
    assert len([record for record in caplog.records if "recreated" in record.getMessage()]) <= 2  # events, replays


async def test_an_event_emitted_before_the_group_is_recreated_is_read(redis: Redis) -> None:
    fleet = Fleet(redis, 1)
    fleet.go_on.set()
    async with running(*fleet.routers):
        await fleet.emit(1, 2)
        await until_settled(redis)
        async with redis.pipeline(transaction=True) as at_once:
            at_once.xgroup_destroy(STREAM, GROUP)
            at_once.xadd(STREAM, fields_of(OuKept(number=3)))
            await at_once.execute()
        await eventually(lambda: fleet.seen == [1, 2, 3])
        await until_settled(redis)
    assert fleet.seen == [1, 2, 3]


@pytest.mark.parametrize("parks", [False, True])
async def test_waiting_and_parked_entries_survive_the_loss_of_a_group(redis: Redis, parks: bool) -> None:
    fleet = Fleet(redis, 1, redelivery_backoff=constant(1.0), max_deliveries=2, dlq_stream=None if parks else DLQ)
    fleet.go_on.set()
    fleet.fails[1] = NonRetryableError("for good") if parks else ValueError("again")
    consumer = b"rapids:parked" if parks else b"rapids:waiting"
    async with running(*fleet.routers):
        [entry_id, *_] = await fleet.emit(1, 2)
        await eventually(lambda: _has(redis, consumer, entry_id))
        await destroy(redis)
        await eventually(lambda: made_again(redis))
        if parks:
            await eventually(lambda: _has(redis, consumer, entry_id))
        else:
            await eventually(lambda: fleet.seen == [1, 2, 1])
            await until_settled(redis)
    assert fleet.seen == ([1, 2] if parks else [1, 2, 1])
    await check_keys(redis, settled=not parks)


async def _has(redis: Redis, consumer: bytes, entry_id: str) -> bool:
    return [(row["consumer"], row["message_id"]) for row in await pending(redis)] == [(consumer, entry_id.encode())]


async def test_a_waiting_entry_is_not_lost_when_another_client_recreates_the_group(redis: Redis) -> None:
    seen: list[int] = []
    router = make_router(redis)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 1 and seen.count(1) == 1:
            raise RetryAfter(1.0)

    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
        await eventually(lambda: 2 in seen)
        await eventually(lambda: redis.zcard(Source(STREAM, GROUP).due))
        last = (await redis.xinfo_stream(STREAM))["last-generated-id"]
        pipeline = redis.pipeline(transaction=True)  # before the router can see it gone
        pipeline.xgroup_destroy(STREAM, GROUP)
        pipeline.xgroup_create(STREAM, GROUP, last)
        await pipeline.execute()
        await eventually(lambda: seen.count(1) == 2)
        await until_settled(redis)


async def test_a_parked_entry_is_restored_after_another_client_recreated_the_group(redis: Redis) -> None:
    router = make_router(redis, dlq_stream=None)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        raise NonRetryableError("for good")

    async with running(router):
        entry_id = await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: _has(redis, b"rapids:parked", entry_id))
    await redis.xgroup_destroy(STREAM, GROUP)
    await redis.xgroup_create(STREAM, GROUP, "$")
    async with running(router):
        await eventually(lambda: _has(redis, b"rapids:parked", entry_id))
