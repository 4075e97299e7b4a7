"""A service whose contracts tests look at."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, ClassVar, Literal

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, Field, Json, computed_field

import rapids
from rapids import BaseEvent, EventEmitter, EventRouter
from rapids_fastapi import CorrelationMiddleware, Emits, EmitsOnSuccess, Rapids, rapids_admin

STREAM = "contracts:shop"


class ShopMoney(BaseModel):
    amount: Decimal
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "EUR"


class ShopCard(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class ShopTransfer(BaseModel):
    kind: Literal["transfer"] = "transfer"
    iban: str


class ShopParcel(BaseModel):
    weight: float
    inner: ShopParcel | None = None


class ShopOrderPlaced(BaseEvent):
    """A customer has placed an order."""

    schema_version: ClassVar[int] = 3
    order_id: str
    total: ShopMoney
    payment: Annotated[ShopCard | ShopTransfer, Field(discriminator="kind")]
    size: tuple[int, int] | None = None
    extras: Json[list[int]] = Field(default="[]", validate_default=True)
    parcels: list[ShopParcel] = []

    @computed_field
    @property
    def is_large(self) -> bool:
        return self.total.amount > 1_000


class ShopOrderRejected(BaseEvent):
    order_id: str
    total: ShopMoney
    at: datetime


class ShopOrderShipped(BaseEvent):
    order_id: str


router = EventRouter(stream=STREAM, group="billing", max_deliveries=3)


@router.on(ShopOrderPlaced, timeout=5, retries=2, retryable_exceptions=(OSError,))
async def charge(event: ShopOrderPlaced, events: rapids.Emits[ShopOrderRejected]) -> None: ...


@router.on("shop_order.*")
async def log(event: rapids.Event, events: Emits[ShopOrderShipped]) -> None: ...


orders = APIRouter(prefix="/orders")


@orders.post("")
async def place(order: ShopMoney, events: Emits[ShopOrderPlaced | ShopOrderRejected]) -> str:
    placed = ShopOrderPlaced(order_id="o-1", total=order, payment=ShopCard(number="1"))
    return await events.emit(placed)


@orders.post("/{order_id}/shipment")
def send(order_id: str, events: EmitsOnSuccess[ShopOrderShipped]) -> None:
    events.emit(ShopOrderShipped(order_id=order_id))


@orders.post("/wrong")
async def wrong(events: Emits[ShopOrderShipped]) -> str:
    event = ShopOrderPlaced(order_id="o-1", total=ShopMoney(amount=Decimal(1)), payment=ShopCard(number="1"))
    return await events.emit([event])  # type: ignore[list-item]


plug_in = Rapids(emitter=EventEmitter(stream=STREAM), routers=[router], url="redis://localhost:1/0")


def application(rapids: Rapids) -> FastAPI:
    made = FastAPI(title="The shop", version="1.2.3", lifespan=rapids.lifespan)
    made.add_middleware(CorrelationMiddleware)
    made.include_router(rapids_admin)
    made.include_router(orders)
    return made


app = application(plug_in)
