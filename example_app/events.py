"""What happens to an order. Other teams read these from the stream, so they hold what others may know: no cards."""

from decimal import Decimal
from typing import ClassVar
from uuid import NAMESPACE_OID, uuid5

from rapids import BaseEvent

__all__ = ["OrderEvent", "OrderPlaced", "OrderShipped", "PaymentProcessed", "follow_up_id"]


class OrderEvent(BaseEvent):
    """What all of them have."""

    _skip_registration: ClassVar[bool] = True

    order_id: str


class OrderPlaced(OrderEvent):
    """`order.placed`: a customer wants something."""

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
    """The id of the event that handling `cause` leads to: always the same, however often it is handled.

    A handler that is repeated after it had emitted emits again. With one id, whoever reads both can tell that they are
    one event.
    """
    return str(uuid5(NAMESPACE_OID, f"{cause.id}/{follow_up.event_type}"))
