"""A dead-letter stream of any length: 300 causes of very different sizes, written by the script that writes letters.

The fields are those that a router writes, and `write_letter.lua` writes and indexes them, as it does where an entry's
letters are in another slot of a Cluster: so no entry needs to have been delivered before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
from redis.asyncio import Redis

from benchmarks.jobs import DLQ, FIRST, RARE_ERROR, RARE_LETTERS, STREAM, order
from benchmarks.stage import Wrong
from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.failures import Failure
from rapids._core.outcomes import Dead, Reason
from rapids._storage import scripts
from rapids._storage.client.connections import SharedPool, checked, run
from rapids._storage.keys import letter_index, letter_written
from rapids._wire.letter_format import Origin, write_letter

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
WRITTEN_MS = 1
"""For how long it is known that a letter was written: none of them is written again."""

TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/lib/python3.13/site-packages/rapids/_worker/executor.py", line 211, in _attempt
    await self._call(handler, event)
  File "/srv/shop/{group}/handlers.py", line {line}, in {handler}
    await self.client.post(self.url, json=event.model_dump(mode="json"), timeout=self.timeout)
  File "/srv/shop/{group}/client.py", line 88, in post
    raise translated(error, self.url, attempt=attempt, elapsed=clock() - began) from error
{error_type}: the other side did not answer the request in time
"""


@dataclass(frozen=True, slots=True)
class Cause:
    group: str
    handler: str
    event_type: str
    reason: Reason
    error_type: str
    line: int

    @property
    def failure(self) -> Failure:
        traceback = TRACEBACK.format(group=self.group, line=self.line, handler=self.handler, error_type=self.error_type)
        position = f"shop.{self.group}.client:88 post" if self.line % 2 else f"shop.{self.group}:{self.line} handle"
        return Failure(self.error_type, "the other side did not answer the request in time", traceback, position)

    @property
    def deliveries(self) -> int:
        return 5 if self.reason is Reason.MAX_DELIVERIES_EXCEEDED else 1


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
            reason=chance.choices((Reason.MAX_DELIVERIES_EXCEEDED, Reason.NON_RETRYABLE), (4, 1))[0],
            error_type=chance.choice(ERRORS),
            line=chance.randrange(POSITIONS),
        )
        found[cause] = None
    return list(found)


def _letters(count: int) -> Iterator[list[bytes]]:
    """The fields of so many letters. The n-th cause is n times as rare as the first; one is the rarest of all."""
    chance, known = random.Random(count), causes()  # noqa: S311
    dead = {cause: _dead(cause) for cause in known}
    rare = Cause(GROUPS[0], "billing.handle_00", "order.happened_00", Reason.NON_RETRYABLE, RARE_ERROR, 0)
    weights = [1 / rank for rank in range(1, CAUSES + 1)]
    for number, cause in enumerate(chance.choices(known, weights, k=count)):
        if number < RARE_LETTERS:  # the oldest ones, which a search from the newest finds last
            yield _letter(number, rare, _dead(rare))
        else:
            yield _letter(number, cause, dead[cause])


def _dead(cause: Cause) -> Dead:
    failure = cause.failure
    attempts = [
        Attempt.of(failure, delivery=delivery, attempt=1, consumer="host-1-4711")
        for delivery in range(1, cause.deliveries + 1)
    ]
    return Dead(cause.handler, cause.reason, failure, AttemptLog.of(*attempts))


def _letter(number: int, cause: Cause, dead: Dead) -> list[bytes]:
    entry_id = f"{1_760_000_000_000 + number}-0"
    origin = Origin(entry_id, STREAM, cause.group, f"host-{number % 7}-4711", cause.deliveries)
    return write_letter(_event(number, cause.event_type), origin, dead)


def _event(number: int, event_type: str) -> list[bytes]:
    fields = {
        b"event_type": event_type.encode(),
        b"schema_version": b"1",
        b"data": orjson.dumps(order(FIRST + number, NOTE)),
        b"id": str(UUID(int=number, version=4)).encode(),
        b"timestamp": b"2026-11-25T12:00:00.000000Z",
        b"correlation_id": str(UUID(int=number // 10, version=4)).encode(),
        b"causation_id": b"",
        b"metadata": b"{}",
    }
    return [part for pair in fields.items() for part in pair]


async def fill(redis: Redis, count: int) -> None:
    """Write so many letters. Raises `Wrong` unless they are there, and all of them indexed."""
    pool, script, index = SharedPool(redis, DLQ), scripts.load("write_letter"), letter_index(DLQ)
    chunk: list[tuple[Sequence[str], Sequence[bytes | int]]] = []
    for number, fields in enumerate(_letters(count), 1):
        chunk.append(((DLQ, letter_written(DLQ, str(number)), index), (WRITTEN_MS, 0, *fields)))
        if len(chunk) == CHUNK or number == count:
            for reply in await run(pool, script, chunk):
                checked(reply)
            chunk.clear()
    length, indexed = await redis.xlen(DLQ), int(await redis.hget(index, "entries") or 0)
    if (length, indexed) != (count, count):
        raise Wrong(f"{length:,} letters, {indexed:,} of them indexed, and {count:,} expected")
