"""What `Emits[...]` lets through. Checked by pyright (see pyrightconfig.json), never run."""

from typing import assert_type

from fastapi import FastAPI

import rapids_fastapi
from rapids import BaseEvent, Emits, EventEmitter, EventRouter
from rapids.testing import RecordingEmitter
from rapids_fastapi import EmitsOnSuccess


class OrderPlaced(BaseEvent):
    order_id: str


class OrderRejected(BaseEvent):
    order_id: str


class RushOrderPlaced(OrderPlaced):
    pass


class OrderShipped(BaseEvent):
    order_id: str


router = EventRouter(group="orders")
app = FastAPI()


@router.on(OrderPlaced)
async def handler(event: OrderPlaced, events: Emits[OrderPlaced | OrderRejected], shipped: OrderShipped) -> None:
    assert_type(await events.emit(OrderRejected(order_id="1"), caused_by=event), str)
    assert_type(await events.emit([OrderPlaced(order_id="1"), OrderRejected(order_id="1")]), list[str])
    await events.emit(RushOrderPlaced(order_id="1"))
    await events.emit(shipped)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await events.emit([event, shipped])  # pyright: ignore[reportArgumentType, reportCallIssue]
    await only_placed(events)


async def only_placed(events: Emits[OrderPlaced]) -> None:
    await events.emit(OrderRejected(order_id="1"))  # pyright: ignore[reportArgumentType, reportCallIssue]
    await both(events)  # pyright: ignore[reportArgumentType]


async def both(events: Emits[OrderPlaced | OrderRejected]) -> None: ...


@app.post("/orders")
async def endpoint(events: rapids_fastapi.Emits[OrderPlaced], shipped: OrderShipped) -> None:
    assert_type(await events.emit(OrderPlaced(order_id="1")), str)
    await events.emit(shipped)  # pyright: ignore[reportArgumentType, reportCallIssue]
    await only_placed(events)


@app.post("/later")
def later(events: EmitsOnSuccess[OrderPlaced | OrderRejected], shipped: OrderShipped) -> None:
    events.emit(OrderPlaced(order_id="1"))
    events.emit([OrderPlaced(order_id="1"), OrderRejected(order_id="1")])
    events.emit(shipped)  # pyright: ignore[reportArgumentType]


async def in_a_test(emitter: EventEmitter) -> None:
    await both(emitter)
    await both(RecordingEmitter())


def no_event(events: Emits[int]) -> None: ...  # pyright: ignore[reportInvalidTypeArguments]
