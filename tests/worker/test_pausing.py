"""A group that is paused: nothing is begun, nothing is spent, and nothing comes out of order for it."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventRouter, GroupControl, Pause, current_delivery
from rapids._storage.group_control import Paused
from rapids._storage.keys import Source, audit_log
from rapids.backoff import constant
from rapids.exceptions import GroupNotFoundError, NotConfiguredError, RetryAfter, StreamNotFoundError
from tests.redis.own_server import own_server
from tests.redis.proxy import proxy_to
from tests.servers.builds import Build
from tests.servers.client import connected
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    all_keys,
    as_text,
    blocked,
    calls,
    check_keys,
    make_emitter,
    make_router,
    pending,
    running,
    until_settled,
)

SOURCE = Source(STREAM, GROUP)


class PzTask(BaseEvent):
    number: int = 0
    key: str = ""


class Seen:
    """Routers of one group, and what they ran."""

    def __init__(self, redis: Redis, **options: Any) -> None:
        self.redis = redis
        self.options: dict[str, Any] = {"block_ms": 60_000, "batch_size": 3, **options}
        self.numbers: list[int] = []
        self.deliveries: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.failing: set[int] = set()

    def router(self, name: str, redis: Redis | None = None) -> EventRouter:
        router = make_router(redis or self.redis, consumer=name, **self.options)

        @router.on(PzTask)
        async def handle(event: PzTask) -> None:
            delivery = current_delivery()
            assert delivery is not None
            self.numbers.append(event.number)
            self.deliveries.append(delivery.deliveries)
            if event.number in self.gates:
                await self.gates[event.number].wait()
            if event.number in self.failing:
                self.failing.discard(event.number)
                raise RetryAfter(0.3)

        return router


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rapids")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Routers look ten times a second, so that tests need not wait for that."""
    monkeypatch.setattr("rapids._worker.reclaimer.MAX_PAUSE", 0.1)


@pytest.fixture
def control(redis: Redis) -> GroupControl:
    return GroupControl(redis, STREAM, GROUP)


async def emit(redis: Redis, *numbers: int, key: str = "") -> list[str]:
    return await make_emitter(redis).emit([PzTask(number=number, key=key) for number in numbers])


def said(caplog: pytest.LogCaptureFixture, about: str) -> list[dict[str, Any]]:
    return [
        vars(record) for record in caplog.records if about in record.getMessage() and record.name == "rapids.worker"
    ]


async def paused(caplog: pytest.LogCaptureFixture, routers: int = 1) -> None:
    await eventually(lambda: len(said(caplog, "is paused by")) == routers)


async def looks(redis: Redis, more: int = 4) -> None:
    """Wait until routers have looked so many times whether their group is paused."""

    before = (await calls(redis))["hmget"]
    await eventually(lambda: _is_over(redis, before + more))


async def _is_over(redis: Redis, least: int) -> bool:
    return (await calls(redis))["hmget"] >= least


async def waiting(redis: Redis, count: int) -> bool:
    """Whether so many entries wait for any consumer, with no delivery spent on them."""
    owners = [(as_text(row["consumer"]), row["times_delivered"]) for row in await pending(redis)]
    return owners == [("rapids:waiting", 0)] * count


# --- pausing and resuming -------------------------------------------------------------------------------------------


