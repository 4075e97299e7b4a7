"""What the service does when something happens to an order.

Events are delivered at least once: a process that dies before Redis has its acknowledgement, and every replay, means
that a handler runs again on the same event. So each handler here may be repeated at any point:

- what it asks of others carries a key that makes the repetition harmless (`idempotency_key`, or the order id);
- what it finds done already it does not do again;
- what it emits has the same id each time (`follow_up_id`), and emitting comes last, so that it cannot be left out.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from example_app.events import OrderEvent, OrderPlaced, OrderShipped, PaymentProcessed, follow_up_id
from example_app.orders import Order, Orders
from example_app.outside import CardDeclinedError, Courier, CourierBusyError, PaymentProvider
from rapids import Event, EventEmitter, EventRouter, HandlerMiddleware
from rapids.backoff import linear
from rapids.exceptions import NonRetryableError

__all__ = ["GROUP", "Fulfilment", "fulfilment_router"]

GROUP = "fulfilment"
"""The consumer group: all processes of this service share the work under this name."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fulfilment:
    """The handlers, and what they work with."""

    emitter: EventEmitter
    orders: Orders
    payments: PaymentProvider
    courier: Courier

    async def take_payment(self, event: OrderPlaced) -> None:
        """Charge the customer's card."""
        order = await self._order(event)
        payment_id = order.payment_id or await self._charge(order)
        await self.emitter.emit(
            PaymentProcessed(
                id=follow_up_id(event, PaymentProcessed),
                order_id=order.order_id,
                payment_id=payment_id,
                amount=order.total,
            ),
            caused_by=event,
        )

    async def ship(self, event: PaymentProcessed) -> None:
        """Hand the parcel to the courier. It may be busy: the router tries again a few times; see below."""
        order = await self._order(event)
        tracking_number = order.tracking_number
        if not tracking_number:
            tracking_number = await self.courier.book(order.order_id)
            await self.orders.update(order.order_id, tracking_number=tracking_number)
        await self.emitter.emit(
            OrderShipped(
                id=follow_up_id(event, OrderShipped), order_id=order.order_id, tracking_number=tracking_number
            ),
            caused_by=event,
        )

    async def audit(self, event: Event) -> None:
        """Keep the order's history. A pattern also brings events that nobody here has a class for."""
        if isinstance(event, OrderEvent):
            await self.orders.record(event)
        else:
            logger.info("an event about orders that this service does not know: %s", event.routing_key)

    async def _order(self, event: OrderEvent) -> Order:
        order = await self.orders.get(event.order_id)
        if order is None:
            raise NonRetryableError(f"there is no order {event.order_id}")
        return order

    async def _charge(self, order: Order) -> str:
        try:
            # A crash after the charge and before the note means a second call: the key keeps it to one payment.
            payment_id = await self.payments.charge(order.card, order.total, idempotency_key=order.order_id)
        except CardDeclinedError as error:
            await self.orders.update(order.order_id, declined=str(error))
            # No retry will change the bank's mind. The dead letter waits until the customer gives another card.
            raise NonRetryableError(f"card declined: {error}") from error
        await self.orders.update(order.order_id, payment_id=payment_id)
        return payment_id


def fulfilment_router(work: Fulfilment, stream: str, middleware: Sequence[HandlerMiddleware] = ()) -> EventRouter:
    """Which handler runs for which event, and how patiently."""
    router = EventRouter(
        stream=stream,
        group=GROUP,
        handler_timeout=10.0,
        max_deliveries=3,
        shutdown_timeout=1.0,  # a demo is left quickly; a service would give its handlers as long as they take
        middleware=middleware,
    )
    router.on(OrderPlaced)(work.take_payment)
    router.on(
        PaymentProcessed,
        retries=4,
        backoff=linear(delay=0.2),  # again for the demo's sake; `exponential()` is kinder to a courier in trouble
        retryable_exceptions=(CourierBusyError, ConnectionError, TimeoutError),
    )(work.ship)
    router.on("order.*")(work.audit)
    return router
