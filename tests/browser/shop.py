"""A shop whose handlers fail in the ways that handlers fail, for the tests and the screenshots of the dashboard."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import FastAPI
from pydantic import Field
from starlette.types import ASGIApp, Receive, Scope, Send

from rapids import BaseEvent, DeadLetterQueue, EventEmitter, EventRouter
from rapids.backoff import linear
from rapids.dead_letters import LetterFilter
from rapids.exceptions import NonRetryableError, RetryAfter
from rapids.inspection import Inspector
from rapids.sessions import Sessions
from rapids_fastapi import Rapids, TokenAuth, rapids_admin
from rapids_fastapi.admin.auth import AdminAuth

__all__ = ["DLQ", "HOSTILE", "STREAM", "TOKEN", "Shop", "at_prefix"]

STREAM = "shop:orders"
DLQ = "{shop:orders}:dlq"
TOKEN = "correct-horse-battery"
HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>{{7*7}}"


class ShopOrderPlaced(BaseEvent):
    """A customer has placed an order."""

    event_type = "order.placed"
    order_id: str
    customer: dict[str, str]
    lines: list[dict[str, Any]]
    total: Decimal
    loyalty_points: int = 0


class ShopPaymentTaken(BaseEvent):
    """The customer's card was charged."""

    event_type = "payment.taken"
    order_id: str
    payment_id: str
    amount: Annotated[Decimal, Field(gt=0)]


class ShopParcelBooked(BaseEvent):
    """The courier will collect the parcel."""

    event_type = "parcel.booked"
    order_id: str
    courier: str


class CourierTimeoutError(TimeoutError):
    """The courier did not answer."""


class CardDeclinedError(NonRetryableError):
    """The bank said no."""


def order(number: int, *, customer: str = "Ada Lovelace", **more: Any) -> ShopOrderPlaced:
    """An order as the shop's endpoint emits it."""
    return ShopOrderPlaced(
        order_id=f"A-{10_000 + number}",
        customer={"name": customer, "email": f"customer{number}@example.com", "password": "hunter2"},
        lines=[{"sku": "LAMP-7", "quantity": 1 + number % 3, "price": "24.45"}, {"sku": "BULB-2", "quantity": 4}],
        total=Decimal("48.90") + number,
        loyalty_points=9_007_199_254_740_993 + number,
        correlation_id=f"web-{number}",
        **more,
    )


class Shop:
    """The application, and what the outside world is like: change its attributes to repair it."""

    def __init__(self, redis_url: str, auth: AdminAuth | None = None) -> None:
        self.courier_answers = False
        self.bank_accepts = True
        self.emitter = EventEmitter(stream=STREAM)
        routers = [self._payments(), self._shipping(), self._mail(), self._search()]
        self.rapids = Rapids(url=redis_url, emitter=self.emitter, routers=routers, admin_auth=auth or TokenAuth(TOKEN))
        self.app = FastAPI(lifespan=self._lifespan)
        self.app.include_router(rapids_admin)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with self.rapids.lifespan(app) as state:
            self.loop = asyncio.get_running_loop()
            yield state

    def _router(self, group: str) -> EventRouter:
        soon = linear(delay=0.05)
        return EventRouter(
            stream=STREAM, group=group, max_deliveries=3, redelivery_backoff=soon, claim_interval=1, concurrency=20
        )

    def _payments(self) -> EventRouter:
        router = self._router("payments")

        @router.on(ShopOrderPlaced)
        async def take_payment(event: ShopOrderPlaced) -> None:
            if int(event.order_id[2:]) % 9 == 4 or not self.bank_accepts:
                raise CardDeclinedError(f"card of {event.customer['name']} declined: insufficient funds")
            await self.emitter.emit(
                ShopPaymentTaken(order_id=event.order_id, payment_id=f"pay-{event.order_id}", amount=event.total),
                caused_by=event,
            )

        return router

    def _shipping(self) -> EventRouter:
        router = self._router("shipping")

        @router.on(ShopPaymentTaken)
        async def ship_order(event: ShopPaymentTaken) -> None:
            if not self.courier_answers and int(event.order_id[2:]) % 5:
                await self._book(event)
            await self.emitter.emit(ShopParcelBooked(order_id=event.order_id, courier="Hermes"), caused_by=event)

        return router

    async def _book(self, event: ShopPaymentTaken) -> None:
        raise CourierTimeoutError(f"courier.example did not answer within 10 s for {event.order_id}")

    def _mail(self) -> EventRouter:
        router = self._router("mail")

        @router.on(ShopPaymentTaken)
        async def send_receipt(event: ShopPaymentTaken) -> None:
            if int(event.order_id[2:]) % 23 == 3:
                templates = {"de": "Danke"}
                _ = templates["en"]

        return router

    def _search(self) -> EventRouter:
        router = self._router("search")

        @router.on("order.*")
        async def index_order(event: BaseEvent) -> None:
            if event.metadata.get("hostile"):
                raise RuntimeError(HOSTILE)
            if isinstance(event, ShopOrderPlaced) and int(event.order_id[2:]) % 50 == 7:
                raise RetryAfter(900, "the index is being rebuilt")

        return router

    async def sell(self, orders: int) -> None:
        """Emit orders, and return when everything that they set off is settled."""
        await self.emitter.emit([order(number) for number in range(orders)])

    async def be_attacked(self) -> None:
        """Emit an order full of markup, and an entry that is no event."""
        await self.emitter.emit(order(90_000, customer=HOSTILE, metadata={"hostile": HOSTILE}))
        broken: dict[Any, Any] = {"event_type": "order.placed", "data": '{"order_id": ', "id": "x", "metadata": "{}"}
        await self.rapids.redis.xadd(STREAM, broken)

    async def offer(self) -> str:
        """The code of a link that logs in once."""
        return await Sessions(self.rapids.redis, STREAM).offer(f"Bearer {TOKEN}".encode())

    async def fail_again(self, handler: str, times: int) -> None:
        """Copies of a handler's newest dead letter, each of another order, as so many failures would have left them."""
        redis = self.rapids.redis
        newest = await DeadLetterQueue(redis, DLQ).list(LetterFilter(handler=handler), limit=1)
        [[_, fields]] = await redis.xrange(DLQ, newest.items[0].id, newest.items[0].id)
        original = fields[b"data"]
        for first in range(0, times, 500):
            async with redis.pipeline(transaction=False) as pipeline:
                for number in range(first, min(first + 500, times)):
                    fields[b"data"] = re.sub(rb"A-\d+", b"A-%d" % (20_000 + number), original)
                    pipeline.xadd(DLQ, {name: value for name, value in fields.items() if name != b"letter_id"})
                await pipeline.execute()

    async def has_settled(self) -> bool:
        """Whether everything that the orders set off is handled, or a dead letter, or waits for the search index."""
        groups = (await Inspector(self.rapids.redis).groups(STREAM)).items
        return not any(one.lag or one.held or one.replays or (one.waiting and one.group != "search") for one in groups)

    async def letters(self) -> int:
        """How many dead letters there are."""
        return (await DeadLetterQueue(self.rapids.redis, DLQ).stats()).length

    def run(self, work: Any) -> Any:
        """Run a coroutine on the application's event loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout=120)


def at_prefix(app: ASGIApp, prefix: str) -> ASGIApp:
    """The application behind a proxy that removes a prefix and says nothing about it."""

    async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] == "http" and not path.startswith(f"{prefix}/"):
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": f"{datetime.now(UTC)}: not here".encode()})
            return
        if scope["type"] == "http":
            path = path.removeprefix(prefix)
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await app(scope, receive, send)

    return proxied
