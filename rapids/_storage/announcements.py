"""Announcements: which stream and dead-letter stream the routers in the processes of a Redis use."""

from dataclasses import dataclass
from typing import Any

import orjson

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, Reply, call, checked, run
from rapids._storage.keys import announced_routers

__all__ = ["MAX_ROUTERS", "AnnouncedRow", "announce", "announced"]

REMEMBERED_MS = 3 * 86_400_000
"""For how long a router is remembered after it last ran: over a weekend, since people look for its stream then, too."""

MAX_ROUTERS = 1_000
"""How many routers are remembered: those that were announced last."""

MAX_BYTES = 2_000
"""A router whose names are longer is not announced."""


@dataclass(frozen=True, slots=True)
class AnnouncedRow:
    """A router as it announced itself. `at_ms`: when it last did, by the server's clock (milliseconds)."""

    stream: str
    group: str
    dlq_stream: str | None
    dlq_maxlen: int | None
    at_ms: int


async def announce(
    commands: Commands, *, stream: str, group: str, dlq_stream: str | None, dlq_maxlen: int | None
) -> None:
    """Announce a router. It is one member, however many processes run it."""
    member = orjson.dumps([stream, group, dlq_stream, dlq_maxlen])
    if len(member) <= MAX_BYTES:
        call_ = ((announced_routers(),), (member, REMEMBERED_MS, MAX_ROUTERS))
        checked((await run(commands, scripts.load("announce"), [call_]))[0])


async def announced(commands: Commands) -> list[AnnouncedRow]:
    """The routers that were announced, the latest first."""
    found = await call(commands, "ZRANGE", announced_routers(), 0, MAX_ROUTERS - 1, "REV", "WITHSCORES")
    # Pairs, or one list, as the protocol has it.
    flat: list[Reply] = [part for row in found for part in (row if isinstance(row, list) else [row])]  # pyright: ignore[reportUnknownVariableType]
    rows: list[AnnouncedRow] = []
    for member, score in zip(flat[::2], flat[1::2], strict=True):
        try:
            parts: Any = orjson.loads(member)
        except orjson.JSONDecodeError:
            continue
        match parts:  # another program, or a newer version, may have written anything
            case [str(stream), str(group), (str() | None) as dlq_stream, (int() | None) as dlq_maxlen, *_]:
                rows.append(AnnouncedRow(stream, group, dlq_stream, dlq_maxlen, int(float(score))))
            case _:
                pass
    return rows
