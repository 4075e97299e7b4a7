"""Each counter moves by what happened, on a real server; whatever was delivered came to one end or is in hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue, EventRouter, GenericEvent, NonRetryableError, RetryAfter
from rapids.counters import COUNTERS, OTHER, UNREADABLE, Counters
from tests.redis.own_server import own_server
from tests.servers.builds import Build
from tests.support import SOON, eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    DvPayment,
    DvShipment,
    add,
    consumers,
    fields_of,
    make_emitter,
    make_router,
    replay_stream,
    running,
    settled,
    start,
)


def totals(counters: Counters) -> dict[str, float]:
    """Every counter that is not zero, but for how long outages took."""
    return {name: total for name in COUNTERS if (total := counters.total(name)) and COUNTERS[name].unit != "seconds"}


def in_hand(counters: Counters) -> float:
    """What was delivered and has come to no end yet."""
    ends = sum(counters.total(name) for name in ("acked", "kept", "parked", "handed_back", "lease_lost"))
    return counters.total("delivered") - ends - counters.total("lost", when="held")


async def emit(redis: Redis, *events: BaseEvent) -> list[str]:
    return await make_emitter(redis).emit(events)


async def until_acked(redis: Redis, router: EventRouter) -> None:
    """Wait until all is settled, and this router knows."""
    await eventually(lambda: settled(redis))
    await eventually(lambda: in_hand(router.counters) == 0)


# --- the usual way --------------------------------------------------------------------------------------------------


async def test_handled_events_are_counted_by_type_and_handler(redis: Redis) -> None:
    router = make_router(redis)

    @router.on(DvOrder)
    async def book(event: DvOrder) -> None: ...

    @router.on(DvOrder | DvPayment)
    async def ship(event: BaseEvent) -> None: ...

    async with running(router):
        await emit(redis, *(DvOrder() for _ in range(25)), DvPayment(), DvPayment(), DvShipment())
        await until_acked(redis, router)

    counters = router.counters
    assert totals(counters) == {"delivered": 28, "acked": 28, "ignored": 1, "handled": 25 + 25 + 2}
    assert counters.total("delivered", event_type="dv.order") == 25
    assert counters.total("delivered", event_type="dv.shipment") == 1
    assert counters.total("handled", handler="book") == 25
    assert counters.total("handled", handler="ship", event_type="dv.payment") == 2
    assert {(one.labels["stream"], one.labels["group"]) for one in counters} == {(STREAM, GROUP)}


async def test_counters_continue_after_a_restart_of_the_router(redis: Redis) -> None:
    router = make_router(redis)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    for times in (1, 2, 3):
        async with running(router):
            await emit(redis, DvOrder(), DvOrder())
            await until_acked(redis, router)
        assert totals(router.counters) == {"delivered": 2 * times, "acked": 2 * times, "handled": 2 * times}


@pytest.mark.parametrize("concurrency", [1, 8])
async def test_unknown_types_and_unreadable_entries_are_counted(redis: Redis, concurrency: int) -> None:
    router = make_router(redis, concurrency=concurrency)

    @router.on("*")
    async def everything(event: object) -> None: ...

    async with running(router):
        await make_emitter(redis).emit([GenericEvent(raw_type=f"hostile.t{number}") for number in range(1_100)])
        await add(redis, [b"data", b"{}"])
        await add(redis, [b"event_type", b"\xff"])
        await until_acked(redis, router)

    counters = router.counters
    assert totals(counters) == {"delivered": 1_102, "acked": 1_102, "handled": 1_100, "dead": 2}
    assert counters.total("handled", event_type=OTHER) == 100
    assert counters.total("handled", event_type="hostile.t0") == 1
    assert counters.total("dead", event_type=UNREADABLE, handler="", reason="deserialization_error") == 2
    assert len({one.labels.get("event_type") for one in counters}) == 1_000 + 2 + 1  # with those that have none


# --- failures -------------------------------------------------------------------------------------------------------


async def test_failures_redeliveries_and_letters_are_counted_by_handler(redis: Redis) -> None:
    router = make_router(redis, max_deliveries=3, default_retries=1)

    @router.on(DvOrder)
    async def works(event: DvOrder) -> None: ...

    @router.on(DvOrder)
    async def fails(event: DvOrder) -> None:
        raise ValueError

    @router.on(DvOrder)
    async def refuses(event: DvOrder) -> None:
        raise NonRetryableError("no")

    async with running(router):
        await emit(redis, DvOrder(), DvOrder())
        await until_acked(redis, router)

    counters = router.counters
    assert totals(counters) == {
        "delivered": 6,
        "acked": 2,
        "kept": 4,
        "handled": 2,
        "failed": 6 + 2,
        "retried": 4,
        "dead": 2 + 2,
    }
    assert counters.total("failed", handler="fails", event_type="dv.order") == 6  # quick retries are no failures
    assert counters.total("retried", handler="fails") == 4
    assert counters.total("dead", handler="fails", reason="max_deliveries_exceeded") == 2
    assert counters.total("dead", handler="refuses", reason="non_retryable") == 2


async def test_a_handler_that_works_at_a_quick_retry_has_not_failed(redis: Redis) -> None:
    router, seen = make_router(redis, default_retries=2), list[int]()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if len(seen) < 3:
            raise ValueError

    async with running(router):
        await emit(redis, DvOrder())
        await until_acked(redis, router)
    assert totals(router.counters) == {"delivered": 1, "acked": 1, "handled": 1}


async def test_retry_after_counts_as_a_retry_and_a_time_out_as_a_failure(redis: Redis) -> None:
    router, seen = make_router(redis), list[int]()

    @router.on(DvOrder, timeout=0.05)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if len(seen) == 1:
            raise RetryAfter(0.01)
        if len(seen) == 2:
            await asyncio.sleep(60)

    async with running(router):
        await emit(redis, DvOrder())
        await until_acked(redis, router)
    assert totals(router.counters) == {"delivered": 3, "kept": 2, "acked": 1, "failed": 2, "retried": 2, "handled": 1}


async def test_a_parked_entry_is_counted_and_so_is_its_late_letter(redis: Redis) -> None:
    router = make_router(redis, dlq_stream=None, max_deliveries=1)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        raise ValueError

    async with running(router):
        await emit(redis, DvOrder(), DvOrder())
        await eventually(lambda: router.counters.total("parked") == 2)

    assert totals(router.counters) == {"delivered": 2, "failed": 2, "parked": 2}
    assert router.counters.total("parked", event_type="dv.order") == 2


async def test_a_replay_counts_where_it_came_from(redis: Redis) -> None:
    router, broken = make_router(redis, max_deliveries=1), [True]

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        if broken:
            raise ValueError

    async with running(router):
        await emit(redis, DvOrder())
        await until_acked(redis, router)
        broken.clear()
        [letter_id] = [letter_id.decode() for letter_id, _ in await redis.xrange(DLQ)]
        await DeadLetterQueue(redis, DLQ).replay(letter_id)
        await eventually(lambda: router.counters.total("acked") == 2)

    assert totals(router.counters) == {"delivered": 2, "acked": 2, "failed": 1, "dead": 1, "handled": 1}
    assert router.counters.total("handled", stream=STREAM, event_type="dv.order") == 1


async def test_a_hostile_replay_adds_no_label(redis: Redis) -> None:
    router = make_router(redis)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    async with running(router):
        for number in range(3):
            replay = {b"replay_handler": b"none%d" % number, b"replay_of": b"1-1", b"replay_count": b"1"}
            fields = fields_of(DvOrder()) | replay | {b"original_msg_id": b"1-1"}
            await add(redis, [part for pair in fields.items() for part in pair], replay_stream())
        await eventually(lambda: router.counters.total("acked") == 3)

    assert router.counters.total("dead", handler=OTHER) == 3
    assert totals(router.counters) == {"delivered": 3, "acked": 3, "dead": 3}


# --- outages --------------------------------------------------------------------------------------------------------


async def test_an_outage_is_counted_once_and_its_seconds_while_it_lasts(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        router = make_router(redis, block_ms=100, claim_min_idle_ms=300)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None: ...

        async with running(router):
            await server.kill()
            await eventually(lambda: router.counters.total("outage_seconds") > 0)
            first = router.counters.total("outage_seconds")
            await eventually(lambda: router.counters.total("outage_seconds") > first)
            assert router.counters.total("outages") == 1
            await server.start()
            await eventually(lambda: any("Redis is back" in record.getMessage() for record in caplog.records))
        [seconds] = [vars(one)["outage_seconds"] for one in caplog.records if "Redis is back" in one.getMessage()]
        assert router.counters.total("outage_seconds") == seconds
        assert router.counters.total("outages") == 1


async def test_an_outage_is_over_for_a_router_that_stops_in_it(build: Build) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        router = make_router(redis, block_ms=100, claim_min_idle_ms=300)
        begun, go_on = asyncio.Event(), asyncio.Event()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            begun.set()
            await go_on.wait()

        task = await start(router)
        await emit(redis, DvOrder())
        await begun.wait()
        await server.kill()
        await eventually(lambda: router.counters.total("outages") == 1)
        go_on.set()
        await asyncio.wait_for(router.stop(), SOON)
        await asyncio.wait_for(task, SOON)
        after = router.counters.total("outage_seconds")
        await asyncio.sleep(0.01)
        assert router.counters.total("outage_seconds") == after > 0
        assert totals(router.counters) == {"delivered": 1, "handled": 1, "lease_lost": 1, "outages": 1}


# --- everything at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"concurrency": 5}, {"concurrency": 5, "order_by": "number"}])
async def test_every_delivery_has_ended_or_is_in_progress(redis: Redis, options: dict[str, Any]) -> None:
    """Two routers that steal from each other, with handlers that fail, against the server's own list."""
    held = asyncio.Event()

    def made(name: str) -> EventRouter:
        router = make_router(redis, consumer=name, claim_min_idle_ms=5_000, max_deliveries=2, **options)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            if event.number % 5 == 0:
                raise ValueError
            if event.number % 17 == 0:
                raise RetryAfter(60)
            if event.number == 99:
                await held.wait()

        return router

    routers = [made("one"), made("two")]
    async with running(*routers):
        await emit(redis, *(DvOrder(number=number) for number in range(1, 121)))

        async def agree() -> bool:
            owned = await consumers(redis)
            return [in_hand(router.counters) for router in routers] == [owned.get("one", 0), owned.get("two", 0)]

        await eventually(lambda: sum(router.counters.total("delivered") for router in routers) >= 120)
        await eventually(lambda: sum(in_hand(router.counters) for router in routers) < 60)
        await eventually(agree)
        held.set()

        async def only_waits() -> bool:
            return await consumers(redis) == {"one": 0, "two": 0, "rapids:waiting": 6}

        await eventually(only_waits)
        await eventually(agree)
    failed = sum(router.counters.total("failed") for router in routers)
    assert failed == 24 * 2 + 6
