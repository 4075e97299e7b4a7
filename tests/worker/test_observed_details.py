"""What a router reports to its observers, and that they cannot harm it."""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

import pytest
from redis.asyncio import Redis

from rapids import NonRetryableError
from rapids._core.outcomes import Reason
from rapids.backoff import constant
from rapids.exceptions import HandlerTimeoutError
from rapids.observers import (
    DeadLettered,
    Delivered,
    Detail,
    HandlerFailed,
    HandlerSucceeded,
    LeaseLost,
    Lost,
    OutageEnded,
    OutageStarted,
    Parked,
)
from tests.redis.own_server import own_server
from tests.servers.builds import Build
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, make_emitter, make_router, running, until_settled

D = TypeVar("D")


class Recorder(list[Detail]):
    """An observer that keeps what it receives."""

    def __call__(self, detail: Detail) -> None:
        self.append(detail)

    def of(self, kind: type[D]) -> list[D]:
        return [detail for detail in self if isinstance(detail, kind)]

    @property
    def kinds(self) -> list[str]:
        return [type(detail).__name__ for detail in self]


async def test_a_delivery_and_its_handlers_are_reported_with_their_time(redis: Redis) -> None:
    router = make_router(redis, observers=[reported := Recorder()], consumer="worker")

    @router.on(DvOrder)
    async def slow(event: DvOrder) -> None:
        await asyncio.sleep(0.05)

    @router.on(DvOrder)
    async def quick(event: DvOrder) -> None: ...

    async with running(router):
        [entry_id] = await make_emitter(redis).emit([event := DvOrder()])
        await until_settled(redis)

    assert reported.kinds == ["Delivered", "HandlerSucceeded", "HandlerSucceeded"]
    assert reported[0] == Delivered(STREAM, GROUP, entry_id, "dv.order", 1)
    first, second = reported.of(HandlerSucceeded)
    assert (first.delivery.handler, second.delivery.handler) == ("slow", "quick")
    assert (first.delivery.event.id, first.delivery.entry_id) == (event.id, entry_id)
    assert (first.delivery.consumer, first.delivery.deliveries, first.delivery.attempt) == ("worker", 1, 1)
    assert first.seconds >= 0.05 > 0 < second.seconds


async def test_failures_are_reported_with_the_error_and_the_time_of_the_next_run(redis: Redis) -> None:
    reported = Recorder()
    router = make_router(
        redis, observers=[reported], max_deliveries=2, default_retries=1, redelivery_backoff=constant(0.125)
    )
    raised: list[ValueError] = []

    @router.on(DvOrder)
    async def fails(event: DvOrder) -> None:
        raised.append(ValueError(len(raised)))
        raise raised[-1]

    async with running(router):
        [entry_id] = await make_emitter(redis).emit([event := DvOrder()])
        await until_settled(redis)

    assert reported.kinds == ["Delivered", "HandlerFailed", "Delivered", "HandlerFailed", "DeadLettered"]
    first, second = reported.of(HandlerFailed)
    assert (first.error, second.error) == (raised[1], raised[3])  # of the last attempt
    assert (first.retry_in, second.retry_in) == (0.125, None)
    assert (first.delivery.attempt, first.delivery.deliveries, second.delivery.deliveries) == (2, 1, 2)
    [letter] = reported.of(DeadLettered)
    assert (letter.stream, letter.group, letter.entry_id, letter.event_id) == (STREAM, GROUP, entry_id, event.id)
    assert (letter.event_type, letter.handler, letter.deliveries) == ("dv.order", "fails", 2)
    assert (letter.reason, letter.failure.error_type) == (Reason.MAX_DELIVERIES_EXCEEDED, "ValueError")


async def test_a_quick_retry_that_works_is_a_success_and_its_time_is_that_of_all(redis: Redis) -> None:
    router, seen = make_router(redis, observers=[reported := Recorder()], default_retries=2), list[int]()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        await asyncio.sleep(0.03)
        if len(seen) < 3:
            raise ValueError

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await until_settled(redis)
    assert reported.kinds == ["Delivered", "HandlerSucceeded"]
    [success] = reported.of(HandlerSucceeded)
    assert success.delivery.attempt == 3
    assert success.seconds >= 0.09


async def test_a_failure_that_is_final_at_once_is_reported_with_its_reason(redis: Redis) -> None:
    router = make_router(redis, observers=[reported := Recorder()])

    @router.on(DvOrder)
    async def refuses(event: DvOrder) -> None:
        raise NonRetryableError("no use")

    @router.on(DvOrder, timeout=0.02, retryable_exceptions=(ConnectionError,))
    async def hangs(event: DvOrder) -> None:
        await asyncio.sleep(60)

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await until_settled(redis)
    refused, timed_out = reported.of(HandlerFailed)
    assert isinstance(refused.error, NonRetryableError)
    assert isinstance(timed_out.error, HandlerTimeoutError)
    assert [one.retry_in for one in (refused, timed_out)] == [None, None]
    assert [one.reason for one in reported.of(DeadLettered)] == [Reason.NON_RETRYABLE] * 2


