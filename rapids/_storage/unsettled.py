"""What groups have not settled of the entries after an id, and how a test lets time pass for them."""

from collections.abc import Sequence
from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, call, checked, run
from rapids._storage.keys import WAITING, Source

__all__ = [
    "UnsettledEntries",
    "UnsettledRow",
    "append",
    "deliver_again",
    "entries_after",
    "hasten",
    "look",
]

MOST = 1_000
"""How many entries of each kind one answer has."""


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


async def deliver_again(commands: Commands, source: Source, entry_id: str) -> None:
    """Make a settled entry of the group pending again, and due now: as if a process had died with it at its first
    delivery. Raises `RedisError`."""
    claim = ("XCLAIM", source.stream, source.group, WAITING, 0, entry_id, "RETRYCOUNT", 1, "FORCE", "JUSTID")
    for reply in await commands.send([claim, ("ZADD", source.due, 0, entry_id)]):
        checked(reply)
