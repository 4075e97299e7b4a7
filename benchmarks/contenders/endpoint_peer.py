"""The peer, as its readme shows it: an emitter of the module, configured in the lifespan; used as a dependency."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from redis.asyncio import Redis

from benchmarks.contenders.endpoint import URL, OrderAccepted, OrderIn, plain
from benchmarks.contenders.rapids_like import OrderPlaced
from benchmarks.jobs import STREAM
from rapids import EventEmitter

emitter = EventEmitter(stream=STREAM)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with Redis.from_url(URL) as redis:
        emitter.configure(redis)
        yield


async def get_emitter() -> EventEmitter:
    return emitter


Emitter = Annotated[EventEmitter, Depends(get_emitter)]
app = FastAPI(lifespan=lifespan)
app.include_router(plain)


@app.post("/built", status_code=202)
async def build(order: OrderIn, emitter: Emitter) -> OrderAccepted:
    OrderPlaced(**order.model_dump())
    return OrderAccepted(order_id=order.order_id)


@app.post("/emits", status_code=202)
async def emit(order: OrderIn, emitter: Emitter) -> OrderAccepted:
    await emitter.emit(OrderPlaced(**order.model_dump()))
    return OrderAccepted(order_id=order.order_id)
