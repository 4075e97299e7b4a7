"""Several handlers at a time: how many, in which order, and what a failure delays."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventRouter, GenericEvent, current_delivery, get_causation_id
from rapids.backoff import constant
from rapids.delivery import UnderWay
from rapids.exceptions import NonRetryableError
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    as_text,
    check_keys,
    letters,
    make_emitter,
    make_router,
    pending,
    running,
    until_settled,
)


class CoTask(BaseEvent):
    key: str | None = None
    number: int = 0


class Work:
    """A handler that a test can hold; it records what ran at the same time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.begun: defaultdict[str | None, list[int]] = defaultdict(list)
        self.ended: list[int] = []
        self.under_way: list[CoTask] = []
        self.most = 0
        self.most_of_a_key = 0
        self.gates: dict[int, asyncio.Event] = {}
        self.fails: Counter[int] = Counter()

    def hold(self, number: int) -> asyncio.Event:
        return self.gates.setdefault(number, asyncio.Event())

    async def __call__(self, event: CoTask) -> None:
        self.begun[event.key].append(event.number)
        self.under_way.append(event)
        self.most = max(self.most, len(self.under_way))
        of_key = Counter(one.key for one in self.under_way if one.key is not None)
        self.most_of_a_key = max(self.most_of_a_key, *of_key.values(), 0)
        try:
            if event.number in self.gates:
                await self.gates[event.number].wait()
            await asyncio.sleep(self.seconds)
            assert get_causation_id() == event.id
            if self.fails[event.number] > 0:
                self.fails[event.number] -= 1
                raise ValueError(event.number)
            self.ended.append(event.number)
        finally:
            self.under_way.remove(event)


def ordered_router(redis: Redis, work: Any, **options: Any) -> EventRouter:
    router = make_router(redis, **{"concurrency": 8, "order_by": "key", "batch_size": 10} | options)
    router.on(CoTask, name="work")(work)
    return router


async def emit(redis: Redis, *tasks: tuple[str | None, int]) -> list[str]:
    return await make_emitter(redis).emit([CoTask(key=key, number=number) for key, number in tasks])


# --- how many -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2, 7])
async def test_no_more_than_the_limit_run_at_the_same_time(redis: Redis, concurrency: int) -> None:
    work = Work(0.002)
    async with running(ordered_router(redis, work, concurrency=concurrency, order_by=None)):
        await emit(redis, *((None, number) for number in range(100)))
        await until_settled(redis)
    assert sorted(work.ended) == list(range(100))
    assert work.most == concurrency
    await check_keys(redis)


async def test_each_handler_has_its_own_time_limit(redis: Redis) -> None:
    work = Work()
    work.hold(1)
    router = make_router(redis, concurrency=4, max_deliveries=1)
    router.on(CoTask, name="work", timeout=1.0)(work)
    async with running(router):
        await emit(redis, ("a", 0), ("b", 1), ("c", 2))
        await until_settled(redis)
    assert sorted(work.ended) == [0, 2]
    [letter] = await letters(redis)
    assert letter[b"error_type"] == b"rapids.exceptions.HandlerTimeoutError"


async def test_each_handler_knows_its_own_delivery(redis: Redis) -> None:
    seen: dict[str, str] = {}
    router = make_router(redis, concurrency=10)

    @router.on(CoTask)
    async def handle(event: CoTask) -> None:
        await asyncio.sleep(0.001 * (event.number % 3))
        delivery = current_delivery()
        assert delivery is not None
        assert delivery.event is event
        seen[event.id] = delivery.entry_id

    async with running(router):
        ids = await emit(redis, *(("a", number) for number in range(50)))
        await until_settled(redis)
    assert sorted(seen.values()) == sorted(ids)


# --- in which order -------------------------------------------------------------------------------------------------


async def test_one_key_runs_in_order_and_different_keys_run_concurrently(redis: Redis) -> None:
    work = Work(0.001)
    async with running(ordered_router(redis, work)):
        await emit(redis, *((f"k{number % 10}", number) for number in range(300)))
        await until_settled(redis)
    assert work.most == 8
    assert work.most_of_a_key == 1
    for number in range(10):
        assert work.begun[f"k{number}"] == list(range(number, 300, 10))
    await check_keys(redis)


