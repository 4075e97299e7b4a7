"""Writing settlements: one script call for each entry, many calls in one round trip."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rapids._storage import scripts
from rapids._storage.client.connections import Command, Commands, Reply, run
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source, letter_index
from rapids._storage.terms import Term, keys_of, option_of
from rapids._wire.entry_format import EVENT_FIELDS

__all__ = ["Letter", "SettleCall", "Verb", "is_filled", "settle"]

Verb: TypeAlias = Literal["ack", "keep", "park", "release", "bury"]


SENT_BYTES = 256 * 1024
"""How many bytes of an event are sent with its dead letter: other commands wait for that."""


def is_filled(entry: RawEntry) -> bool:
    """Whether the script adds the fields of an entry to its letters, as they are large or could not be fetched.

    Those of a replay are sent if they are here: they differ from what its entry has.
    """
    if not entry.fields or entry.source.is_replay:
        return not entry.fields
    return sum(map(len, entry.fields)) > SENT_BYTES


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter to write: its handler, and its fields without its id."""

    handler: str
    fields: Sequence[bytes]
    is_filled: bool = False
    """Whether the script adds the fields of the entry to it. They are not sent, then."""


@dataclass(frozen=True, slots=True)
class SettleCall:
    """What to do with one entry."""

    source: Source
    entry_id: bytes
    verb: Verb
    ledger: bytes
    delay_ms: int = 0
    deliveries: int = 0
    """The delivery count to set when the entry is released."""
    delivery: int = 2**31
    """The delivery that is settled: an entry that was delivered again since then is not changed."""
    why: bytes = b""
    taken_with: bytes = b""
    """The ledger from when the entry was taken, empty for none: a failover may have lost what it records."""
    letters: Sequence[Letter] = ()
    term: Term | None = None
    """In a group with one active consumer, the term in which the entry was taken."""


async def settle(
    commands: Commands, consumer: str, calls: Sequence[SettleCall], *, dlq: str | None, dlq_maxlen: int | None
) -> list[Reply]:
    """Settle entries with the script. Returns what was done for each, or its error. Raises `RedisError` if no answer
    came."""
    requests = list[tuple[Sequence[str], Command]]()
    for one in calls:
        source = one.source
        letter_keys = (source.ledger, source.ledger) if dlq is None else (dlq, letter_index(dlq))
        options: dict[str, object] = {
            "group": source.group,
            "consumer": consumer,
            "id": one.entry_id.decode(),
            "verb": one.verb,
            "is_replay": source.is_replay,
            "delay": one.delay_ms,
            "deliveries": one.deliveries,
            "delivery": one.delivery,
            "maxlen": str(dlq_maxlen or 0),
            "letters": [(letter.handler, len(letter.fields), letter.is_filled) for letter in one.letters],
            **option_of(one.term),
        }
        if any(letter.is_filled for letter in one.letters):
            options["fields"] = [name.decode() for name in EVENT_FIELDS]
        fields = [part for letter in one.letters for part in letter.fields]
        keys = (
            source.stream,
            source.ledger,
            source.due,
            source.parked,
            *letter_keys,
            source.restoring,
            *keys_of(one.term),
        )
        requests.append((keys, (json.dumps(options), one.ledger, one.taken_with, one.why, *fields)))
    return await run(commands, scripts.load("settle"), requests)
