"""What the endpoints of all contenders have in common, and the one that emits nothing."""

import os

from fastapi import APIRouter
from pydantic import BaseModel

URL_VARIABLE = "BENCH_REDIS_URL"
URL = os.environ[URL_VARIABLE]


class OrderIn(BaseModel):
    order_id: str
    customer: str
    amount: float
    number: int


class OrderAccepted(BaseModel):
    order_id: str


plain = APIRouter()


@plain.post("/plain", status_code=202)
async def accept(order: OrderIn) -> OrderAccepted:
    """The same endpoint without emitting: no emitter, no event."""
    return OrderAccepted(order_id=order.order_id)
