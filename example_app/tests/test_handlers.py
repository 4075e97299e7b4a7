"""The handlers, one event at a time: above all, that running one again does no harm."""

from dataclasses import dataclass, field
from decimal import Decimal

import pytest

from example_app.events import OrderEvent, OrderPlaced, OrderShipped, PaymentProcessed
from example_app.handlers import Fulfilment, fulfilment_router
from example_app.orders import Order, Orders, OrderStatus, get_orders
from example_app.outside import CardDeclinedError, Courier, CourierBusyError, PaymentProvider
from rapids import Event, GenericEvent
from rapids.clients import RedisClient
from rapids.exceptions import NonRetryableError
from rapids.testing import Outcomes, RecordingEmitter, deliver

PLACED = OrderPlaced(order_id="o-1", customer="Ada", items=["lamp"], total=Decimal("48.90"), correlation_id="web-1")
PAID = PaymentProcessed(order_id="o-1", payment_id="pay_1", amount=Decimal("48.90"))


@dataclass
class Shop:
    """The handlers, with what they use."""

    orders: Orders
    payments: PaymentProvider = field(default_factory=lambda: PaymentProvider(latency=0))
    courier: Courier = field(default_factory=lambda: Courier(latency=0))
    emitter: RecordingEmitter = field(default_factory=RecordingEmitter)

    def __post_init__(self) -> None:
        self.router = fulfilment_router(Fulfilment(self.payments, self.courier), "test:orders")
        self.router.dependency_overrides[get_orders] = lambda: self.orders

    async def deliver(self, event: Event) -> Outcomes:
        return await deliver(self.router, event, emitter=self.emitter, probe=self.state)

    async def given(self, **fields: str) -> None:
        order = {"order_id": "o-1", "customer": "Ada", "items": ["lamp"], "total": "48.90", "card": "visa", **fields}
        await self.orders.add(Order.model_validate(order))

    async def order(self) -> Order:
        order = await self.orders.get("o-1")
        assert order is not None
        return order

    async def state(self) -> object:
        """What a second delivery must not change."""
        history = await self.orders.history("o-1")
        return await self.orders.get("o-1"), history, dict(self.payments.charged)


@pytest.fixture
def shop(redis: RedisClient) -> Shop:
    return Shop(Orders(redis, "test"))


async def test_taking_a_payment_charges_the_card_and_says_so(shop: Shop) -> None:
    await shop.given()
    (await shop.deliver(PLACED)).done("take_payment", "audit")
    order = await shop.order()
    assert order.status == OrderStatus.PAID
    assert shop.payments.charged == {order.payment_id: Decimal("48.90")}
    paid = shop.emitter.only(PaymentProcessed, order_id="o-1", payment_id=order.payment_id, amount=Decimal("48.90"))
    assert (paid.causation_id, paid.correlation_id) == (PLACED.id, "web-1")


async def test_taking_a_payment_again_charges_once_and_emits_the_same_event(shop: Shop) -> None:
    await shop.given()
    await shop.deliver(PLACED)
    (await shop.deliver(PLACED)).done("take_payment")
    assert len(shop.payments.charged) == 1
    first, second = shop.emitter.of(PaymentProcessed)
    assert first.id == second.id


async def test_a_crash_between_charging_and_recording_it_charges_once(shop: Shop) -> None:
    await shop.given()
    await shop.deliver(PLACED)
    await shop.orders.update("o-1", payment_id="")
    (await shop.deliver(PLACED)).done("take_payment")
    assert len(shop.payments.charged) == 1


async def test_a_declined_card_is_not_retried_and_leads_to_nothing(shop: Shop) -> None:
    await shop.given(card="declined")
    outcome = (await shop.deliver(PLACED)).dead("take_payment", NonRetryableError)
    assert (outcome.reason, len(outcome.attempts)) == ("non_retryable", 1)
    assert outcome.error is not None
    assert isinstance(outcome.error.__cause__, CardDeclinedError)
    assert (await shop.order()).status == OrderStatus.PAYMENT_DECLINED
    assert not shop.payments.charged
    shop.emitter.nothing()


async def test_a_new_card_pays_the_same_order(shop: Shop) -> None:
    await shop.given(card="declined", declined="insufficient funds")
    await shop.orders.update("o-1", card="visa")
    (await shop.deliver(PLACED)).done("take_payment")
    assert (await shop.order()).status == OrderStatus.PAID


async def test_a_late_payment_does_not_turn_a_shipped_order_back(shop: Shop) -> None:
    await shop.given(payment_id="pay_1", tracking_number="1Z")
    (await shop.deliver(PLACED)).done("take_payment")
    assert (await shop.order()).status == OrderStatus.SHIPPED


async def test_shipping_emits_the_tracking_number(shop: Shop) -> None:
    await shop.given(payment_id="pay_1")
    (await shop.deliver(PAID)).done("ship")
    order = await shop.order()
    assert order.status == OrderStatus.SHIPPED
    assert shop.emitter.only(OrderShipped, tracking_number=order.tracking_number).causation_id == PAID.id


async def test_shipping_again_books_no_second_van_and_emits_the_same_event(shop: Shop) -> None:
    await shop.given(payment_id="pay_1")
    await shop.deliver(PAID)
    await shop.deliver(PAID)
    assert shop.courier.requests == 1
    first, second = shop.emitter.of(OrderShipped)
    assert first.id == second.id


async def test_a_busy_courier_is_asked_again(shop: Shop) -> None:
    await shop.given(payment_id="pay_1")
    shop.courier.requests = 1  # it is busy at the second request
    outcomes = await shop.deliver(PAID)
    outcomes.done("ship")
    busy, booked = outcomes["ship"].attempts
    assert isinstance(busy.error, CourierBusyError)
    assert (busy.delivery, booked.delivery, booked.error) == (1, 1, None)
    assert (await shop.order()).status == OrderStatus.SHIPPED
    shop.emitter.only(OrderShipped)


@pytest.mark.parametrize(("event", "handler"), [(PLACED, "take_payment"), (PAID, "ship")])
async def test_an_unknown_order_is_not_retried(shop: Shop, event: OrderEvent, handler: str) -> None:
    outcome = (await shop.deliver(event)).dead(handler, NonRetryableError)
    assert (str(outcome.error), len(outcome.attempts)) == ("there is no order o-1", 1)


async def test_the_audit_has_each_event_once_however_often_it_comes(shop: Shop) -> None:
    await shop.given()
    shipped = OrderShipped(order_id="o-1", tracking_number="1Z")
    for event in (PLACED, shipped, PLACED, shipped):
        (await shop.deliver(event)).done("audit")
    history = await shop.orders.history("o-1")
    assert [(line.event_id, line.event_type) for line in history] == [
        (PLACED.id, "order.placed"),
        (shipped.id, "order.shipped"),
    ]
    assert history[0].correlation_id == "web-1"


async def test_the_audit_skips_events_of_unknown_types(shop: Shop) -> None:
    (await shop.deliver(GenericEvent(raw_type="order.returned", data={"order_id": "o-1"}))).done("audit")
    assert await shop.orders.history("o-1") == []
