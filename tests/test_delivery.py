"""What a handler is given: which events, in which order, inside which middleware, and what it can know about them."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, Union

import pytest
from redis.asyncio import Redis

from rapids import (
    BaseEvent,
    Delivery,
    Event,
    EventRouter,
    GenericEvent,
    current_delivery,
    get_causation_id,
    get_correlation_id,
)
from rapids.exceptions import NonRetryableError
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    DvPayment,
    DvShipment,
    add,
    as_text,
    check_keys,
    consumers,
    letters,
    make_emitter,
    make_router,
    running,
    until_settled,
)


async def run(router: EventRouter, redis: Redis, *events: Event) -> list[str]:
    """Emit events to a running router, and wait until the group is done with them."""
    async with running(router):
        ids = await make_emitter(redis).emit(list(events))
        await until_settled(redis)
    await check_keys(redis)
    return ids


# --- which events ---------------------------------------------------------------------------------------------------


class DvDocument(BaseEvent):
    _skip_registration: ClassVar[bool] = True
    document: str = "d"


class DvDocumentCreated(DvDocument):
    pass


class DvDocumentDeleted(DvDocument):
    pass


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (DvDocumentCreated, ["dv_document.created"]),
        (DvDocument, ["dv_document.created", "dv_document.deleted"]),
        (BaseEvent, ["dv_document.created", "dv_document.deleted", "dv.order"]),
        (Event, ["dv_document.created", "dv_document.deleted", "dv.order", "legacy.document.moved"]),
        (GenericEvent, ["legacy.document.moved"]),
        (DvDocumentCreated | DvOrder, ["dv_document.created", "dv.order"]),
        (Union[DvDocumentDeleted, DvOrder], ["dv_document.deleted", "dv.order"]),  # noqa: UP007 - that is the point
        ("dv_document.*", ["dv_document.created", "dv_document.deleted"]),
        ("*", ["dv_document.created", "dv_document.deleted", "dv.order", "legacy.document.moved"]),
        ("legacy.*", []),
        ("legacy.**", ["legacy.document.moved"]),
        ("*.*.moved", ["legacy.document.moved"]),
    ],
)
async def test_a_handler_gets_the_events_of_its_target(redis: Redis, target: Any, expected: list[str]) -> None:
    router, seen = make_router(redis), []

    @router.on(target)
    async def handle(event: Event) -> None:
        seen.append(event.routing_key)

    unknown = GenericEvent(raw_type="legacy.document.moved", data={"to": "there"})
    await run(router, redis, DvDocumentCreated(), DvDocumentDeleted(), DvOrder(), unknown)
    assert seen == expected


async def test_a_class_defined_later_reaches_the_handler_of_its_base(redis: Redis) -> None:
    router, seen = make_router(redis), []

    @router.on(DvDocument)
    async def handle(event: DvDocument) -> None:
        seen.append((type(event).__name__, event.document))

    class DvDocumentRenamed(DvDocument):
        pass

    await run(router, redis, DvDocumentRenamed(document="x"))
    assert seen == [("DvDocumentRenamed", "x")]


async def test_an_event_arrives_as_it_was_emitted(redis: Redis) -> None:
    router, seen = make_router(redis), []
    router.on(DvOrder)(_collect(seen))
    event = DvOrder(number=2**53, text="é\x00\n\"'", correlation_id="c", causation_id="b", metadata={"a": [None, 1.5]})
    await run(router, redis, event)
    assert seen == [event]


async def test_an_unknown_type_arrives_as_a_generic_event(redis: Redis) -> None:
    router, seen = make_router(redis), []
    router.on(GenericEvent)(_collect(seen))
    event = GenericEvent(raw_type="dv.unheard_of", data={"a": {"b": [1]}}, correlation_id="c")
    await run(router, redis, event)
    assert seen == [event]


async def test_events_without_a_handler_are_acknowledged(redis: Redis) -> None:
    router, seen = make_router(redis), []
    router.on(DvOrder)(_collect(seen))
    await run(router, redis, DvPayment(), GenericEvent(raw_type="dv.unheard_of"), DvOrder(number=1))
    assert [event.number for event in seen] == [1]
    assert await letters(redis) == []


async def test_an_event_without_a_handler_need_not_be_readable(redis: Redis) -> None:
    router, seen = make_router(redis), []
    router.on(DvOrder)(_collect(seen))
    async with running(router):
        await add(redis, [b"event_type", b"dv.payment", b"data", b"\xff not JSON"])
        await until_settled(redis)
    assert await letters(redis) == []


async def test_events_are_handled_in_the_order_of_the_stream(redis: Redis) -> None:
    router, seen = make_router(redis, batch_size=7), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await asyncio.sleep(0)
        seen.append(event.number)

    await run(router, redis, *(DvOrder(number=number) for number in range(500)))
    assert seen == list(range(500))


async def test_no_read_takes_more_than_batch_size(redis: Redis) -> None:
    router, held = make_router(redis, batch_size=3), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        if not held:
            await eventually(lambda: _holds(redis, 4))  # the reader reads ahead
        held.append(sum((await consumers(redis)).values()))

    await run(router, redis, *(DvOrder() for _ in range(30)))
    # One batch may wait while another arrives, besides the one being handled and settlements under way.
    assert 3 < max(held) <= 3 * 3 + 1


async def _holds(redis: Redis, at_least: int) -> bool:
    return sum((await consumers(redis)).values()) >= at_least


# --- several handlers -----------------------------------------------------------------------------------------------


async def test_handlers_run_in_order_of_registration(redis: Redis) -> None:
    router, seen = make_router(redis), []
    for name, target in [("third", "*"), ("first", DvOrder), ("second", "dv.*")]:

        @router.on(target, name=name)
        async def handle(event: Any, name: str = name) -> None:
            seen.append(name)

    await run(router, redis, DvOrder())
    assert seen == ["third", "first", "second"]


async def test_a_handler_that_fails_neither_stops_nor_repeats_the_others(redis: Redis) -> None:
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def before(event: DvOrder) -> None:
        seen.append("before")

    @router.on(DvOrder)
    async def failing(event: DvOrder) -> None:
        seen.append("failing")
        if seen.count("failing") < 3:
            raise ValueError

    @router.on(DvOrder)
    async def after(event: DvOrder) -> None:
        seen.append("after")

    await run(router, redis, DvOrder())
    assert seen == ["before", "failing", "after", "failing", "failing"]
    assert await letters(redis) == []


async def test_each_dead_handler_has_its_own_letter(redis: Redis) -> None:
    router, seen = make_router(redis, max_deliveries=2), []

    @router.on(DvOrder)
    async def never(event: DvOrder) -> None:
        seen.append("never")
        raise NonRetryableError("never")

    @router.on(DvOrder)
    async def tries(event: DvOrder) -> None:
        seen.append("tries")
        raise ValueError("tried")

    @router.on(DvOrder)
    async def works(event: DvOrder) -> None:
        seen.append("works")

    await run(router, redis, DvOrder())

    assert seen == ["never", "tries", "works", "tries"]
    found = [(as_text(letter[b"handler"]), as_text(letter[b"error"])) for letter in await letters(redis)]
    assert found == [("never", "never"), ("tries", "tried")]


async def test_a_handler_that_waits_for_its_next_delivery_delays_no_other_entry(redis: Redis) -> None:
    router, seen = make_router(redis, redelivery_backoff=lambda failures: 0.3), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if seen == [1]:
            raise ValueError

    await run(router, redis, *(DvOrder(number=number) for number in (1, 2, 3)))
    assert seen == [1, 2, 3, 1]


async def test_two_groups_each_get_everything(redis: Redis) -> None:
    seen: list[str] = []
    routers = [make_router(redis, group=f"{GROUP}{number}") for number in (1, 2)]
    for router in routers:

        @router.on(DvOrder)
        async def handle(event: DvOrder, group: str = router.group) -> None:
            seen.append(group)

    async with running(*routers):
        await make_emitter(redis).emit(DvOrder())
        for router in routers:
            await until_settled(redis, group=router.group)
    assert sorted(seen) == [f"{GROUP}1", f"{GROUP}2"]


async def test_two_consumers_of_a_group_share_its_events(redis: Redis) -> None:
    seen: dict[str, list[int]] = {}
    both = asyncio.Event()
    routers = [make_router(redis, batch_size=1) for _ in range(2)]

    async def handle(event: DvOrder) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.setdefault(delivery.consumer, []).append(event.number)
        if len(seen) == 2:
            both.set()
        await both.wait()

    for router in routers:
        router.on(DvOrder)(handle)
    async with running(*routers):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(60)])
        await until_settled(redis)
    assert len(seen) == 2
    assert sorted(number for numbers in seen.values() for number in numbers) == list(range(60))


# --- what it can know -----------------------------------------------------------------------------------------------


async def test_current_delivery_describes_the_entry(redis: Redis) -> None:
    router, seen = make_router(redis, consumer="worker-1"), []

    @router.on(DvOrder, retries=1, name="by-name")
    async def handle(event: DvOrder) -> None:
        seen.append(current_delivery())
        if len(seen) < 4:
            raise ValueError

    event = DvOrder(number=5)
    [entry_id] = await run(router, redis, event)

    assert [(delivery.deliveries, delivery.attempt) for delivery in seen] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert seen[0] == Delivery(
        event=event,
        handler="by-name",
        stream=STREAM,
        group=GROUP,
        consumer="worker-1",
        entry_id=entry_id,
        deliveries=1,
        attempt=1,
        replay_of=None,
    )
    assert current_delivery() is None


async def test_tasks_of_a_handler_know_the_delivery_too(redis: Redis) -> None:
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        async def inner() -> None:
            seen.append(current_delivery() is not None and get_correlation_id() == event.id)

        await asyncio.gather(inner(), asyncio.create_task(inner()))

    await run(router, redis, DvOrder())
    assert seen == [True, True]


@pytest.mark.parametrize("correlation_id", ["request-1", None])
async def test_the_scope_inside_a_handler_is_that_of_its_event(redis: Redis, correlation_id: str | None) -> None:
    """An event without a correlation id starts a correlation named by its id."""
    router, seen, emitted = make_router(redis), [], []
    emitter = make_emitter(redis)

    @router.on(DvOrder)
    async def pay(event: DvOrder) -> None:
        seen.append((get_correlation_id(), get_causation_id()))
        await emitter.emit(DvPayment())

    @router.on(DvPayment)
    async def ship(event: DvPayment) -> None:
        emitted.append(event)
        await emitter.emit(DvShipment(), caused_by=event)

    router.on(DvShipment)(_collect(emitted))
    event = DvOrder(correlation_id=correlation_id)
    async with running(router):
        await emitter.emit(event)
        await eventually(lambda: len(emitted) == 2)

    expected = correlation_id or event.id
    assert seen == [(expected, event.id)]
    payment, shipment = emitted
    assert (payment.correlation_id, payment.causation_id) == (expected, event.id)
    assert (shipment.correlation_id, shipment.causation_id) == (expected, payment.id)
    assert get_correlation_id() is None


def _collect(into: list[Any]) -> Any:
    async def collect(event: Event) -> None:
        into.append(event)

    return collect
