"""The events of an order. Other teams read them from the stream, so they contain no card."""

from decimal import Decimal
from typing import ClassVar
from uuid import NAMESPACE_OID, uuid5

from rapids import BaseEvent

__all__ = ["OrderEvent", "OrderPlaced", "OrderShipped", "PaymentProcessed", "follow_up_id"]


class OrderEvent(BaseEvent):
    """The fields that all events of an order have."""

    _skip_registration: ClassVar[bool] = True

    order_id: str


class OrderPlaced(OrderEvent):
    """`order.placed`: a customer placed an order."""

    customer: str
    items: list[str]
    total: Decimal


class PaymentProcessed(OrderEvent):
    """`payment.processed`: the card was charged."""

    payment_id: str
    amount: Decimal


class OrderShipped(OrderEvent):
    """`order.shipped`: the courier has the parcel."""

    tracking_number: str


def follow_up_id(cause: OrderEvent, follow_up: type[OrderEvent]) -> str:
    """The id of the event that follows from `cause`. It is the same each time `cause` is handled.

    A handler that runs again after it emitted will emit again. Both events then have the same id, so that a reader can
    see that they are the same event.
    """
    return str(uuid5(NAMESPACE_OID, f"{cause.id}/{follow_up.event_type}"))
