"""The order store, on a real server."""

from decimal import Decimal

import pytest
from redis.asyncio import Redis

from example_app.events import OrderPlaced
from example_app.orders import KEPT_FOR, Order, Orders, OrderStatus

ORDER = Order(order_id="o-1", customer="Ada", items=["lamp", "bulb"], total=Decimal("48.90"), card="visa")


@pytest.fixture
def orders(redis: Redis) -> Orders:
    return Orders(redis, "test")


async def test_an_order_is_read_as_it_was_stored(orders: Orders) -> None:
    await orders.add(ORDER)
    assert await orders.get("o-1") == ORDER


async def test_an_unknown_order_is_none_and_has_no_history(orders: Orders) -> None:
    assert await orders.get("o-2") is None
    assert await orders.history("o-2") == []


async def test_an_update_of_an_expired_order_does_not_create_part_of_it(orders: Orders) -> None:
    await orders.update("o-1", payment_id="pay_1")
    assert await orders.get("o-1") is None


async def test_updates_leave_the_other_fields_alone(orders: Orders) -> None:
    await orders.add(ORDER)
    await orders.update("o-1", payment_id="pay_1")
    await orders.update("o-1", tracking_number="1Z")
    assert await orders.get("o-1") == ORDER.model_copy(update={"payment_id": "pay_1", "tracking_number": "1Z"})


async def test_everything_it_writes_expires(orders: Orders, redis: Redis) -> None:
    await orders.add(ORDER)
    await orders.record(OrderPlaced(order_id="o-1", customer="Ada", items=["lamp"], total=Decimal(1)))
    keys = await redis.keys()
    assert len(keys) == 2
    for key in keys:
        assert 0 < await redis.ttl(key) <= KEPT_FOR


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ({}, OrderStatus.PLACED),
        ({"declined": "no"}, OrderStatus.PAYMENT_DECLINED),
        ({"payment_id": "pay_1", "declined": "no"}, OrderStatus.PAID),
        ({"payment_id": "pay_1", "tracking_number": "1Z"}, OrderStatus.SHIPPED),
    ],
)
def test_the_status_follows_from_what_is_known(known: dict[str, str], status: OrderStatus) -> None:
    assert ORDER.model_copy(update=known).status == status
