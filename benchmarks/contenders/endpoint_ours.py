"""Ours, as the guide shows it: the plug-in's lifespan and `EmitterDep`."""

from fastapi import FastAPI

from benchmarks.contenders.endpoint import URL, OrderAccepted, OrderIn, plain
from benchmarks.contenders.rapids_like import OrderPlaced
from benchmarks.jobs import STREAM
from rapids import EventEmitter
from rapids_fastapi import EmitterDep, Rapids

app = FastAPI(lifespan=Rapids(emitter=EventEmitter(stream=STREAM), url=URL).lifespan)
app.include_router(plain)


@app.post("/built", status_code=202)
async def build(order: OrderIn, emitter: EmitterDep) -> OrderAccepted:
    OrderPlaced(**order.model_dump())
    return OrderAccepted(order_id=order.order_id)


@app.post("/emits", status_code=202)
async def emit(order: OrderIn, emitter: EmitterDep) -> OrderAccepted:
    await emitter.emit(OrderPlaced(**order.model_dump()))
    return OrderAccepted(order_id=order.order_id)
