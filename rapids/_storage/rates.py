"""The rates of groups: what the workers of each did in every ten seconds of the last hour, kept beside the stream."""

import asyncio
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import ResponseError

from rapids._core.threads import in_own_thread
from rapids._storage import scripts
from rapids._storage.client.connections import Commands
from rapids._storage.keys import Source
from rapids.counters import HISTOGRAMS

__all__ = ["COUNTED", "PERIOD", "RECORDS", "GroupRates", "period_of", "read", "report"]

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

_RECORD = f"Id{len(COUNTED)}I{RANGES}I"
"""As `lib/rates.lua` packs it."""
_RECORD_BYTES, _RECORD_VALUES = struct.calcsize(f">{_RECORD}"), 2 + len(COUNTED) + RANGES


@dataclass(frozen=True, slots=True)
class GroupRates:
    """What the workers of a group did, by columns: each record has its place in all of them, in no order.

    50 groups have 18,600 records, so that an object for each would take a tenth of a second.
    """

    periods: Sequence[int]
    """Which ten seconds each record is about; 0 where none was ever written."""
    added: Sequence[int | None]
    """Entries ever appended to the stream, at the end of that time; None if the server does not count them."""
    counts: Mapping[str, Sequence[int]]
    """By `COUNTED`."""
    handling: Sequence[Sequence[int]]
    """How many runs took so long, for each range of the histogram; all 0 if nobody measured."""


def period_of(now_ms: float) -> int:
    """The number of the ten seconds that a time of the server (milliseconds) is in."""
    return int(now_ms // (PERIOD * 1000))


def report(counts: Sequence[int]) -> bytes:
    """The option of a script that adds to the rates what one worker has counted in the ten seconds before."""
    return scripts.options(counts=counts, period_ms=PERIOD * 1000, records=RECORDS, ttl_ms=TTL_MS)


async def read(commands: Commands, stream: str, groups: Sequence[str]) -> list[GroupRates]:
    """The rates of each group, also old ones, in one round trip."""
    replies = await commands.send([("GET", Source(stream, group).rates) for group in groups])
    return await asyncio.wrap_future(in_own_thread(lambda: [_rates(reply) for reply in replies]))


def _rates(reply: Any) -> GroupRates:
    raw: bytes = b"" if isinstance(reply, ResponseError) else reply or b""  # no key of ours, or no permission
    records = min(len(raw) // _RECORD_BYTES, RECORDS)
    values = struct.unpack(">" + _RECORD * records, raw[: records * _RECORD_BYTES])
    periods, added, *columns = (values[at::_RECORD_VALUES] for at in range(_RECORD_VALUES))
    return GroupRates(
        periods,
        [int(one) if 0 <= one < MAX_ADDED else None for one in added],
        dict(zip(COUNTED, columns, strict=False)),
        columns[len(COUNTED) :],
    )
