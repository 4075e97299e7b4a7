"""Dead letters written by hand, for the tests of the queue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from redis.asyncio import Redis

from rapids import DeadLetterQueue
from rapids._core.attempt_log import NO_ATTEMPTS, AttemptLog
from rapids._core.outcomes import Dead, Failure, Reason
from rapids._storage import scripts
from rapids._storage.client.connections import SharedPool, checked, run
from rapids._storage.keys import letter_index
from rapids._wire.letter_format import Origin, write_letter
from tests.worker.helpers import DLQ, GROUP, STREAM, DvOrder, as_text, fields_of

AT_ONCE = 100
"""Letters that are written in one round trip: on a busy machine, the answer to more would come too late."""

WRITE = scripts.assemble(
    "write.lua",
    """-- include: lib/letters.lua
local time = redis.call('TIME')
return add_letter(KEYS[1], KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000), ARGV[1], ARGV, 2, #ARGV)
""",
)
"""Writes a letter as the script does that settles its entry. Its keys: a dead-letter stream and its index."""


def letter_fields(
    *,
    handler: str = "pay",
    group: str = GROUP,
    reason: Reason = Reason.NON_RETRYABLE,
    error: str = "declined",
    error_type: str = "ValueError",
    position: str = "shop:7 pay",
    attempts: AttemptLog = NO_ATTEMPTS,
    entry_id: str = "1700000000000-0",
    fields: dict[bytes, bytes] | None = None,
    **event: Any,
) -> list[bytes]:
    """The names and values of a letter, but for its id."""
    raw = fields_of(DvOrder(**event)) | (fields or {})
    return write_letter(
        [part for pair in raw.items() for part in pair],
        Origin(entry_id, STREAM, group, "worker-1", 5),
        Dead(handler, reason, Failure(error_type, error, "Traceback ...", position), attempts),
    )


async def write(redis: Redis, *, at: int | None = None, **parts: Any) -> str:
    """Write a letter as other writers do, past the index, `at` this time (milliseconds); its id."""
    flat = letter_fields(**parts)
    if at is None:
        seconds, micros = await redis.time()
        last = as_text((await redis.xinfo_stream(DLQ))["last-generated-id"]) if await redis.exists(DLQ) else "0-0"
        at = max(seconds * 1000 + micros // 1000, int(last.partition("-")[0]) + 1)
    letter_id = f"{at}-0"
    return as_text(await redis.execute_command("XADD", DLQ, letter_id, *flat, "letter_id", letter_id))


REFERENCE_FIELDS = {
    "original_msg_id": "1701234567890-0",
    "original_stream": STREAM,
    "original_group": GROUP,
    "reason": "max_deliveries_exceeded",
    "error": "Connection refused",
    "handler": "call_external_api",
    "failed_at": "2024-11-28T12:00:00+00:00",
    "event_type": "dv.order",
    "data": '{"number":5,"text":"x"}',
}
"""A letter as rapids-streams 0.2 writes it."""


async def all_ids(queue: DeadLetterQueue, **options: Any) -> list[str]:
    """The ids of all letters, page by page."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await queue.list(cursor=cursor, **options)
        found += [letter.id for letter in page.items]
        if page.cursor is None:
            return found
        cursor = page.cursor


def ms(moment: datetime) -> int:
    return round(moment.astimezone(UTC).timestamp() * 1000)


async def write_through_script(redis: Redis, count: int = 1, *, maxlen: int = 0, **parts: Any) -> list[str]:
    """Letters written by the script that writes them, so that they are indexed; their ids."""
    flat = letter_fields(**parts)
    return await write_flat(redis, DLQ, [flat] * count, maxlen=maxlen)


async def write_flat(redis: Redis, dlq: str, letters: Sequence[Sequence[bytes]], *, maxlen: int = 0) -> list[str]:
    """Letters, each its names and values, written and indexed as a router does it; their ids."""
    calls = [((dlq, letter_index(dlq)), (maxlen, *flat)) for flat in letters]
    letter_ids: list[str] = []
    for first in range(0, len(calls), AT_ONCE):
        replies = await run(SharedPool(redis, dlq), WRITE, calls[first : first + AT_ONCE])
        letter_ids += [checked(reply).decode() for reply in replies]
    return letter_ids
