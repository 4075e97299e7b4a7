"""What live updates are made of: letters, groups, pauses and operations, read once for all clients that listen."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args
from zlib import crc32

from redis.exceptions import ResponseError
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetterQueue
from rapids.dead_letters import Operation
from rapids.inspection import Overview, OverviewReader
from rapids_fastapi.admin.payload import cleaned

__all__ = ["KINDS", "ChangesReader", "Item", "Kind", "LiveState"]

Kind: TypeAlias = Literal["letters", "groups", "pauses", "operations"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FRESH = 1.0
"""Seconds for which a state is reused, so that any number of clients cause at most one read a second."""

MAX_OPERATIONS = 10
"""Operations of a dead-letter queue that are looked at: the newest."""

Item: TypeAlias = Mapping[str, object]
"""What a client gets about one thing."""


@dataclass(frozen=True, slots=True)
class LiveState:
    """Names, ids and counts at one moment, by kind and name. It has no payloads, errors and reasons."""

    items: Mapping[Kind, Mapping[tuple[str, ...], Item]]
    digests: Mapping[Kind, str]
    """Of the items of each kind. The same in every process that sees the same."""


class ChangesReader:
    """Reads the state, at most once a second for any number of clients, and only while one listens.

    It takes what the overview takes, which it shares with those who ask for that, and one round trip for the operations
    of each dead-letter queue.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._last: LiveState | None = None
        self._read_at = 0.0

    async def read(self, overview: OverviewReader, queues: Mapping[str, DeadLetterQueue]) -> LiveState:
        """The state. Raises `redis.exceptions.RedisError` if Redis does not answer."""
        async with self._turn:
            if self._last is None or time.monotonic() - self._read_at >= FRESH:
                found = await overview.read()
                operations: dict[str, tuple[Operation, ...]] = {}
                for one in found.queues:
                    if (queue := queues.get(one.dlq)) is not None:
                        with suppress(ResponseError):  # one of many names must not hide the others
                            operations[one.dlq] = (await queue.operations.list(limit=MAX_OPERATIONS)).items
                self._last = await run_in_threadpool(_state, found, operations)
                self._read_at = time.monotonic()
            return self._last


def _state(overview: Overview, operations: Mapping[str, tuple[Operation, ...]]) -> LiveState:
    failed_at: dict[str | None, str] = {}
    for finding in overview.findings:
        if finding.last_at is not None:
            failed_at[finding.dlq] = max(failed_at.get(finding.dlq, ""), finding.last_at.isoformat())
    groups = [group for stream in overview.streams for group in stream.groups]
    items: dict[Kind, dict[tuple[str, ...], Item]] = {
        "letters": {
            (one.dlq,): {
                "dlq": one.dlq,
                "length": one.length,
                "causes": one.causes,
                "cut": one.cut,
                "last_at": failed_at.get(one.dlq),
            }
            for one in overview.queues
        },
        "groups": {
            (one.stream, one.group): {
                "stream": one.stream,
                "group": one.group,
                "last_delivered_id": one.last_delivered_id,
                "lag": one.lag,
                "pending": one.pending,
                "waiting": one.waiting,
                "parked": one.parked,
                "consumers_alive": one.consumers_alive,
                "dead_letters": one.dead_letters,
            }
            for one in groups
        },
        "pauses": {
            (one.stream, one.group): {"stream": one.stream, "group": one.group, "since": one.pause.since.isoformat()}
            for one in groups
            if one.pause is not None
        },
        "operations": {
            (dlq, one.id): {
                "dlq": dlq,
                "id": one.id,
                "kind": one.kind,
                "state": one.state,
                "total": one.total,
                "done": one.done,
                "skipped": one.skipped,
                "failed": one.failed,
            }
            for dlq, listed in operations.items()
            for one in listed
        },
    }
    for named in items.values():
        named.update({name: cleaned(item) for name, item in named.items()})
    return LiveState(items, {kind: f"{crc32(repr(items[kind]).encode()):08x}" for kind in KINDS})
