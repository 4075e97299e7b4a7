"""An application with many event types and groups, whose handlers fail now and then, to measure the dashboard."""

from __future__ import annotations

import asyncio
import math
import struct
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fastapi import FastAPI

from rapids import BaseEvent, EventEmitter, EventRouter
from rapids._storage import rates
from rapids._storage.keys import Source
from rapids.exceptions import NonRetryableError
from rapids_fastapi import Rapids, TokenAuth, rapids_admin

__all__ = ["DLQ", "STREAM", "TOKEN", "Fleet", "Kind"]

STREAM = "fleet:events"
DLQ = "{fleet:events}:dlq"
TOKEN = "correct-horse-battery"
THINGS = ("order", "payment", "parcel", "invoice", "customer")
FAILING = 40
"""One of so many events fails."""
PAUSE = 0.05
"""Seconds between two events."""


class FleetEvent(BaseEvent):
    """What all events of the fleet have."""

    event_type = "fleet.event"
    order_id: str
    total: Decimal


@dataclass(frozen=True, slots=True)
class Kind:
    """An event type and the handler for it."""

    number: int
    event: Any
    group: str

    @property
    def handler(self) -> str:
        return f"handle_{self.event.event_type.replace('.', '_')}"


class Fleet:
    """The application, with a router for each group."""

    def __init__(self, redis_url: str, event_types: int, groups: int) -> None:
        self.groups = [f"service-{number:03}" for number in range(groups)]
        self.kinds = [Kind(number, _event_class(number), self.groups[number % groups]) for number in range(event_types)]
        self.emitter = EventEmitter(stream=STREAM)
        routers = [self._router(group) for group in self.groups]
        self.rapids = Rapids(url=redis_url, emitter=self.emitter, routers=routers, admin_auth=TokenAuth(TOKEN))
        self.app = FastAPI(lifespan=self._lifespan)
        self.app.include_router(rapids_admin)

    @asynccontextmanager
    async def _lifespan(self, app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with self.rapids.lifespan(app) as state:
            self._loop = asyncio.get_running_loop()
            yield state

    def _router(self, group: str) -> EventRouter:
        router = EventRouter(stream=STREAM, group=group, dlq_maxlen=None)
        for kind in self.kinds:
            if kind.group == group:
                router.on(kind.event, name=kind.handler)(_handle)
        return router

    async def is_reading(self) -> bool:
        """Whether all groups exist."""
        redis = self.rapids.redis
        return bool(await redis.exists(STREAM)) and len(await redis.xinfo_groups(STREAM)) == len(self.groups)

    async def had_an_hour(self) -> None:
        """Rates of an hour, as the workers would have kept them."""
        record = struct.Struct(f">Id{len(rates.COUNTED)}I{rates.RANGES}I")
        now = rates.period_of(time.time() * 1000)
        for number, group in enumerate(self.groups):
            kept = bytearray(rates.RECORDS * record.size)
            for age in range(360, 1, -1):
                handled = round(60 + 20 * math.sin(age / 40 + number))
                counts = (handled, handled - 3, 3, 0, 2)
                at = (now - age) % rates.RECORDS * record.size
                record.pack_into(kept, at, now - age, 100 * (360 - age), *counts, *[0] * rates.RANGES)
            await self.rapids.redis.set(Source(STREAM, group).rates, bytes(kept), px=rates.TTL_MS)

    @contextmanager
    def trading(self) -> Iterator[None]:
        """Events of all types, some of which fail, for as long as the block."""
        trade = asyncio.run_coroutine_threadsafe(self._trade(), self._loop)
        try:
            yield
        finally:
            trade.cancel()

    async def _trade(self) -> None:
        number = 0
        while True:
            kind = self.kinds[number % len(self.kinds)]
            await self.emitter.emit(kind.event(order_id=f"B-{number}", total=Decimal("48.90")))
            number += 1
            await asyncio.sleep(PAUSE)

    def run(self, work: Any) -> Any:
        """Run a coroutine on the application's event loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=120)


async def _handle(event: FleetEvent) -> None:
    if int(event.order_id.partition("-")[2]) % FAILING == 7:
        raise NonRetryableError(f"no answer for {event.order_id}")


def _event_class(number: int) -> type[FleetEvent]:
    event_type = f"{THINGS[number % len(THINGS)]}.happened_{number:03}"
    return type(
        f"Fleet{number}",
        (FleetEvent,),
        {"__module__": __name__, "__doc__": "Something happened.", "event_type": event_type},
    )
