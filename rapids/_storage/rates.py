"""The rates of groups: what the workers of each did in every ten seconds of the last hour, kept beside the stream."""

import asyncio
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from rapids._core.threads import in_own_thread
from rapids._storage import scripts
from rapids._storage.client.connections import Commands
from rapids._storage.keys import Source
from rapids.counters import HISTOGRAMS

__all__ = ["COUNTED", "PERIOD", "RECORDS", "RateRecord", "period_of", "read", "report"]

PERIOD = 10
"""Seconds that a record is about. Records begin at multiples of it since 1970, by the server's clock."""

RECORDS = 372
"""Records that are kept: those of an hour, and of two minutes more for what arrives late."""

MAX_ADDED = 2**63
"""Redis counts fewer entries. A number that is none is no count either."""

TTL_MS = 3_720_000
"""Milliseconds after the last report until the rates of a group are deleted."""

COUNTED = ("delivered", "handled", "failed", "retried", "dead")
"""The counters in a record, in this order. The counts of `handling`, the histogram, come after them."""

RANGES = len(HISTOGRAMS["handling"].bounds) + 1

_RECORD = struct.Struct(f">Id{len(COUNTED)}I{RANGES}I")
"""As `lib/rates.lua` packs it."""


@dataclass(frozen=True, slots=True)
class RateRecord:
    """What the workers of a group did in ten seconds."""

    added: int | None
    """Entries ever appended to the stream, at the end of that time; None if the server does not count them."""
    counts: Sequence[int]
    """By `COUNTED`."""
    handling: Sequence[int]
    """How many runs took so long, by the ranges of the histogram; all 0 if nobody measured."""


def period_of(now_ms: float) -> int:
    """The number of the ten seconds that a time of the server (milliseconds) is in."""
    return int(now_ms // (PERIOD * 1000))


def report(counts: Sequence[int]) -> bytes:
    """The option of a script that adds to the rates what one worker has counted in the ten seconds before."""
    return scripts.options(counts=counts, period_ms=PERIOD * 1000, records=RECORDS, ttl_ms=TTL_MS)


async def read(commands: Commands, stream: str, groups: Sequence[str]) -> list[dict[int, RateRecord]]:
    """The records of each group by the numbers of their ten seconds, also old ones, in one round trip."""
    replies = await commands.send([("GET", Source(stream, group).rates) for group in groups])
    # A thread takes them apart, since 50 groups have 18,600 records.
    return await asyncio.wrap_future(in_own_thread(lambda: [_records(reply) for reply in replies]))


def _records(reply: Any) -> dict[int, RateRecord]:
    raw: bytes = b"" if isinstance(reply, ResponseError) else reply or b""  # no key of ours, or no permission
    first = 2 + len(COUNTED)
    return {
        row[0]: RateRecord(int(row[1]) if 0 <= row[1] < MAX_ADDED else None, row[2:first], row[first:])
        for row in _RECORD.iter_unpack(raw[: len(raw) // _RECORD.size * _RECORD.size])
        if row[0]  # none was ever written there
    }
