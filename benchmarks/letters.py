"""A dead-letter stream of any length: 300 causes of very different sizes.

Each letter has the fields that a router writes, in the same order, and is put there by a plain XADD: no entry needs to
have been delivered before. The index catches up with what others write, so looking at the queue indexes them all.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from uuid import UUID

import orjson
from redis.asyncio import Redis

from benchmarks.jobs import DLQ, FIRST, RARE_ERROR, RARE_LETTERS, STREAM, order
from benchmarks.stage import Wrong
from rapids import DeadLetterQueue

CAUSES = 300
GROUPS = ("billing", "shipping", "search", "mail")
HANDLERS = 20
EVENT_TYPES = 30
THINGS = ("order", "payment", "parcel")
ERRORS = ("TimeoutError", "ValueError", "KeyError", "httpx.ReadTimeout", "sqlalchemy.exc.OperationalError")
POSITIONS = 40
NOTE = "x" * 115
"""What makes the payload 200 bytes long."""

CHUNK = 500
"""Letters one round trip writes."""
LETTERS_PER_MS = 10
"""How many letters share a millisecond of their ids, as in a burst of failures."""
MAX_DELIVERIES, NON_RETRYABLE = "max_deliveries_exceeded", "non_retryable"
MESSAGE = "the other side did not answer the request in time"

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/lib/python3.13/site-packages/rapids/worker/executor.py", line 211, in _attempt
    await self._call(handler, event)
  File "/srv/shop/{group}/handlers.py", line {line}, in {handler}
    await self.client.post(self.url, json=event.model_dump(mode="json"), timeout=self.timeout)
  File "/srv/shop/{group}/client.py", line 88, in post
    raise translated(error, self.url, attempt=attempt, elapsed=clock() - began) from error
{error_type}: {message}
"""


@dataclass(frozen=True, slots=True)
class Cause:
    group: str
    handler: str
    event_type: str
    reason: str
    error_type: str
    line: int

    @property
    def deliveries(self) -> int:
        return 5 if self.reason == MAX_DELIVERIES else 1

    @property
    def position(self) -> str:
        return f"shop.{self.group}.client:88 post" if self.line % 2 else f"shop.{self.group}:{self.line} handle"

    def traceback(self) -> bytes:
        fields = {"group": self.group, "line": self.line, "handler": self.handler, "error_type": self.error_type}
        return TRACEBACK.format(**fields, message=MESSAGE).encode()

    def attempts(self) -> bytes:
        """Each failed attempt: delivery, attempt, when, consumer, type of the error, its text."""
        at = int(time.time() * 1_000)
        deliveries = range(1, self.deliveries + 1)
        return orjson.dumps([[delivery, 1, at, "host-1-4711", self.error_type, MESSAGE] for delivery in deliveries])


def causes() -> list[Cause]:
    """All different, the most frequent one first; always the same."""
    chance = random.Random(6)  # noqa: S311 - always the same
    found: dict[Cause, None] = {}
    while len(found) < CAUSES:
        number = chance.randrange(HANDLERS)
        group = GROUPS[number % len(GROUPS)]
        cause = Cause(
            group=group,
            handler=f"{group}.handle_{number:02}",
            event_type=f"{THINGS[number % 3]}.happened_{chance.randrange(EVENT_TYPES // 3):02}",
            reason=chance.choices((MAX_DELIVERIES, NON_RETRYABLE), (4, 1))[0],
            error_type=chance.choice(ERRORS),
            line=chance.randrange(POSITIONS),
        )
        found[cause] = None
    return list(found)


def _letters(count: int) -> Iterator[tuple[str, dict[bytes, bytes]]]:
    """So many letters, each with its id. The n-th cause is n times as rare as the first; one is the rarest of all."""
    chance, known = random.Random(count), causes()  # noqa: S311
    rare = Cause(GROUPS[0], "billing.handle_00", "order.happened_00", NON_RETRYABLE, RARE_ERROR, 0)
    texts = {cause: (cause.traceback(), cause.attempts()) for cause in (*known, rare)}
    weights = [1 / rank for rank in range(1, CAUSES + 1)]
    first_ms = int(time.time() * 1_000) - count // LETTERS_PER_MS - 1
    for number, cause in enumerate(chance.choices(known, weights, k=count)):
        if number < RARE_LETTERS:  # the oldest ones, which a search from the newest finds last
            cause = rare
        ms, sequence = first_ms + number // LETTERS_PER_MS, number % LETTERS_PER_MS
        letter_id = f"{ms}-{sequence}"
        yield letter_id, _letter(number, letter_id, cause, *texts[cause], datetime.fromtimestamp(ms / 1_000, UTC))


def _letter(
    number: int, letter_id: str, cause: Cause, traceback: bytes, attempts: bytes, failed_at: datetime
) -> dict[bytes, bytes]:
    return {
        b"original_msg_id": b"%d-0" % (1_760_000_000_000 + number),
        b"original_stream": STREAM.encode(),
        b"original_group": cause.group.encode(),
        b"reason": cause.reason.encode(),
        b"error": MESSAGE.encode(),
        b"handler": cause.handler.encode(),
        b"failed_at": failed_at.isoformat().encode(),
        b"event_type": cause.event_type.encode(),
        b"data": orjson.dumps(order(FIRST + number, NOTE)),
        b"schema_version": b"1",
        b"id": str(UUID(int=number, version=4)).encode(),
        b"timestamp": b"2026-11-25T12:00:00.000000Z",
        b"correlation_id": str(UUID(int=number // 10, version=4)).encode(),
        b"causation_id": b"",
        b"metadata": b"{}",
        b"error_type": cause.error_type.encode(),
        b"traceback": traceback,
        b"deliveries": b"%d" % cause.deliveries,
        b"consumer": b"host-%d-4711" % (number % 7),
        b"replay_of": b"",
        b"replay_count": b"0",
        b"position": cause.position.encode(),
        b"attempts": attempts,
        b"letter_id": letter_id.encode(),
    }


async def fill(redis: Redis, count: int) -> None:
    """Write so many letters. Raises `Wrong` unless they are there, and all of them indexed."""
    letters = _letters(count)
    while chunk := list(islice(letters, CHUNK)):
        async with redis.pipeline(transaction=False) as pipeline:
            for letter_id, fields in chunk:
                pipeline.execute_command("XADD", DLQ, letter_id, *(part for pair in fields.items() for part in pair))
            await pipeline.execute()
    queue = DeadLetterQueue(redis, DLQ, dlq_maxlen=None)
    for _ in range(count):  # far more often than needed: each look indexes a thousand
        state = await (getattr(queue, "stats", None) or queue.standing)()
        if not state.unindexed:
            break
    if (state.length, state.unindexed) != (count, 0):
        raise Wrong(f"{state.length:,} letters, {state.unindexed:,} of them not indexed, and {count:,} expected")
