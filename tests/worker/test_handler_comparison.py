"""Consumers of one group with different handlers: each acknowledges what only another has a handler for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventRouter, GenericEvent
from rapids._storage.keys import Source
from rapids._worker import handler_comparison, plan
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    DvPayment,
    DvShipment,
    calls,
    emit_orders,
    make_emitter,
    make_router,
    running,
    until_settled,
)

SOURCE = Source(STREAM, GROUP)


async def ignore(event: Any) -> None:
    """A handler that does nothing."""


def router_with(redis: Redis, consumer: str, targets: Sequence[Any], **options: Any) -> EventRouter:
    """A router with one handler for each target, named after its place."""
    router = make_router(redis, consumer=consumer, **options)
    for at, target in enumerate(targets):
        router.on(target, name=f"handler-{at}")(ignore)
    return router


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if hasattr(record, "other_consumer")]


async def test_a_consumer_that_joins_with_other_handlers_warns_of_both(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    old = router_with(redis, "old", [DvOrder, DvPayment])
    new = router_with(redis, "new", [DvOrder, DvShipment, "order.*"])

    async with running(old), running(new):
        [warned] = warnings_in(caplog)

    assert warned["levelname"] == "WARNING"
    assert (warned["consumer"], warned["other_consumer"]) == ("new", "old")
    assert warned["only_here"] == ["handler-1 (dv.shipment)", "handler-2 (order.*)"]
    assert warned["only_there"] == ["handler-1 (dv.payment)"]
    message = warned["message"]
    for part in (GROUP, "'old'", "'new'", "handler-1 (dv.payment)", "in the same process", "rolling deployment"):
        assert part in message


async def test_a_consumer_that_was_there_first_warns_when_another_joins(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handler_comparison, "INTERVAL", 0.02)
    async with running(router_with(redis, "old", [DvOrder])):
        async with running(router_with(redis, "new", [DvPayment])):
            await eventually(lambda: len(warnings_in(caplog)) == 2)
            assert {warned["consumer"] for warned in warnings_in(caplog)} == {"old", "new"}
            compared = (await calls(redis))["get"]
            await eventually(lambda: _called(redis, "get", compared + 20))
            assert len(warnings_in(caplog)) == 2  # once for each difference
        caplog.clear()
        async with running(router_with(redis, "new", [DvShipment])):
            await eventually(lambda: len(warnings_in(caplog)) == 2)  # another difference


async def _called(redis: Redis, command: str, times: int) -> bool:
    return (await calls(redis))[command] >= times


@pytest.mark.parametrize("targets", [[DvOrder | DvPayment, "order.*"], [GenericEvent, BaseEvent]])
async def test_consumers_with_the_same_handlers_are_no_cause_for_a_warning(
    redis: Redis, caplog: pytest.LogCaptureFixture, targets: list[Any]
) -> None:
    async with running(router_with(redis, "old", targets), router_with(redis, "new", targets, handler_timeout=3.0)):
        pass
    assert warnings_in(caplog) == []


async def test_consumers_that_stopped_or_died_are_not_compared(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    async with running(router_with(redis, "stopped", [DvOrder])):
        assert 0 < await redis.pttl(SOURCE.handlers("stopped")) <= handler_comparison.TTL_MS
    assert await redis.exists(SOURCE.handlers("stopped")) == 0
    await redis.xgroup_createconsumer(STREAM, GROUP, "dead")
    await redis.set(SOURCE.handlers("dead"), orjson.dumps({"process": "p", "handlers": {"a": ["b"]}}), px=60_000)

    async with running(router_with(redis, "new", [DvPayment])):
        pass

    assert warnings_in(caplog) == []


@pytest.mark.parametrize("nonsense", [b"\xff", b"[]", b"{}", b'{"handlers": {"a": 1}, "process": 1}', b"null"])
async def test_what_a_consumer_stored_may_be_anything(
    redis: Redis, caplog: pytest.LogCaptureFixture, nonsense: bytes
) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await redis.xgroup_createconsumer(STREAM, GROUP, "odd")
    await redis.set(SOURCE.consumer("odd"), "token", px=60_000)
    await redis.set(SOURCE.handlers("odd"), nonsense, px=60_000)

    async with running(router_with(redis, "new", [DvOrder])):
        [warned] = warnings_in(caplog)
    assert (warned["only_here"], warned["only_there"]) == (["handler-0 (dv.order)"], [])


async def test_a_key_of_another_kind_is_no_failure(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    await redis.rpush(SOURCE.handlers("new"), "a list")  # SET replaces it
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await redis.xgroup_createconsumer(STREAM, GROUP, "odd")
    await redis.set(SOURCE.consumer("odd"), "token", px=60_000)
    await redis.rpush(SOURCE.handlers("odd"), "a list")
    async with running(router_with(redis, "new", [DvOrder])):
        assert warnings_in(caplog) == []


async def test_many_differences_are_counted(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    many = [f"order.type-{number}" for number in range(15)]
    async with running(router_with(redis, "old", [DvOrder]), router_with(redis, "new", [DvOrder, *many])):
        [warned] = warnings_in(caplog)
    assert "and 5 more are only at 'new', and none only at 'old'" in warned["message"]


async def test_a_type_that_nobody_wants_is_named_once(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rapids")
    emitter = make_emitter(redis)
    unknown = [GenericEvent(raw_type="partner.thing") for _ in range(3)]
    async with running(router := router_with(redis, "one", [DvOrder])):
        await emit_orders(redis, 1, 2)
        await emitter.emit([DvPayment(), DvPayment(), *unknown, DvPayment()])
        await until_settled(redis)

    named = [vars(record) for record in caplog.records if "its events are acknowledged" in record.getMessage()]
    assert [(one["event_type"], one["levelname"]) for one in named] == [
        ("dv.payment", "INFO"),
        ("partner.thing", "INFO"),
    ]
    assert {one["group"] for one in named} == {GROUP}
    assert router.counters.total("ignored") == 6


async def test_of_very_many_types_the_first_are_named(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "MOST_UNWANTED", 3)
    caplog.set_level(logging.INFO, "rapids")
    async with running(router_with(redis, "one", [DvOrder])):
        await make_emitter(redis).emit([GenericEvent(raw_type=f"type.{number}") for number in range(9)])
        await until_settled(redis)

    named = [record.getMessage() for record in caplog.records if "its events are acknowledged" in record.getMessage()]
    assert len(named) == 3
    assert [("further types are not logged" in message) for message in named] == [False, False, True]
