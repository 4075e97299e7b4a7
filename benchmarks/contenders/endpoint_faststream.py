"""FastStream: its broker, started in the lifespan and used as a dependency."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI
from faststream.redis import RedisBroker

from benchmarks.contenders.endpoint import URL, OrderAccepted, OrderIn, plain
from benchmarks.contenders.floor_events import OrderPlaced
from benchmarks.jobs import STREAM

MAXLEN = 100_000
broker = RedisBroker(URL, logger=None)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with broker:
        await broker.start()
        yield


async def get_broker() -> RedisBroker:
    return broker


Broker = Annotated[RedisBroker, Depends(get_broker)]
app = FastAPI(lifespan=lifespan)
app.include_router(plain)


@app.post("/built", status_code=202)
async def build(order: OrderIn, broker: Broker) -> OrderAccepted:
    OrderPlaced(**order.model_dump())
    return OrderAccepted(order_id=order.order_id)


@app.post("/emits", status_code=202)
async def emit(order: OrderIn, broker: Broker) -> OrderAccepted:
    await broker.publish(OrderPlaced(**order.model_dump()), stream=STREAM, maxlen=MAXLEN)
    return OrderAccepted(order_id=order.order_id)
