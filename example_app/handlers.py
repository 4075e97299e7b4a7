"""The handlers of the service.

Events are delivered at least once. A handler runs again on the same event when its process died before the entry was
acknowledged, and when a dead letter is replayed. So each handler can be repeated at any point:

- A call to another service carries a key that makes a repetition harmless (`idempotency_key`, or the order id).
- A step that is already done is not done again.
- The event it emits has the same id each time (`follow_up_id`), and the emit comes last, so that no crash skips it. It
  has the correlation id of the handled event, and that event's id as its cause.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from example_app.events import OrderEvent, OrderPlaced, OrderShipped, PaymentProcessed, follow_up_id
from example_app.orders import Order, Orders, OrdersDep
from example_app.outside import CardDeclinedError, Courier, CourierBusyError, PaymentProvider
from rapids import Event, EventRouter, HandlerMiddleware
from rapids.backoff import linear
from rapids.exceptions import NonRetryableError
from rapids_fastapi import EmitterDep

__all__ = ["GROUP", "Fulfilment", "fulfilment_router"]

GROUP = "fulfilment"
"""The consumer group: all processes of this service share the work under this name."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fulfilment:
    """The handlers, and the other services that they call. Orders and emitter come as dependencies."""

    payments: PaymentProvider
    courier: Courier

    async def take_payment(self, event: OrderPlaced, orders: OrdersDep, emitter: EmitterDep) -> None:
        """Charge the customer's card."""
        order = await self._order(event, orders)
        payment_id = order.payment_id or await self._charge(order, orders)
        await emitter.emit(
            PaymentProcessed(
                id=follow_up_id(event, PaymentProcessed),
                order_id=order.order_id,
                payment_id=payment_id,
                amount=order.total,
            )
        )

    async def ship(self, event: PaymentProcessed, orders: OrdersDep, emitter: EmitterDep) -> None:
        """Book a courier. If it is busy, the router tries again; see `fulfilment_router`."""
        order = await self._order(event, orders)
        tracking_number = order.tracking_number
        if not tracking_number:
            tracking_number = await self.courier.book(order.order_id)
            await orders.update(order.order_id, tracking_number=tracking_number)
        await emitter.emit(
            OrderShipped(id=follow_up_id(event, OrderShipped), order_id=order.order_id, tracking_number=tracking_number)
        )

    async def audit(self, event: Event, orders: OrdersDep) -> None:
        """Add the event to the order's history. A pattern also matches events that this service has no class for."""
        if isinstance(event, OrderEvent):
            await orders.record(event)
        else:
            logger.info("an event about orders that this service does not know: %s", event.routing_key)

    async def _order(self, event: OrderEvent, orders: Orders) -> Order:
        order = await orders.get(event.order_id)
        if order is None:
            raise NonRetryableError(f"there is no order {event.order_id}")
        return order

    async def _charge(self, order: Order, orders: Orders) -> str:
        try:
            # After a crash between the charge and the update, this runs again. The key makes both calls one payment.
            payment_id = await self.payments.charge(order.card, order.total, idempotency_key=order.order_id)
        except CardDeclinedError as error:
            await orders.update(order.order_id, declined=str(error))
            # A retry does not help. The dead letter can be replayed after the customer changed the card.
            raise NonRetryableError(f"card declined: {error}") from error
        await orders.update(order.order_id, payment_id=payment_id)
        return payment_id


def fulfilment_router(work: Fulfilment, stream: str, middleware: Sequence[HandlerMiddleware] = ()) -> EventRouter:
    """Which handler runs for which event, and how often it is tried."""
    router = EventRouter(
        stream=stream,
        group=GROUP,
        handler_timeout=10.0,
        max_deliveries=3,
        shutdown_timeout=1.0,  # the demo stops quickly; a service gives its handlers more time
        middleware=middleware,
    )
    router.on(OrderPlaced)(work.take_payment)
    router.on(
        PaymentProcessed,
        retries=4,
        backoff=linear(delay=0.2),  # short for the demo; a service would use `exponential()`
        retryable_exceptions=(CourierBusyError, ConnectionError, TimeoutError),
    )(work.ship)
    router.on("order.*")(work.audit)
    return router
