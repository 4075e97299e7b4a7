"""What groups have not settled of the entries after an id, and how a test lets time pass for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, call, checked, run
from rapids._storage.keys import WAITING, Source

__all__ = [
    "UnsettledEntries",
    "UnsettledRow",
    "abandon",
    "append",
    "entries_after",
    "forget_consumer",
    "hasten",
    "look",
]

MOST = 1_000
"""How many entries of each kind one answer has."""

LONG_AGO_MS = 30 * 86_400_000
"""For how long an abandoned entry was idle: longer than any `claim_min_idle_ms` of a test."""


@dataclass(frozen=True, slots=True)
class UnsettledRow:
    """An entry that its group has not settled."""

    entry_id: str
    consumer: bytes | None
    """Who has it; None if it was not delivered yet."""
    deliveries: int = 0
    due_ms: float | None = None
    """Of a waiting one, when it is due, by the server's clock (milliseconds)."""

    @property
    def is_waiting(self) -> bool:
        return self.consumer == WAITING


@dataclass(frozen=True, slots=True)
class UnsettledEntries:
    """The answer about one group, of one moment."""

    last_id: str
    now_ms: int
    rows: tuple[UnsettledRow, ...]


async def look(commands: Commands, source: Source, after: str) -> UnsettledEntries:
    """What the group has not settled of the entries after `after`. Parked entries are settled. Raises `RedisError`."""
    call_ = ((source.stream, source.due), (source.group, after, MOST))
    last, now, pending, undelivered = checked((await run(commands, scripts.load("unsettled"), [call_]))[0])
    rows = [
        UnsettledRow(entry_id.decode(), consumer, deliveries, None if due is None else float(due))
        for entry_id, consumer, deliveries, due in pending
    ]
    rows += [UnsettledRow(entry_id.decode(), None) for entry_id in undelivered]
    return UnsettledEntries(last.decode(), now, tuple(rows))


async def hasten(commands: Commands, source: Source, entry_id: str, most_ms: int) -> int:
    """Let the time until a waiting entry is due pass at once. Returns how long that was (milliseconds), 0 if it does
    not wait; negative if it is longer than `most_ms`: then it goes on waiting. Raises `RedisError`."""
    call_ = ((source.ledger, source.due), (entry_id, most_ms))
    return checked((await run(commands, scripts.load("hasten"), [call_]))[0])


async def entries_after(commands: Commands, stream: str, after: str) -> list[tuple[str, Sequence[bytes]]]:
    """The ids and fields of all entries after an id. Raises `RedisError`."""
    found: list[tuple[str, Sequence[bytes]]] = []
    while True:
        page = await call(commands, "XRANGE", stream, f"({after}", "+", "COUNT", MOST)
        found += [(entry_id.decode(), fields) for entry_id, fields in page]
        if len(page) < MOST:
            return found
        after = found[-1][0]


async def append(commands: Commands, stream: str, fields: Sequence[bytes]) -> str:
    """Append an entry with these fields. Returns its id. Raises `RedisError`."""
    return (await call(commands, "XADD", stream, "*", *fields)).decode()


async def abandon(commands: Commands, source: Source, entry_id: str, consumer: str) -> None:
    """Make an entry that the group has settled pending again, as if this consumer had died with it at its first
    delivery. Raises `RedisError`."""
    command = ("XCLAIM", source.stream, source.group, consumer, 0, entry_id)
    await call(commands, *command, "IDLE", LONG_AGO_MS, "RETRYCOUNT", 1, "FORCE", "JUSTID")


async def forget_consumer(commands: Commands, source: Source, consumer: str) -> None:
    """Remove a consumer. Raises `RedisError`."""
    await call(commands, "XGROUP", "DELCONSUMER", source.stream, source.group, consumer)
