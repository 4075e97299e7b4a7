"""Many dead letters, and what is to be true of them once an operation has replayed them all."""

from __future__ import annotations

from collections import Counter

from redis.asyncio import Redis

from rapids import DeadLetterQueue, Event, current_delivery
from rapids._storage.keys import Source, letters_archive, letters_archived
from rapids.dead_letters.operation import Operation
from tests.cluster.operation_process import ARCHIVED
from tests.dead_letters.helpers import letter_fields, write_flat
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, make_router, running

REPLAYS = Source(STREAM, GROUP).replays().stream
AT_ONCE = 1_000
"""Entries that are read in one round trip."""


async def write(redis: Redis, dlq: str, count: int) -> list[str]:
    """Write so many letters by the script that writes them; their ids, oldest first."""
    return await write_flat(redis, dlq, [letter_fields(number=number) for number in range(count)])


async def check_replayed_once(redis: Redis, dlq: str, letter_ids: list[str], operation: Operation) -> None:
    """Every letter has been replayed exactly once: by the operation's count, by the replay stream and by a worker."""
    assert (operation.state, operation.errors) == ("completed", ())
    assert (operation.done, operation.skipped, operation.failed) == (len(letter_ids), 0, 0)
    assert await redis.xlen(dlq) == 0
    assert (await DeadLetterQueue(redis, dlq).list()).items == ()
    await _check_archive(redis, dlq, letter_ids)
    once = dict.fromkeys(letter_ids, 1)
    assert await _replayed(redis) == once
    assert await _handled(redis, len(letter_ids)) == once


async def _check_archive(redis: Redis, dlq: str, letter_ids: list[str]) -> None:
    """It has the letters that were replayed last, as many as it may have, each of them once."""
    expected = min(ARCHIVED, len(letter_ids))
    kept = [one.decode() for one in await redis.zrange(letters_archived(dlq), 0, -1)]
    assert kept == letter_ids[-expected:]
    assert await redis.xlen(letters_archive(dlq)) == expected
    for letter_id in (kept[0], kept[-1]):
        letter = await DeadLetterQueue(redis, dlq).get(letter_id)
        assert (letter.state, [change.action for change in letter.history]) == ("replayed", ["replayed"])


async def _replayed(redis: Redis) -> Counter[str]:
    """How often each letter was, by the entries of the replay stream."""
    times, after = Counter[str](), "-"
    while rows := await redis.xrange(REPLAYS, after, "+", count=AT_ONCE):
        times.update(fields[b"replay_of"].decode() for _, fields in rows)
        after = f"({rows[-1][0].decode()}"
    return times


async def _handled(redis: Redis, count: int) -> Counter[str]:
    """How often each replay is handled by a worker that takes them all."""
    times = Counter[str]()
    router = make_router(redis, batch_size=AT_ONCE)

    @router.on(DvOrder, name="pay")
    async def pay(event: Event) -> None:
        delivery = current_delivery()
        assert delivery is not None
        times[str(delivery.replay_of)] += 1

    async def nothing_left() -> bool:
        return times.total() >= count and await redis.xlen(REPLAYS) == 0

    async with running(router):
        await eventually(nothing_left, 60)
    return times