async def test_a_slow_key_does_not_delay_other_keys(redis: Redis) -> None:
    work = Work()
    gate = work.hold(0)
    async with running(ordered_router(redis, work, concurrency=2)):
        await emit(redis, ("slow", 0), *(("slow", number) for number in range(1, 6)))
        await emit(redis, *((f"k{number}", number) for number in range(10, 30)))
        await eventually(lambda: len(work.ended) == 20)
        assert work.begun["slow"] == [0]
        gate.set()
        await until_settled(redis)
    assert work.begun["slow"] == [0, 1, 2, 3, 4, 5]


async def test_without_a_key_there_is_no_order(redis: Redis) -> None:
    work = Work()
    gate = work.hold(0)
    async with running(ordered_router(redis, work)):
        await emit(redis, (None, 0), (None, 1))
        await eventually(lambda: work.ended == [1])
        gate.set()


async def test_order_by_a_function_and_of_events_without_a_class(redis: Redis) -> None:
    begun: list[int] = []
    gate = asyncio.Event()
    router = make_router(redis, concurrency=4, order_by=lambda event: event.metadata["tenant"])

    @router.on("co_*.*")
    async def handle(event: GenericEvent) -> None:
        begun.append(event.data["number"])
        await gate.wait()

    emitter = make_emitter(redis)
    async with running(router):
        for number, tenant in enumerate(["x", "x", "y"]):
            await emitter.emit(
                GenericEvent(raw_type="co_generic.made", data={"number": number}, metadata={"tenant": tenant})
            )
        await eventually(lambda: begun == [0, 2])
        gate.set()
        await until_settled(redis)
    assert begun == [0, 2, 1]

    by_name = make_router(redis, concurrency=4, order_by="number", group="by-name")
    by_name.on("co_*.*")(handle)
    async with running(by_name):
        await until_settled(redis, group="by-name")


