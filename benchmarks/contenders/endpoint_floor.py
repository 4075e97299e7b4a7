"""The floor: a bare `xadd` on a client that is a dependency."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from redis.asyncio import Redis

from benchmarks.contenders.endpoint import URL, OrderAccepted, OrderIn, plain
from benchmarks.contenders.floor import MAXLEN
from benchmarks.contenders.floor_events import OrderPlaced, encode
from benchmarks.jobs import STREAM

client = Redis.from_url(URL)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with client:
        yield


async def get_client() -> Redis:
    return client


Client = Annotated[Redis, Depends(get_client)]
app = FastAPI(lifespan=lifespan)
app.include_router(plain)


@app.post("/built", status_code=202)
async def build(order: OrderIn, redis: Client) -> OrderAccepted:
    OrderPlaced(**order.model_dump())
    return OrderAccepted(order_id=order.order_id)


@app.post("/emits", status_code=202)
async def emit(order: OrderIn, redis: Client) -> OrderAccepted:
    event = OrderPlaced(**order.model_dump())
    await redis.xadd(STREAM, encode(event), maxlen=MAXLEN, approximate=True)
    return OrderAccepted(order_id=order.order_id)
