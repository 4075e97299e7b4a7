"""The state of orders, kept in Redis, so that every worker process of the service sees the same.

Endpoints and handlers get it by `OrdersDep`.
"""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, cast

from fastapi import Depends
from pydantic import BaseModel, ConfigDict

from example_app.events import OrderEvent
from rapids.clients import RedisClient

__all__ = ["Happening", "Order", "OrderStatus", "Orders", "OrdersDep", "get_orders"]

KEPT_FOR = 7 * 24 * 3600
"""Seconds an order is kept after its last change, so that the demo leaves nothing in Redis."""


class OrderStatus(StrEnum):
    """The state of an order."""

    PLACED = "placed"
    PAYMENT_DECLINED = "payment_declined"
    PAID = "paid"
    SHIPPED = "shipped"


class Happening(BaseModel):
    """A line of an order's history."""

    model_config = ConfigDict(frozen=True)

    event_id: str
    event_type: str
    at: datetime
    correlation_id: str | None


class Order(BaseModel):
    """An order as it is stored."""

    model_config = ConfigDict(frozen=True)

    order_id: str
    customer: str
    items: list[str]
    total: Decimal
    card: str
    payment_id: str = ""
    declined: str = ""
    tracking_number: str = ""

    @property
    def status(self) -> OrderStatus:
        """Derived from the other fields, so that a repeated or late handler cannot set it back."""
        if self.tracking_number:
            return OrderStatus.SHIPPED
        if self.payment_id:
            return OrderStatus.PAID
        return OrderStatus.PAYMENT_DECLINED if self.declined else OrderStatus.PLACED


class Orders:
    """Orders in Redis: a hash for each, and one for its history. Both expire after `KEPT_FOR` seconds.

    `prefix`: the beginning of all its keys.
    """

    def __init__(self, redis: RedisClient, prefix: str) -> None:
        self._redis = redis
        self._prefix = prefix

    async def add(self, order: Order) -> None:
        """Store a new order."""
        fields = order.model_dump(mode="json") | {"items": "\n".join(order.items)}
        await self._write(self._key(order.order_id), fields)

    async def get(self, order_id: str) -> Order | None:
        """The order, or None if it does not exist or has expired."""
        stored = _decoded(await cast(Any, self._redis.hgetall(self._key(order_id))))
        if "order_id" not in stored:
            return None
        return Order.model_validate({**stored, "items": stored["items"].split("\n")})

    async def update(self, order_id: str, **fields: str) -> None:
        """Set fields of an order. The other fields stay, so that two writers do not undo each other's changes."""
        await self._write(self._key(order_id), fields)

    async def record(self, event: OrderEvent) -> None:
        """Add an event to the history of its order, under its id, so that an event added twice is there once."""
        line = Happening(
            event_id=event.id,
            event_type=event.event_type,
            at=event.timestamp,
            correlation_id=event.correlation_id,
        )
        await self._write(self._history_key(event.order_id), {event.id: line.model_dump_json()})

    async def history(self, order_id: str) -> list[Happening]:
        """The history of an order, oldest first."""
        lines = _decoded(await cast(Any, self._redis.hgetall(self._history_key(order_id))))
        return sorted((Happening.model_validate_json(line) for line in lines.values()), key=lambda line: line.at)

    async def _write(self, key: str, fields: dict[str, str]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, mapping=cast(Any, fields))
            pipeline.expire(key, KEPT_FOR)
            await pipeline.execute()

    def _key(self, order_id: str) -> str:
        return f"{self._prefix}:order:{order_id}"

    def _history_key(self, order_id: str) -> str:
        return f"{self._prefix}:history:{order_id}"


async def get_orders() -> Orders:
    """The orders. Each application sets its own in `dependency_overrides`, which hold for endpoints and handlers."""
    raise LookupError("no application has set its orders: see `create_app`")


OrdersDep = Annotated[Orders, Depends(get_orders)]


def _decoded(stored: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in stored.items()}
