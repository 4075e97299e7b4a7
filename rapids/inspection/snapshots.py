"""What an inspector saw: frozen values, as of one moment.

Durations are whole milliseconds and say so in their names. Moments are UTC by the server's clock. Names of groups,
consumers and handlers are hostile text: show them as data only; bytes that are not UTF-8 are written as escapes.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, TypeAlias, TypeVar

from rapids._core.attempt_log import Attempt
from rapids._core.json_schema import with_json_schema

__all__ = [
    "ConsumerSnapshot",
    "GroupSnapshot",
    "HandlerAttempts",
    "Page",
    "ParkedFailure",
    "PendingEntry",
    "PendingState",
    "StreamSnapshot",
]

PendingState: TypeAlias = Literal["held", "waiting", "parked"]
"""`held`: a consumer has the entry, in a handler or on its way to one. `waiting`: it is to be delivered again when it
is due. `parked`: it failed for good where there is no dead-letter stream, and is not run again."""

Item = TypeVar("Item", covariant=True)


@with_json_schema
@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """A stream."""

    at: datetime
    """When this was so."""
    stream: str
    length: int
    """Entries that are in it now."""
    first_id: str | None
    """The oldest entry that is in it; None where none is."""
    first_at: datetime | None
    """When that entry was appended, as its id says; None also where an id made by hand says no time there is."""
    last_id: str | None
    """The newest entry that is in it."""
    last_at: datetime | None
    entries_added: int | None
    """Entries ever appended; None where the server does not count them (before Redis 7.0)."""
    groups: int
    """How many consumer groups it has."""
    memory: int | None
    """Bytes it takes on the server, as MEMORY USAGE estimates; None where that command is not allowed."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """A consumer group of a stream. Counts are entries, but for the consumers."""

    at: datetime
    """When this was so."""
    stream: str
    group: str
    last_delivered_id: str
    """The newest entry that was delivered to the group; `0-0` before the first."""
    last_delivered_at: datetime | None
    """When that entry was appended, as its id says; None also before the first."""
    entries_read: int | None
    """Entries ever delivered, as the server reckons; None where it does not know (always before Redis 7.0)."""
    lag: int
    """Entries not yet delivered to the group."""
    lag_exact: bool
    """Whether `lag` is exact. The server knows it since Redis 7.0, but for streams with deletions; where it does not,
    up to a hundred entries are counted, and of more it is an estimate from the times in entry ids."""
    pending: int
    """Delivered and not yet acknowledged: what is held, waiting and parked."""
    held: int
    """Of these, what consumers have, dead ones included."""
    waiting: int
    """What is to be delivered again when it is due."""
    parked: int
    """What failed for good where there is no dead-letter stream."""
    oldest_unsettled_id: str | None
    """The oldest entry that is held or waiting or was not delivered yet; None where all is settled. Not a parked one:
    nobody is at work on it, and it would hide what becomes of all the others."""
    oldest_unsettled_ms: int | None
    """How long ago that entry was appended, as its id says (milliseconds)."""
    replays: int
    """Replays of dead letters that are not settled yet, in the group's replay stream."""
    consumers: int
    """Consumers the group knows, those that died included until they are removed (`consumer_ttl`)."""
    consumers_alive: int
    """Those of them whose name a living Rapids process holds."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class ConsumerSnapshot:
    """A consumer of a group."""

    consumer: str
    alive: bool
    """Whether a living process holds the name. One that was killed holds it for another 6 seconds; a consumer of
    another library never does: tell by `idle_ms`."""
    alive_since: datetime | None
    """When that process's router started, by its own clock; None if it is not alive."""
    seen_at: datetime
    """When it last asked the group for something, or renewed a lease: if it is not alive, since when about."""
    idle_ms: int
    """How long ago that was (milliseconds)."""
    inactive_ms: int | None
    """How long ago it last got something (milliseconds); None if never, or before Redis 7.2."""
    pending: int
    """Entries it holds."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class ParkedFailure:
    """Why an entry is parked: a handler that gave up. Texts are hostile input."""

    handler: str
    reason: str
    error: str


@with_json_schema
@dataclass(frozen=True, slots=True)
class HandlerAttempts:
    """How a handler failed so far on an entry that is not acknowledged."""

    handler: str
    attempts: tuple[Attempt, ...]
    """Oldest first: of many, the first five and the last fifteen. Deliveries of which nobody said what came of them are
    among them, as far as the entry was settled since: see `Attempt.recorded`."""
    left_out: int = 0
    """How many are left out between the fifth and the sixth."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class PendingEntry:
    """An entry that was delivered to a group and is not acknowledged."""

    entry_id: str
    appended_at: datetime | None
    """When it was appended, as its id says; None where an id made by hand says no time there is."""
    state: PendingState
    consumer: str | None
    """Who holds it; None unless it is held."""
    consumer_alive: bool
    """Whether a living Rapids process goes by that name. If not, the entry is taken over after `claim_min_idle_ms`."""
    idle_ms: int | None
    """For a held entry, how long ago its lease was renewed; for others, since when they wait or are parked
    (milliseconds). None for a waiting entry whose group was lost, until it is delivered again."""
    deliveries: int
    """How often it was delivered."""
    due_at: datetime | None = None
    """For a waiting entry: when it is to be delivered again."""
    handlers: tuple[str, ...] = ()
    """The handlers that are to run again for it, as far as is known: of a waiting entry, or a held one that waited."""
    failures: tuple[ParkedFailure, ...] = ()
    """For a parked entry: why, as far as that is known."""
    attempts: tuple[HandlerAttempts, ...] = ()
    """The failed attempts of the handlers that are to run again, or gave up where there is no dead-letter stream."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some of many."""

    at: datetime
    """When this was so."""
    items: tuple[Item, ...]
    cursor: str | None
    """Where the next page starts; None after the last one. A page may be short, even empty, and have a next one."""
