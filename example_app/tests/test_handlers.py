"""The handlers, one by one and without a server: above all, that running one again does no harm."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

from example_app.events import OrderPlaced, OrderShipped, PaymentProcessed
from example_app.handlers import Fulfilment, fulfilment_router
from example_app.orders import Order, Orders, OrderStatus
from example_app.outside import Courier, CourierBusyError, PaymentProvider
from rapids import Event, EventEmitter, GenericEvent, get_causation_id
from rapids.correlation import CorrelationScope
from rapids.exceptions import NonRetryableError

PLACED = OrderPlaced(order_id="o-1", customer="Ada", items=["lamp"], total=Decimal("48.90"), correlation_id="web-1")
PAID = PaymentProcessed(order_id="o-1", payment_id="pay_1", amount=Decimal("48.90"))


class Outbox(EventEmitter):
    """Keeps what is emitted."""

    def __init__(self) -> None:
        super().__init__()
        self.emitted: list[tuple[Event, str | None]] = []

    async def emit(self, event: Event | Sequence[Event], *, caused_by: Event | None = None) -> Any:
        assert isinstance(event, Event)
        self.emitted.append((event, caused_by.id if caused_by else get_causation_id()))


@dataclass
class Work:
    """The handlers, called as the router calls them, with their dependencies."""

    payments: PaymentProvider = field(default_factory=lambda: PaymentProvider(latency=0))
    courier: Courier = field(default_factory=lambda: Courier(latency=0))
    orders: Orders = field(default_factory=lambda: Orders(FakeAsyncRedis(), "test"))
    emitter: Outbox = field(default_factory=Outbox)

    @property
    def handlers(self) -> Fulfilment:
        return Fulfilment(self.payments, self.courier)

    async def take_payment(self, event: OrderPlaced) -> None:
        async with CorrelationScope.handling(event.correlation_id, event.id):
            await self.handlers.take_payment(event, self.orders, self.emitter)

    async def ship(self, event: PaymentProcessed) -> None:
        async with CorrelationScope.handling(event.correlation_id, event.id):
            await self.handlers.ship(event, self.orders, self.emitter)

    async def audit(self, event: Event) -> None:
        await self.handlers.audit(event, self.orders)


@pytest.fixture
def work() -> Work:
    return Work()


async def given(work: Work, **fields: str) -> None:
    order = {"order_id": "o-1", "customer": "Ada", "items": ["lamp"], "total": "48.90", "card": "visa", **fields}
    await work.orders.add(Order.model_validate(order))


async def state(work: Work) -> Order:
    order = await work.orders.get("o-1")
    assert order is not None
    return order


def emitted(work: Work) -> list[tuple[Event, str | None]]:
    return work.emitter.emitted


async def test_taking_a_payment_charges_the_card_and_says_so(work: Work) -> None:
    await given(work)
    await work.take_payment(PLACED)
    order = await state(work)
    assert order.status == OrderStatus.PAID
    assert work.payments.charged == {order.payment_id: Decimal("48.90")}
    [(event, cause)] = emitted(work)
    assert isinstance(event, PaymentProcessed)
    assert (event.order_id, event.payment_id, event.amount) == ("o-1", order.payment_id, Decimal("48.90"))
    assert cause == PLACED.id


async def test_taking_a_payment_again_charges_once_and_emits_the_same_event(work: Work) -> None:
    await given(work)
    await work.take_payment(PLACED)
    await work.take_payment(PLACED)
    assert len(work.payments.charged) == 1
    (first, _), (second, _) = emitted(work)
    assert first.id == second.id


async def test_a_crash_between_charging_and_recording_it_charges_once(work: Work) -> None:
    await given(work)
    await work.take_payment(PLACED)
    await work.orders.update("o-1", payment_id="")
    await work.take_payment(PLACED)
    assert len(work.payments.charged) == 1


async def test_a_declined_card_is_not_retried_and_leads_to_nothing(work: Work) -> None:
    await given(work, card="declined")
    with pytest.raises(NonRetryableError, match="card declined: insufficient funds"):
        await work.take_payment(PLACED)
    assert (await state(work)).status == OrderStatus.PAYMENT_DECLINED
    assert not work.payments.charged
    assert not emitted(work)


async def test_a_new_card_pays_the_same_order(work: Work) -> None:
    await given(work, card="declined", declined="insufficient funds")
    await work.orders.update("o-1", card="visa")
    await work.take_payment(PLACED)
    assert (await state(work)).status == OrderStatus.PAID


async def test_a_late_payment_does_not_turn_a_shipped_order_back(work: Work) -> None:
    await given(work, payment_id="pay_1", tracking_number="1Z")
    await work.take_payment(PLACED)
    assert (await state(work)).status == OrderStatus.SHIPPED


async def test_shipping_emits_the_tracking_number(work: Work) -> None:
    await given(work, payment_id="pay_1")
    await work.ship(PAID)
    order = await state(work)
    assert order.status == OrderStatus.SHIPPED
    [(event, cause)] = emitted(work)
    assert isinstance(event, OrderShipped)
    assert (event.tracking_number, cause) == (order.tracking_number, PAID.id)


async def test_shipping_again_books_no_second_van_and_emits_the_same_event(work: Work) -> None:
    await given(work, payment_id="pay_1")
    await work.ship(PAID)
    await work.ship(PAID)
    assert work.courier.requests == 1
    (first, _), (second, _) = emitted(work)
    assert first.id == second.id


async def test_a_busy_courier_is_retried_by_the_router(work: Work) -> None:
    await given(work, payment_id="pay_1")
    work.courier.requests = 1  # it is busy at the second request
    with pytest.raises(CourierBusyError):
        await work.ship(PAID)
    assert (await state(work)).status == OrderStatus.PAID
    assert not emitted(work)
    await work.ship(PAID)
    assert (await state(work)).status == OrderStatus.SHIPPED


@pytest.mark.parametrize("handler", ["take_payment", "ship"])
async def test_an_unknown_order_is_not_retried(work: Work, handler: str) -> None:
    event = PLACED if handler == "take_payment" else PAID
    with pytest.raises(NonRetryableError, match="there is no order o-1"):
        await getattr(work, handler)(event)


async def test_the_audit_has_each_event_once_however_often_it_comes(work: Work) -> None:
    shipped = OrderShipped(order_id="o-1", tracking_number="1Z")
    for event in (PLACED, shipped, PLACED, shipped):
        await work.audit(event)
    history = await work.orders.history("o-1")
    assert [(line.event_id, line.event_type) for line in history] == [
        (PLACED.id, "order.placed"),
        (shipped.id, "order.shipped"),
    ]
    assert history[0].correlation_id == "web-1"


async def test_the_audit_skips_events_of_unknown_types(work: Work) -> None:
    await work.audit(GenericEvent(raw_type="order.returned", data={"order_id": "o-1"}))
    assert await work.orders.history("o-1") == []


def test_the_router_can_be_made_before_there_is_a_server(work: Work) -> None:
    router = fulfilment_router(work.handlers, "test:orders")
    assert (router.stream, router.group, router.running) == ("test:orders", "fulfilment", False)
