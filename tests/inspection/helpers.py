"""Groups in every state, as the settling script leaves them, written without a handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import orjson
from redis.asyncio import Redis

from rapids._storage.keys import PARKED, WAITING, Source
from rapids.inspection import Inspector, Page
from tests.worker.helpers import GROUP, STREAM, as_text

Item = TypeVar("Item")

SOURCE = Source(STREAM, GROUP)
REPLAYS = SOURCE.replays()

LISTINGS: dict[str, Callable[..., Awaitable[Page[Any]]]] = {
    "groups": lambda inspector, _group=GROUP, **options: inspector.groups(STREAM, **options),
    "consumers": lambda inspector, group=GROUP, **options: inspector.consumers(STREAM, group, **options),
    "pending": lambda inspector, group=GROUP, **options: inspector.pending(STREAM, group, **options),
    "waiting": lambda inspector, group=GROUP, **options: inspector.waiting(STREAM, group, **options),
    "parked": lambda inspector, group=GROUP, **options: inspector.parked(STREAM, group, **options),
}
"""Every method that gives pages."""


async def add(redis: Redis, *ids: str, stream: str = STREAM) -> list[str]:
    """Append an entry under each of these ids."""
    pipeline = redis.pipeline(transaction=False)
    for entry_id in ids:
        pipeline.xadd(stream, {"n": "1"}, id=entry_id)
    return [as_text(added) for added in await pipeline.execute()]


async def deliver(redis: Redis, count: int, consumer: str | bytes = "worker", source: Source = SOURCE) -> list[str]:
    """Deliver the next entries to a consumer; the group is made if need be."""
    known = [as_text(row["name"]) for row in await redis.xinfo_groups(source.stream)]
    if source.group not in known:
        await redis.xgroup_create(source.stream, source.group, "0")
    read = await redis.xreadgroup(source.group, consumer, {source.stream: ">"}, count=count)  # type: ignore[arg-type]
    rows = read[0][1] if isinstance(read, list) else next(iter(read.values()))[0]
    return [as_text(entry_id) for entry_id, _ in rows]


async def wait(redis: Redis, entry_id: str, due_ms: int, waits: Sequence[str] = (), source: Source = SOURCE) -> None:
    """Let a delivered entry wait."""
    ledger = {
        "n": 1,
        "done": [],
        "dead": {},
        "gave_up": [],
        "waits": {name: {"spent": 1, "due": due_ms} for name in waits},
    }
    await redis.hset(source.ledger, entry_id, orjson.dumps(ledger))  # type: ignore[misc]
    await redis.zadd(source.due, {entry_id: due_ms})
    await redis.xclaim(source.stream, source.group, WAITING.decode(), 0, [entry_id], justid=True)  # type: ignore[list-item]


async def park(redis: Redis, entry_id: str, why: bytes = b"[]", source: Source = SOURCE) -> None:
    """Park a delivered entry."""
    await redis.hset(source.parked, entry_id, why)  # type: ignore[misc]
    await redis.xclaim(source.stream, source.group, PARKED.decode(), 0, [entry_id], justid=True)  # type: ignore[list-item]


async def all_pages(
    listing: Callable[..., Awaitable[Page[Item]]],
    inspector: Inspector,
    *,
    between: Callable[[Page[Item]], Awaitable[None]] | None = None,
    most: int = 1_000,
    **options: Any,
) -> list[Page[Item]]:
    """Every page of a listing; `between` is awaited after each. Fails after `most` pages."""
    pages: list[Page[Item]] = []
    cursor: str | None = None
    while len(pages) < most:
        pages.append(page := await listing(inspector, cursor=cursor, **options))
        if page.cursor is None:
            return pages
        cursor = page.cursor
        if between is not None:
            await between(page)
    raise AssertionError(f"no end after {most} pages")


def ids(*pages: Page[Any]) -> list[str]:
    return [item.entry_id for page in pages for item in page.items]
