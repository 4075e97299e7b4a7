"""Finding the entries of a correlation id, and what groups have made of them. Nothing here writes.

Each function is one script in the stream's own slot, for a bounded time: what it looks at and sends back is limited in
entries and in bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, checked, run
from rapids._storage.inspection_queries import PendingRow
from rapids._storage.keys import Source, consumers_by_group
from rapids._wire.entry_format import Fields

__all__ = ["Found", "GroupTrace", "Looked", "groups", "look"]

MOST_GROUPS = 50
MOST_ENTRIES = 1_000
"""Entries that one script looks at."""
MOST_BYTES = 4_000_000
MOST_SENT_BACK = 1_000_000


@dataclass(frozen=True, slots=True)
class Found:
    """An entry: its first value of each name that was asked for, cut, and how long those were (bytes)."""

    entry_id: str
    values: Mapping[bytes, bytes]
    sizes: Mapping[bytes, int]

    @property
    def fields(self) -> Fields:
        """Names and values in turn."""
        return [part for pair in self.values.items() for part in pair]

    def whole(self, name: bytes) -> bytes | None:
        """A value, None where it was cut."""
        value = self.values.get(name, b"")
        return value if self.sizes.get(name, 0) == len(value) else None


@dataclass(frozen=True, slots=True)
class Looked:
    """What looking from the newest entry on came to. `now_ms` is the server's clock (milliseconds)."""

    now_ms: int
    entries: int
    newest: str | None
    oldest: str | None
    ended: bool
    """Whether nothing of the range is left to be looked at."""
    first: str | None
    """The stream's oldest entry."""
    found: list[Found]


@dataclass(frozen=True, slots=True)
class GroupTrace:
    """What a group has made of entries, each by its id: `undelivered`, `settled`, or what is pending."""

    name: bytes
    entries: Mapping[str, str | PendingRow]


async def look(
    commands: Commands,
    stream: str,
    correlation_id: str,
    names: Mapping[bytes, int],
    *,
    start: str = "+",
    oldest: str = "-",
    most: int,
    entry_ids: Sequence[str] = (),
) -> Looked:
    """Look at up to `most` entries, from the id `start` (or behind it, with `(` before) down to `oldest`."""
    wanted = [part for pair in names.items() for part in pair]
    limits = (min(most, MOST_ENTRIES), MOST_BYTES, MOST_SENT_BACK)
    arguments = (start, oldest, correlation_id, *limits, len(names), *wanted, *entry_ids)
    [reply] = await run(commands, scripts.load("trace_entries"), [((stream,), arguments)])
    now, looked, newest, last, ended, first, rows = checked(reply)
    found: list[Found] = []
    for entry_id, values, sizes in rows:
        named = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        found.append(Found(entry_id.decode(), named, dict(zip(names, sizes, strict=True))))
    return Looked(now, looked, _text(newest), _text(last), ended == 1, _text(first), found)


async def groups(
    commands: Commands, stream: str, entry_ids: Sequence[str], *, names_of: str
) -> tuple[list[GroupTrace], bool]:
    """What each of a stream's groups made of the entries, and whether there are more groups than it told of.

    `names_of` is the stream by which consumers' names are held: for a replay stream, the one beside which it is.
    """
    of_any = Source(stream, "")
    keys = (of_any.ledger, of_any.due, of_any.parked, consumers_by_group(names_of))
    [reply] = await run(commands, scripts.load("trace_groups"), [((stream,), (MOST_GROUPS, *keys, *entry_ids))])
    rows, more = checked(reply)
    traced: list[GroupTrace] = []
    for name, entries in rows:
        states = {
            entry_id: state.decode() if pending is None else PendingRow(*pending)
            for entry_id, (state, pending) in zip(entry_ids, entries, strict=True)
        }
        traced.append(GroupTrace(name, states))
    return traced, more == 1


def _text(entry_id: bytes | None) -> str | None:
    return None if entry_id is None else entry_id.decode()
