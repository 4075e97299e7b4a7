"""The service: `uvicorn example_app.app:app`, also with `--reload` or `--workers 2`."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from pydantic import BaseModel, Field

from example_app.events import OrderPlaced
from example_app.handlers import Fulfilment, fulfilment_router
from example_app.orders import Happening, Order, Orders, OrdersDep, OrderStatus, get_orders
from example_app.outside import Courier, PaymentProvider
from example_app.settings import Settings
from rapids import EventEmitter, HandlerMiddleware
from rapids.clients import open_client
from rapids.hooks import TelemetryHooks
from rapids_fastapi import CorrelationMiddleware, EmitterDep, Rapids, TokenAuth, rapids_admin

__all__ = ["app", "create_app"]

Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\r\n]+$")]


class CardIn(BaseModel):
    """A card to pay with, as the token that the payment provider's form gave the customer's browser."""

    card: Name = Field(examples=["visa-4242"], description="Every card is accepted except `declined`.")


class OrderIn(CardIn):
    """An order as a customer sends it."""

    customer: Name = Field(examples=["Ada"])
    items: list[Name] = Field(min_length=1, max_length=50, examples=[["lamp", "bulb"]])
    total: Decimal = Field(gt=0, max_digits=8, decimal_places=2, examples=["48.90"])


class OrderAccepted(BaseModel):
    """The order is stored, and `order.placed` is in the stream. The handlers do the rest."""

    order_id: str


class OrderOut(BaseModel):
    """An order as its customer may see it."""

    order_id: str
    status: OrderStatus
    customer: str
    items: list[str]
    total: Decimal
    payment_id: str
    declined: str = Field(description="Why the card was declined, if it was.")
    tracking_number: str
    history: list[Happening]


async def _order(order_id: str, orders: OrdersDep) -> Order:
    order = await orders.get(order_id)
    if order is None:
        raise HTTPException(404, f"There is no order {order_id}")
    return order


OrderDep = Annotated[Order, Depends(_order)]

routes = APIRouter(prefix="/orders", tags=["orders"])


@routes.post("", status_code=202)
async def place_order(
    wanted: OrderIn, orders: OrdersDep, emitter: EmitterDep, request: Request, response: Response
) -> OrderAccepted:
    """Take an order. Payment and shipping follow in the background."""
    order = Order(order_id=uuid4().hex[:12], **wanted.model_dump())
    # Stored first, so that every handler finds it. If the emit fails, the customer gets an error and orders again.
    await orders.add(order)
    await emitter.emit(
        OrderPlaced(order_id=order.order_id, customer=order.customer, items=order.items, total=order.total)
    )
    response.headers["Location"] = request.url_for("show_order", order_id=order.order_id).path
    return OrderAccepted(order_id=order.order_id)


@routes.get("/{order_id}")
async def show_order(order: OrderDep, orders: OrdersDep) -> OrderOut:
    """The state of an order and its history."""
    history = await orders.history(order.order_id)
    return OrderOut(**order.model_dump(exclude={"card"}), status=order.status, history=history)


@routes.put("/{order_id}/card", status_code=204)
async def change_card(order: OrderDep, new: CardIn, orders: OrdersDep) -> None:
    """Change the card of an order that is not paid. Replay the dead letter to try a failed payment again."""
    if order.payment_id:
        raise HTTPException(409, f"Order {order.order_id} is paid already")
    await orders.update(order.order_id, card=new.card, declined="")


def create_app(
    settings: Settings | None = None,
    middleware: Sequence[HandlerMiddleware] = (),
    telemetry: TelemetryHooks | None = None,
) -> FastAPI:
    """The application. Everything that holds state is made when it starts and closed when it stops.

    `settings`: by default those of the environment. `middleware`: runs around every handler. `telemetry`: what
    everything is reported to, such as `OpenTelemetry()`.
    """
    chosen = settings or Settings.from_environment()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[dict[str, Any]]:
        async with open_client(chosen.redis_url) as redis:
            emitter = EventEmitter(redis, stream=chosen.stream)
            orders = Orders(redis, prefix=chosen.stream)
            work = Fulfilment(PaymentProvider(), Courier())
            rapids = Rapids(
                redis=redis,
                emitter=emitter,
                routers=[fulfilment_router(work, chosen.stream, middleware)],
                admin_auth=TokenAuth(chosen.admin_token) if chosen.admin_token else None,
                telemetry=telemetry,
            )

            async def get_these_orders() -> Orders:
                return orders

            app.dependency_overrides[get_orders] = get_these_orders
            async with rapids.lifespan(app) as state:
                yield state

    application = FastAPI(title="Order fulfilment", lifespan=lifespan)
    application.add_middleware(CorrelationMiddleware)
    application.include_router(routes)
    application.include_router(rapids_admin)
    return application


app = create_app()
