"""What must be true after the demo: checked over HTTP and directly in Redis."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, cast

import orjson

from example_app.demo.story import Placed, Story, StoryError, eventually
from example_app.handlers import GROUP
from rapids.clients import RedisClient

__all__ = ["CHECKS", "Evidence", "end_of", "verdict"]

WHOLE_STORY = ["order.placed", "order.shipped", "payment.processed"]
AUDITED = ["order.placed", "order.shipped"]

Fields = dict[bytes, bytes]


async def end_of(redis: RedisClient, stream: str) -> str:
    """The id of the stream's last entry. Entries of earlier runs have this id or a smaller one."""
    last = cast(list[tuple[bytes, Fields]], await redis.xrevrange(stream, count=1))
    return last[0][0].decode() if last else "0-0"


PATIENCE = 5.0
"""Seconds until a check must be true."""

PAUSE = 0.05
"""Seconds between two looks."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Where the checks look. Each check returns what is wrong, or an empty string."""

    story: Story
    redis: RedisClient
    stream: str
    began_after: str
    """The id of the last entry before the demo began."""

    async def every_order_is_shipped(self) -> str:
        """Over HTTP: the status, and a history with each audited event once."""
        for placed in self.story.orders:
            order = await self.story.order(placed)
            if order["status"] != "shipped":
                return f"order {placed.order_id} is {order['status']}"
            history = sorted(line["event_type"] for line in order["history"])
            if history != AUDITED:
                return f"the history of order {placed.order_id} is {history}"
        return "" if self.story.orders else "there are no orders"

    async def one_dead_letter_replayed(self) -> str:
        """Over HTTP: the operator found one dead letter, it is replayed, and no other is left."""
        letters = [await self.story.dead_letter(replay["letter_id"]) for replay in self.story.replayed]
        states = [letter["state"] for letter in letters]
        if states != ["replayed"]:
            return f"the operator's letters are {states}"
        left = [letter["id"] for placed in self.story.orders for letter in await self.story.dead_letters(placed)]
        return f"still dead: {left}" if left else ""

    async def events_share_the_correlation_id(self) -> str:
        """In the stream: each order's events, and on all of them the id of the request's header."""
        for placed in self.story.orders:
            entries = await self._entries_of(placed)
            ids = {fields[b"correlation_id"].decode() for fields in entries.values()}
            if ids != {placed.correlation_id}:
                return f"the header of order {placed.order_id} had {placed.correlation_id}, its events {sorted(ids)}"
            # By id: after a crash, an event may be there twice, and is then the same one.
            types = sorted({fields[b"id"]: fields[b"event_type"].decode() for fields in entries.values()}.values())
            if types != WHOLE_STORY:
                return f"the events of order {placed.order_id} are {types}"
        return ""

    async def nothing_is_pending(self) -> str:
        """In Redis: every entry of the demo and every replay is acknowledged."""
        try:
            await eventually(self._nothing_pending, "there are entries without acknowledgement")
        except StoryError as error:
            return f"{error}: {await self._pending()}"
        return ""

    async def _nothing_pending(self) -> bool:
        return not await self._pending()

    async def _pending(self) -> list[str]:
        ours = [entry_id for placed in self.story.orders for entry_id in await self._entries_of(placed)]
        places = [(self.stream, entry_id.decode()) for entry_id in ours]
        places += [(replay["stream"], replay["entry_id"]) for replay in self.story.replayed]
        return [entry_id for stream, entry_id in places if await self._is_pending(stream, entry_id)]

    async def _is_pending(self, stream: str, entry_id: str) -> bool:
        return bool(await cast(Any, self.redis.xpending_range(stream, GROUP, entry_id, entry_id, 1)))

    async def _entries_of(self, placed: Placed) -> dict[bytes, Fields]:
        entries = cast(list[tuple[bytes, Fields]], await self.redis.xrange(self.stream, f"({self.began_after}"))
        order_id = placed.order_id
        return {entry_id: fields for entry_id, fields in entries if _order_in(fields) == order_id}


def _order_in(fields: Fields) -> object:
    try:
        data: object = orjson.loads(fields.get(b"data", b""))
    except orjson.JSONDecodeError:
        return None  # not an event of the demo
    return cast(dict[str, object], data).get("order_id") if isinstance(data, dict) else None


async def verdict(check: Callable[[Evidence], Awaitable[str]], evidence: Evidence) -> str:
    """What is wrong, or "". Asked again for a while, since another process of the group may still run handlers."""
    wrong = ""
    for _ in range(round(PATIENCE / PAUSE)):
        if not (wrong := await check(evidence)):
            break
        await asyncio.sleep(PAUSE)
    return wrong


CHECKS: dict[str, Callable[[Evidence], Awaitable[str]]] = {
    "every order is paid and shipped, and its history says so": Evidence.every_order_is_shipped,
    "exactly one dead letter was found, and it is replayed": Evidence.one_dead_letter_replayed,
    "all events of a request have its header's correlation id": Evidence.events_share_the_correlation_id,
    "nothing is pending": Evidence.nothing_is_pending,
}