async def test_every_router_of_the_group_pauses_and_resumes(
    redis: Redis, redis_address: str, control: GroupControl, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(redis)
    async with connected(redis_address) as other, running(seen.router("one"), seen.router("two", other)):
        await control.pause(actor="ada", reason="the bank is down")
        await paused(caplog, 2)
        await emit(redis, *range(10))
        await looks(redis)
        assert seen.numbers == []
        await check_keys(redis)

        await control.resume(actor="bob")
        await until_settled(redis)
        assert sorted(seen.numbers) == list(range(10))
        assert set(seen.deliveries) == {1}
        assert not await redis.exists(SOURCE.paused)
        await eventually(lambda: len(said(caplog, "continues; it was paused by")) == 2)
    logged = [*said(caplog, "is paused by"), *said(caplog, "continues; it was paused by")]
    assert len(logged) == 4
    assert {(record["actor"], record["reason"]) for record in logged} == {("ada", "the bank is down")}
    assert {record["consumer"] for record in logged} == {"one", "two"}


@pytest.mark.usefixtures("often")
async def test_at_a_pause_running_handlers_finish_and_unbegun_entries_are_released(
    redis: Redis, control: GroupControl, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(redis)
    seen.gates[0] = asyncio.Event()
    async with running(seen.router("one")):
        await emit(redis, *range(7))
        await eventually(lambda: seen.numbers)
        await control.pause()
        await paused(caplog)
        await eventually(lambda: _is_handed_back(redis, 1))
        seen.gates[0].set()
        await eventually(lambda: _only_unspent(redis))
        await looks(redis)
        assert seen.numbers == [0]
        await emit(redis, *range(7, 10))

        await control.resume()
        await until_settled(redis)
    assert seen.numbers == list(range(10))
    assert set(seen.deliveries) == {1}


async def _is_handed_back(redis: Redis, running_: int) -> bool:
    rows = await pending(redis)
    return len(rows) > running_ and sum(as_text(row["consumer"]) != "rapids:waiting" for row in rows) == running_


async def _only_unspent(redis: Redis) -> bool:
    return await waiting(redis, len(await pending(redis)))


@pytest.mark.standalone("counts the blocked clients of one server")
@pytest.mark.usefixtures("often")
async def test_a_blocked_read_is_ended(redis: Redis, control: GroupControl, caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen(redis)
    async with running(seen.router("one")):
        await eventually(lambda: _blocked(redis, 1))
        await control.pause()
        await eventually(lambda: _blocked(redis, 0))
        await emit(redis, 1)
        await looks(redis)
        assert await pending(redis) == []


async def _blocked(redis: Redis, count: int) -> bool:
    return await blocked(redis) == count


@pytest.mark.standalone("counts the blocked clients of one server")
@pytest.mark.usefixtures("often")
async def test_entries_of_a_read_that_ends_in_a_pause_are_released(
    redis: Redis, control: GroupControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_late(*_: object) -> None: ...

    seen = Seen(redis)
    monkeypatch.setattr("rapids._worker.reader.Reader.unblock", too_late)
    router = seen.router("one")
    async with running(router):
        await eventually(lambda: _blocked(redis, 1))
        await control.pause()
        await paused(caplog)
        await emit(redis, 1)
        await eventually(lambda: waiting(redis, 1))
        await looks(redis)
        assert (seen.numbers, await waiting(redis, 1)) == ([], True)
        await control.resume()
        await until_settled(redis)
        monkeypatch.undo()
    assert (seen.numbers, seen.deliveries) == ([1], [1])


@pytest.mark.usefixtures("often")
async def test_nothing_is_reclaimed_or_retried_during_a_pause(
    redis: Redis, control: GroupControl, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(redis, claim_min_idle_ms=500, redelivery_backoff=constant(0.1))
    seen.failing, seen.gates[1] = {1}, asyncio.Event()
    async with running(seen.router("one")):
        await emit(redis, 1)
        await eventually(lambda: seen.numbers)
        await control.pause()
        await paused(caplog)
        seen.gates[1].set()  # it fails, and is due again in a moment
        await emit(redis, 2)
        await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})  # and this one is abandoned
        await looks(redis)
        assert seen.numbers == [1]
        await control.resume()
        await until_settled(redis)
    assert sorted(seen.numbers) == [1, 1, 2]


@pytest.mark.usefixtures("often")
async def test_a_router_started_during_a_pause_waits_and_then_recalls_its_entries(
    redis: Redis, control: GroupControl, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(redis)
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await emit(redis, 1)
    await redis.xreadgroup(GROUP, "one", {STREAM: ">"})  # of an earlier life, and not abandoned for long yet
    await emit(redis, 2)
    await control.pause()
    async with running(seen.router("one")):
        await looks(redis)
        assert seen.numbers == []
        await control.resume()
        await until_settled(redis)
        assert sorted(seen.numbers) == [1, 2]
    assert len(said(caplog, "is paused by")) == 1


@pytest.mark.usefixtures("often")
async def test_a_router_stopped_during_a_pause_stops_at_once_and_loses_nothing(
    redis: Redis, control: GroupControl, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(redis)
    async with running(seen.router("one")):
        await control.pause()
        await paused(caplog)
        await emit(redis, 1, 2)
    assert seen.numbers == []
    assert await _only_unspent(redis)
    await control.resume()
    async with running(seen.router("two")):
        await until_settled(redis)
    assert seen.numbers == [1, 2]


@pytest.mark.usefixtures("often")
async def test_a_group_stays_paused_through_an_outage(
    redis: Redis, redis_url: str, control: GroupControl, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(redis, block_ms=500)
    async with (
        proxy_to(redis_url) as proxy,
        Redis.from_url(proxy.url) as through,
        running(seen.router("one", through)),
    ):
        await control.pause()
        await paused(caplog)
        await proxy.refuse()
        await emit(redis, 1)
        await eventually(lambda: said(caplog, "unavailable, retrying"))
        await proxy.accept()
        await eventually(lambda: said(caplog, "Redis is back"))
        await looks(redis)
        assert seen.numbers == []
        await control.resume()
        await until_settled(redis)
    assert seen.numbers == [1]
    assert len(said(caplog, "is paused by")) == 1


@pytest.mark.usefixtures("often")
async def test_a_pause_survives_a_restart_of_the_server_and_of_the_router(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        seen, control = Seen(redis), GroupControl(redis, STREAM, GROUP)
        async with running(seen.router("one")):
            await control.pause(actor="ada")
            await paused(caplog)
        await server.kill()
        await server.start()
        await emit(redis, 1)
        async with running(seen.router("one")):
            await looks(redis)
            assert seen.numbers == []
            await control.resume()
            await until_settled(redis)
    assert seen.numbers == [1]


# --- in order -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("often")
async def test_exclusive_routers_continue_in_order_however_much_is_due(
    redis: Redis, control: GroupControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._worker.pause_state.MAX_WAIT", 0)
    seen = Seen(redis, exclusive=True)
    seen.gates[0] = asyncio.Event()
    async with running(seen.router("one")):
        await emit(redis, *range(8))
        await eventually(lambda: seen.numbers)
        await control.pause()
        await paused(caplog)
        await emit(redis, *range(8, 12))
        seen.gates[0].set()
        await eventually(lambda: _only_unspent(redis))
        await control.resume()
        await until_settled(redis)
    assert seen.numbers == list(range(12))


@pytest.mark.usefixtures("often")
async def test_a_key_still_waits_for_its_redelivered_entry_after_a_pause(
    redis: Redis, control: GroupControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._worker.intake.OVERDUE_GRACE", 0.3)
    count = 350  # more than are looked at to find the oldest of those that are due
    seen = Seen(redis, order_by="key", concurrency=4, batch_size=100)
    seen.failing, seen.gates[0] = {0}, asyncio.Event()
    async with running(seen.router("one")):
        await emit(redis, *range(count), key="k")
        await eventually(lambda: _pend(redis, count))
        await control.pause()
        await paused(caplog)
        await eventually(lambda: _is_handed_back(redis, 1))
        seen.gates[0].set()  # it fails, and is due after those that follow it, which were released
        await looks(redis, 12)  # and would have been overdue by now
        await control.resume()
        await until_settled(redis)
    assert seen.numbers == [0, *range(count)]


async def _pend(redis: Redis, count: int) -> bool:
    return len(await pending(redis)) == count


@pytest.mark.usefixtures("often")
async def test_endless_retries_do_not_prevent_reads_of_new_entries(
    redis: Redis, control: GroupControl, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._worker.pause_state.MAX_WAIT", 0.2)
    handled: list[int] = []
    router = make_router(redis, redelivery_backoff=constant(0), max_deliveries=10**6, batch_size=1)

    @router.on(PzTask)
    async def handle(event: PzTask) -> None:
        handled.append(event.number)
        if event.number == 0:
            raise RetryAfter(0)

    async with running(router):
        await emit(redis, 0, 0, 0)
        await eventually(lambda: len(handled) > 3)
        await control.pause()
        await paused(caplog)
        await emit(redis, 1)
        await control.resume()
        await eventually(lambda: 1 in handled)


# --- the control itself ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("often")
async def test_the_first_pause_counts_and_resuming_returns_it(redis: Redis, control: GroupControl) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    assert await control.paused() is None
    assert await control.resume() is None
    first = await control.pause(actor="ada", reason="é\nwhy")
    assert abs(first.since - datetime.now(UTC)) < timedelta(minutes=1)
    assert (first.actor, first.reason) == ("ada", "é\nwhy")
    assert await control.pause(actor="bob") == first == await control.paused()
    assert await control.resume(actor="bob") == first
    assert await control.paused() is None
    assert await all_keys(redis) == {STREAM, audit_log(STREAM)}


@pytest.mark.usefixtures("often")
async def test_a_missing_group_cannot_be_paused(redis: Redis, control: GroupControl) -> None:
    with pytest.raises(StreamNotFoundError):
        await control.pause()
    await emit(redis, 1)
    with pytest.raises(GroupNotFoundError):
        await control.pause()
    assert await all_keys(redis) == {STREAM}


@pytest.mark.parametrize("fields", [{"since_ms": "soon"}, {"reason": b"\xff"}, {"actor": "ops", "since_ms": "9" * 30}])
@pytest.mark.usefixtures("often")
async def test_a_pause_written_by_hand_holds(redis: Redis, control: GroupControl, fields: dict[Any, Any]) -> None:
    seen = Seen(redis)
    async with running(seen.router("one")):
        await redis.hset(SOURCE.paused, mapping=fields)
        await looks(redis, 2)
        await emit(redis, 1)
        await looks(redis, 2)
        assert seen.numbers == []
        assert isinstance(await control.paused(), Pause)
        await redis.delete(SOURCE.paused)
        await until_settled(redis)


@pytest.mark.parametrize("value", ["x" * 201, "\ud800", None, 3])
@pytest.mark.usefixtures("often")
async def test_the_actor_must_be_a_short_string(control: GroupControl, value: Any) -> None:
    for asking in (control.pause, control.resume):
        with pytest.raises((ValueError, TypeError), match=r"^actor must be a string of at most 200 characters, not"):
            await asking(actor=value)
    with pytest.raises(ValueError, match=r"^reason must be a string of at most 1000 characters, not"):
        await control.pause(reason="x" * 1_001)


@pytest.mark.usefixtures("often")
async def test_a_router_pauses_and_resumes_its_group(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen(redis)
    router = seen.router("one")
    async with running(router):
        await emit(redis, 1)
        await until_settled(redis)
        held = await router.pause(actor="ada", reason="why")
        await paused(caplog)
        await emit(redis, 2)
        assert await router.resume() == held
        await until_settled(redis)
    assert seen.numbers == [1, 2]
    with pytest.raises(NotConfiguredError):
        await EventRouter().pause()


@pytest.mark.parametrize(
    ("paused", "description"),
    [
        (Paused("ada", "a move", 1), "by 'ada': 'a move'"),
        (Paused("", "a\nmove", 1), r"by somebody: 'a\nmove'"),
        (Paused("ada", "", 1), "by 'ada'"),
        (Paused("", "", 0), "by somebody"),
    ],
)
def test_the_log_line_of_a_pause_has_the_given_actor_and_reason(paused: Paused, description: str) -> None:
    assert paused.description == description