@pytest.mark.parametrize(
    ("order_by", "error"),
    [(lambda event: event.no_such_field, b"AttributeError"), (lambda event: [event.number], b"TypeError")],
)
async def test_an_entry_whose_key_cannot_be_computed_is_a_dead_letter(
    redis: Redis, order_by: Any, error: bytes
) -> None:
    work = Work()
    async with running(ordered_router(redis, work, order_by=order_by)):
        await emit(redis, ("a", 1))
        await until_settled(redis)
    [letter] = await letters(redis)
    assert (letter[b"error_type"], letter[b"reason"], letter[b"handler"]) == (error, b"non_retryable", b"")
    assert work.ended == []


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"concurrency": 0}, ValueError, "concurrency must be a whole number of 1 or more, not 0"),
        ({"concurrency": 1.5}, TypeError, "concurrency"),
        ({"order_by": 5}, TypeError, "order_by must be a field's name or a plain function"),
        ({"order_by": "no name"}, ValueError, "order_by must be a field's name or a plain function"),
        ({"retry_blocks_key": 1}, TypeError, "retry_blocks_key must be True or False, not 1"),
        ({"exclusive": "yes"}, TypeError, "exclusive must be True or False, not 'yes'"),
    ],
)
def test_invalid_options_are_refused_at_construction(
    options: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        EventRouter(**options)


# --- what a failure holds up ----------------------------------------------------------------------------------------


async def test_a_retry_delays_only_its_own_key(redis: Redis) -> None:
    work = Work()
    work.fails[0] = 2
    async with running(ordered_router(redis, work, redelivery_backoff=constant(0.3))):
        await emit(redis, ("a", 0), ("a", 1), ("b", 2), ("a", 3))
        await eventually(lambda: work.ended == [2])
        await emit(redis, ("a", 4), ("b", 5))
        await eventually(lambda: work.ended == [2, 5])
        assert work.begun["a"] in ([0], [0, 0])
        await until_settled(redis)
    assert work.begun["a"] == [0, 0, 0, 1, 3, 4]
    await check_keys(redis)


async def test_a_key_continues_after_its_first_entry_is_dead(redis: Redis) -> None:
    work = Work()
    work.fails[0] = 9
    async with running(ordered_router(redis, work, max_deliveries=2)):
        await emit(redis, ("a", 0), ("a", 1))
        await until_settled(redis)
    assert work.begun["a"] == [0, 0, 1]
    assert len(await letters(redis)) == 1


async def test_a_retry_delays_nothing_on_request(redis: Redis) -> None:
    work = Work()
    work.fails[0] = 1
    router = ordered_router(redis, work, redelivery_backoff=constant(0.5), retry_blocks_key=False)
    async with running(router):
        await emit(redis, ("a", 0), ("a", 1), ("a", 2))
        await until_settled(redis)
    assert work.begun["a"] == [0, 1, 2, 0]


async def test_a_retry_that_another_consumer_takes_is_not_waited_for_longer_than_that(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._worker.intake.OVERDUE_GRACE", 0.2)
    work = Work()
    work.fails[0] = 1
    async with running(ordered_router(redis, work, redelivery_backoff=constant(0.3))):
        [taken, _] = await emit(redis, ("a", 0), ("a", 1))
        await eventually(lambda: _waits(redis, taken))
        await redis.xclaim(STREAM, GROUP, "another", 0, [taken])
        await eventually(lambda: work.ended == [1])
        await redis.xack(STREAM, GROUP, taken)


async def _waits(redis: Redis, entry_id: str) -> bool:
    return [row["consumer"] for row in await pending(redis) if as_text(row["message_id"]) == entry_id] == [
        b"rapids:waiting"
    ]


# --- what waits in lanes --------------------------------------------------------------------------------------------


async def test_a_stop_releases_entries_in_lanes_without_spending_a_delivery(redis: Redis) -> None:
    work = Work()
    gate = work.hold(0)
    router = ordered_router(redis, work)
    async with running(router):
        await emit(redis, *(("a", number) for number in range(8)))
        await eventually(lambda: work.begun["a"] == [0])
        stopping = asyncio.create_task(router.stop())
        gate.set()
        await stopping
    assert all(row["times_delivered"] == 0 for row in await pending(redis))
    async with running(ordered_router(redis, work)):
        await until_settled(redis)
    assert sorted(work.ended) == list(range(8))
    await check_keys(redis)


async def test_a_long_lane_keeps_only_ids(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._worker.intake.MAX_IN_LANES", 60)
    work = Work()
    gate = work.hold(0)
    async with running(ordered_router(redis, work, concurrency=2, batch_size=5)):
        ids = await emit(redis, *(("a", number) for number in range(200)))
        await eventually(lambda: _all_pending(redis, at_least=60))
        held = len(await pending(redis))
        assert held <= 60 + 2 * 5 + 2, "more were read than may wait"
        await redis.xdel(STREAM, ids[30])
        with caplog.at_level(logging.ERROR):
            gate.set()
            await until_settled(redis)
    assert work.begun["a"] == [number for number in range(200) if number != 30]
    assert ids[30] in str([vars(record).get("lost") for record in caplog.records])
    await check_keys(redis)


async def _all_pending(redis: Redis, at_least: int) -> bool:
    return len(await pending(redis)) >= at_least


async def test_unreadable_and_unhandled_entries_are_settled_without_a_key(redis: Redis) -> None:
    work = Work()
    async with running(ordered_router(redis, work)):
        await redis.xadd(STREAM, {"event_type": "co.task", "data": "junk"})
        await redis.xadd(STREAM, {"event_type": "nobody.listens", "data": "{}"})
        await emit(redis, ("a", 1))
        await until_settled(redis)
    assert work.ended == [1]
    assert [letter[b"reason"] for letter in await letters(redis)] == [b"deserialization_error"]


async def test_a_refused_entry_lets_its_key_continue(redis: Redis) -> None:
    seen: list[int] = []
    router = make_router(redis, concurrency=3, order_by="key")

    @router.on(CoTask)
    async def handle(event: CoTask) -> None:
        seen.append(event.number)
        if event.number == 1:
            raise NonRetryableError("no")

    async with running(router):
        await emit(redis, ("a", 1), ("a", 2), ("a", 3))
        await until_settled(redis)
    assert seen == [1, 2, 3]


async def test_an_internal_error_does_not_stop_its_lane(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    work, broken = Work(), asyncio.Event()
    gate = work.hold(0)

    def under_way(event: CoTask, *others: Any) -> UnderWay:
        if event.number == 1 and not broken.is_set():
            broken.set()
            raise RuntimeError("a fault of ours")
        return UnderWay(event, *others)

    monkeypatch.setattr("rapids._worker.executor.UnderWay", under_way)
    async with running(ordered_router(redis, work)):
        await emit(redis, ("a", 0), ("a", 1), ("a", 2))
        await eventually(lambda: work.begun["a"] == [0])
        gate.set()
        await eventually(lambda: work.ended[:2] == [0, 2])
    assert "failed and is restarted" in caplog.text