async def test_an_entry_that_cannot_be_read_is_reported_as_a_letter_of_no_handler(redis: Redis) -> None:
    router = make_router(redis, observers=[reported := Recorder()])

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    async with running(router):
        await redis.xadd(STREAM, {"event_type": "dv.order", "data": "{"})
        await until_settled(redis)
    [letter] = reported.of(DeadLettered)
    assert (letter.handler, letter.event_id, letter.event_type) == ("", "", "dv.order")
    assert letter.reason is Reason.DESERIALIZATION_ERROR


async def test_a_parked_entry_is_reported(redis: Redis) -> None:
    router = make_router(redis, observers=[reported := Recorder()], dlq_stream=None, max_deliveries=1)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        raise ValueError

    async with running(router):
        [entry_id] = await make_emitter(redis).emit([event := DvOrder()])
        await eventually(lambda: reported.of(Parked))
    assert reported.of(Parked) == [Parked(STREAM, GROUP, entry_id, event.id, "dv.order", ("handle",), 1)]


async def test_a_lost_lease_is_reported(redis: Redis) -> None:
    router = make_router(redis, observers=[reported := Recorder()], claim_min_idle_ms=1_000)
    taken, go_on = asyncio.Event(), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        taken.set()
        await go_on.wait()

    async with running(router):
        [entry_id] = await make_emitter(redis).emit([DvOrder()])
        await taken.wait()
        await redis.execute_command("XCLAIM", STREAM, GROUP, "another", 0, entry_id)
        await eventually(lambda: reported.of(LeaseLost))
        go_on.set()
    assert reported.of(LeaseLost) == [LeaseLost(STREAM, GROUP, entry_id)]


async def test_a_trimmed_entry_is_reported(redis: Redis) -> None:
    ids = await make_emitter(redis).emit([DvOrder(), DvOrder()])
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=2)
    await redis.xdel(STREAM, *ids)
    router = make_router(redis, observers=[reported := Recorder()], claim_min_idle_ms=50)
    async with running(router):
        await eventually(lambda: sum(detail.count or 0 for detail in reported.of(Lost)) == 2)
    assert {detail.when for detail in reported.of(Lost)} == {"pending"}
    assert sorted(entry_id for detail in reported.of(Lost) for entry_id in detail.entry_ids) == ids


async def test_an_outage_is_reported_at_its_start_and_its_end(build: Build) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        router = make_router(redis, observers=[reported := Recorder()], block_ms=100, claim_min_idle_ms=300)
        async with running(router):
            await server.kill()
            await eventually(lambda: reported.of(OutageStarted))
            await server.start()
            await eventually(lambda: reported.of(OutageEnded))
        assert reported.kinds == ["OutageStarted", "OutageEnded"]
        [started], [ended] = reported.of(OutageStarted), reported.of(OutageEnded)
        assert (started.stream, started.group, ended.stream, ended.group) == (STREAM, GROUP, STREAM, GROUP)
        assert started.operation
        assert isinstance(started.error, Exception)
        assert ended.seconds == router.counters.total("outage_seconds") > 0


# --- harmless -------------------------------------------------------------------------------------------------------


class Spiteful:
    """Raises at everything it receives."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.received = 0

    def __call__(self, detail: Detail) -> None:
        self.received += 1
        raise self.error


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError()])
@pytest.mark.parametrize("options", [{}, {"concurrency": 4, "order_by": "text"}])
async def test_an_observer_that_raises_at_everything_does_no_harm(
    redis: Redis, caplog: pytest.LogCaptureFixture, error: BaseException, options: dict[str, Any]
) -> None:
    spiteful, reported = Spiteful(error), Recorder()
    router, seen = make_router(redis, observers=[spiteful, reported], max_deliveries=2, **options), list[int]()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number % 3 == 0:
            raise ValueError

    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(30)])
        await until_settled(redis)

    assert len(seen) == 40
    assert spiteful.received == len(reported) == 40 + 40 + 10
    assert len(reported.of(DeadLettered)) == 10
    assert len([record for record in caplog.records if record.name == "rapids.observers"]) == 1


async def test_an_observer_may_ask_the_router_and_stop_it(redis: Redis) -> None:
    totals: list[float] = []

    def observe(detail: Detail) -> None:
        if isinstance(detail, HandlerSucceeded):
            totals.append(router.counters.total("handled"))
            stopping.append(asyncio.ensure_future(router.stop()))

    router, stopping = make_router(redis, observers=[observe]), list["asyncio.Future[None]"]()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: not router.running)
        await asyncio.gather(*stopping)
    assert totals == [1]
