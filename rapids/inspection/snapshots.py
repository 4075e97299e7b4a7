"""Snapshots that the inspector returns: frozen values of one moment.

Durations are whole milliseconds, and their names say so. Times are UTC by the server's clock. Names of groups,
consumers and handlers are untrusted text: show them as data only. Bytes that are not UTF-8 are written as escapes.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

import orjson

from rapids._core.attempt_log import Attempt
from rapids._core.entry_id import FIRST_ID, moment, order, time_of
from rapids._core.json_schema import with_json_schema
from rapids._core.outcomes import Ledger
from rapids._storage import groups
from rapids._storage.announcements import AnnouncedRow
from rapids._storage.inspection_queries import (
    COUNTED,
    ConsumerRow,
    GroupRow,
    GroupRows,
    PendingRow,
    StreamRow,
    WaitingRow,
)
from rapids._storage.keys import PARKED, WAITING
from rapids.control import Pause

__all__ = [
    "AnnouncedRouter",
    "ConsumerSnapshot",
    "FoundStreams",
    "GroupSnapshot",
    "HandlerAttempts",
    "Page",
    "ParkedFailure",
    "PendingEntry",
    "PendingState",
    "StreamSnapshot",
    "announced",
    "consumer",
    "group",
    "lag",
    "pending",
    "server_time",
    "stream",
    "waiting",
]

PendingState: TypeAlias = Literal["held", "waiting", "parked"]
"""`held`: a consumer has the entry, and its handlers run or will run. `waiting`: it is delivered again when it is due.
`parked`: it failed for good, there is no dead-letter stream, and it is not run again."""

Item = TypeVar("Item", covariant=True)


@dataclass(frozen=True, slots=True)
class AnnouncedRouter:
    """A router in some process, as it announced itself to the others."""

    stream: str
    group: str
    dlq_stream: str | None
    """Its dead-letter stream; None if it parks what failed for good."""
    dlq_maxlen: int | None
    """Letters that its dead-letter stream is trimmed to; None for no limit."""
    at: datetime
    """When it last announced itself, by the server's clock: about a minute ago at most while it runs."""


@dataclass(frozen=True, slots=True)
class FoundStreams:
    """The streams on a server, by name, without those that Rapids keeps beside them."""

    streams: tuple[str, ...]
    dlqs: tuple[str, ...]
    """Dead-letter streams: those with an index, and those whose name ends with `:dlq`."""
    complete: bool
    """Whether all keys of the server were looked at."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class StreamSnapshot:
    """A stream."""

    at: datetime
    """When this was so."""
    stream: str
    length: int
    """Entries that are in the stream now."""
    first_id: str | None
    """The oldest entry in the stream; None if it is empty."""
    first_at: datetime | None
    """When that entry was appended, by its id; None also if an id written by hand has no valid time."""
    last_id: str | None
    """The newest entry in the stream."""
    last_at: datetime | None
    entries_added: int | None
    """Entries ever appended; None if the server does not count them (before Redis 7.0)."""
    groups: int
    """How many consumer groups it has."""
    memory: int | None
    """Bytes that it takes on the server, as MEMORY USAGE estimates; None if that command is not allowed."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """A consumer group of a stream. Counts are in entries, except those of consumers."""

    at: datetime
    """When this was so."""
    stream: str
    group: str
    last_delivered_id: str
    """The newest entry that was delivered to the group; `0-0` before the first."""
    last_delivered_at: datetime | None
    """When that entry was appended, by its id; None also before the first."""
    entries_read: int | None
    """Entries ever delivered, as the server counts; None if it does not know (always before Redis 7.0)."""
    lag: int
    """Entries not yet delivered to the group."""
    lag_exact: bool
    """Whether `lag` is exact. The server knows it since Redis 7.0, except for streams with deletions. If it does not,
    up to a hundred entries are counted; for more, `lag` is an estimate from the times in entry ids."""
    pending: int
    """Entries delivered and not yet acknowledged: held, waiting and parked ones."""
    held: int
    """Pending entries that consumers have, including dead consumers."""
    waiting: int
    """Pending entries that are delivered again when they are due."""
    parked: int
    """Pending entries that failed for good, since there is no dead-letter stream."""
    oldest_unsettled_id: str | None
    """The oldest entry that is held, waiting or not delivered yet; None if all is settled. Parked entries do not count:
    no consumer works on them, and they would hide the progress of all others."""
    oldest_unsettled_ms: int | None
    """How long ago that entry was appended, by its id (milliseconds)."""
    replays: int
    """Replays of dead letters that are not settled yet, in the group's replay stream."""
    consumers: int
    """Consumers of the group, including dead ones until they are removed (`consumer_ttl`)."""
    consumers_alive: int
    """Consumers whose name a living Rapids process holds."""
    pause: Pause | None = None
    """The current pause; None while the group is not paused."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class ConsumerSnapshot:
    """A consumer of a group."""

    consumer: str
    alive: bool
    """Whether a living process holds the name. A killed process holds it for another 6 seconds. A consumer of another
    library never holds it: judge it by `idle_ms`."""
    alive_since: datetime | None
    """When that process's router started, by its own clock; None if it is not alive."""
    seen_at: datetime
    """When it last read from the group or renewed a lease. If it is not alive, it ended at about this time."""
    idle_ms: int
    """How long ago that was (milliseconds)."""
    inactive_ms: int | None
    """How long ago it last got an entry (milliseconds); None if never, or before Redis 7.2."""
    pending: int
    """Entries that it holds."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class ParkedFailure:
    """Why an entry is parked: a handler that failed for good. Texts are untrusted input."""

    handler: str
    reason: str
    error: str


@with_json_schema
@dataclass(frozen=True, slots=True)
class HandlerAttempts:
    """The failed attempts of a handler so far on an entry that is not acknowledged."""

    handler: str
    attempts: tuple[Attempt, ...]
    """Oldest first; if there are many, the first five and the last fifteen. They include deliveries without a record,
    as far as the entry was settled since then: see `Attempt.recorded`."""
    left_out: int = 0
    """How many attempts are left out between the fifth and the sixth."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class PendingEntry:
    """An entry that was delivered to a group and is not acknowledged."""

    entry_id: str
    appended_at: datetime | None
    """When it was appended, by its id; None if an id written by hand has no valid time."""
    state: PendingState
    consumer: str | None
    """The consumer that holds it; None unless one does."""
    consumer_alive: bool
    """Whether a living Rapids process has that name. If not, the entry is taken over after `claim_min_idle_ms`."""
    idle_ms: int | None
    """For a held entry, how long ago its lease was renewed; for others, how long they have been waiting or parked
    (milliseconds). None for a waiting entry whose group was lost, until it is delivered again, and after an XNACK."""
    deliveries: int
    """How often it was delivered."""
    due_at: datetime | None = None
    """For a waiting entry: when it is delivered again."""
    handlers: tuple[str, ...] = ()
    """The handlers that are to run again for it, as far as known: of a waiting entry, or of a held one that waited."""
    failures: tuple[ParkedFailure, ...] = ()
    """For a parked entry: why it is parked, as far as known."""
    attempts: tuple[HandlerAttempts, ...] = ()
    """The failed attempts of handlers that are to run again, or that failed for good without a dead-letter stream."""


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """A page of a list."""

    at: datetime
    """When this was so."""
    items: tuple[Item, ...]
    cursor: str | None
    """Where the next page starts; None after the last one. A page may be short, even empty, and have a next one."""


def announced(row: AnnouncedRow) -> AnnouncedRouter:
    """The router of an announcement."""
    return AnnouncedRouter(row.stream, row.group, row.dlq_stream, row.dlq_maxlen, server_time(row.at_ms))


def stream(name: str, row: StreamRow) -> StreamSnapshot:
    return StreamSnapshot(
        at=server_time(row.now_ms),
        stream=name,
        length=row.length,
        first_id=_text_or_none(row.first_id),
        first_at=_time_or_none(row.first_id),
        last_id=_text_or_none(row.last_id),
        last_at=_time_or_none(row.last_id),
        entries_added=row.entries_added,
        groups=row.groups,
        memory=row.memory,
    )


def group(stream: str, found: GroupRows, row: GroupRow) -> GroupSnapshot:
    undelivered, exact = lag(found, row)
    last_delivered = row.last_delivered_id.decode()
    oldest = min(filter(None, (row.oldest_id, row.next_id)), key=order, default=None)
    return GroupSnapshot(
        at=server_time(found.now_ms),
        stream=stream,
        group=_text(row.name),
        last_delivered_id=last_delivered,
        last_delivered_at=None if last_delivered == FIRST_ID else time_of(row.last_delivered_id),
        entries_read=row.entries_read,
        lag=undelivered,
        lag_exact=exact,
        pending=row.pending,
        held=row.pending - row.held_by_waiting - row.parked,
        waiting=row.due,
        parked=row.parked,
        oldest_unsettled_id=_text_or_none(oldest),
        oldest_unsettled_ms=None if oldest is None else max(found.now_ms - order(oldest)[0], 0),
        replays=row.replays,
        consumers=row.consumers,
        consumers_alive=row.living,
        pause=None if row.paused is None else Pause(row.paused.actor, row.paused.reason, row.paused.since),
    )


def lag(found: GroupRows, row: GroupRow) -> tuple[int, bool]:
    """The number of undelivered entries, and whether it is exact.

    Some servers also count entries that were trimmed before they were read. Here, only entries in the stream count.
    """
    if found.first_id is None or found.last_id is None or row.next_id is None:
        return 0, True
    delivered, first, last = order(row.last_delivered_id), order(found.first_id), order(found.last_id)
    if delivered < first:
        return found.length, True
    if row.lag is not None:
        return min(max(row.lag, 0), found.length), True
    if row.counted < COUNTED:
        return row.counted, True
    share = (last[0] - delivered[0]) / max(last[0] - first[0], 1)
    return min(max(round(found.length * share), COUNTED), found.length), False


def consumer(now_ms: int, row: ConsumerRow) -> ConsumerSnapshot:
    since = None if row.token is None else groups.token_made_at(row.token)
    return ConsumerSnapshot(
        consumer=_text(row.name),
        alive=row.token is not None,
        alive_since=None if since is None else moment(since),
        seen_at=server_time(now_ms - row.idle_ms),
        idle_ms=row.idle_ms,
        # Redis returns -1 if it never got an entry.
        inactive_ms=None if row.inactive_ms is None or row.inactive_ms < 0 else row.inactive_ms,
        pending=row.pending,
    )


def pending(row: PendingRow) -> PendingEntry:
    is_held, ledger = row.consumer not in (WAITING, PARKED), ledger_of(row.ledger)
    return PendingEntry(
        entry_id=row.entry_id.decode(),
        appended_at=time_of(row.entry_id),
        state="held" if is_held else "waiting" if row.consumer == WAITING else "parked",
        consumer=(_text(row.consumer) or None) if is_held else None,  # nobody has it after an XNACK (Redis 8.8)
        consumer_alive=is_held and row.is_living == 1,
        idle_ms=None if row.idle_ms < 0 else row.idle_ms,
        deliveries=row.deliveries,
        due_at=None if row.due is None else _time_of_score(row.due),
        handlers=() if row.consumer == PARKED else tuple(wait.handler for wait in ledger.waits),
        failures=_failures(row.why),
        attempts=_attempts(ledger),
    )


def waiting(row: WaitingRow) -> PendingEntry | None:
    """A waiting entry; None for an entry with a due time that a consumer holds all the same."""
    if row.consumer not in (WAITING, None):
        return None
    ledger = ledger_of(row.ledger)
    return PendingEntry(
        entry_id=row.entry_id.decode(),
        appended_at=time_of(row.entry_id),
        state="waiting",
        consumer=None,
        consumer_alive=False,
        idle_ms=None if row.consumer is None else row.idle_ms,
        deliveries=row.deliveries if row.consumer else ledger.recorded,
        due_at=_time_of_score(row.due),
        handlers=tuple(wait.handler for wait in ledger.waits),
        attempts=_attempts(ledger),
    )


def server_time(now_ms: int) -> datetime:
    """A time of the server's clock."""
    return datetime.fromtimestamp(now_ms / 1000, UTC)


def _time_or_none(entry_id: bytes | None) -> datetime | None:
    return None if entry_id is None else time_of(entry_id)


def _time_of_score(score: bytes) -> datetime | None:
    try:
        return moment(round(float(score)))
    except (ValueError, OverflowError):
        return None


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _text_or_none(entry_id: bytes | None) -> str | None:
    return None if entry_id is None else entry_id.decode()


# The keys of a stream belong to Rapids, but other programs may have written to them.


def ledger_of(raw: bytes | None) -> Ledger:
    """A stored ledger; an empty one if it cannot be read."""
    try:
        return Ledger.load(raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Ledger()


def _attempts(ledger: Ledger) -> tuple[HandlerAttempts, ...]:
    return tuple(HandlerAttempts(handler, log.kept, log.left_out) for handler, log in ledger.attempts)


def _failures(raw: bytes | None) -> tuple[ParkedFailure, ...]:
    try:
        stored: Any = orjson.loads(raw or b"[]")
    except ValueError:
        return ()
    rows = cast(list[Any], stored) if isinstance(stored, list) else []
    objects = [cast(dict[str, Any], row) for row in rows if isinstance(row, dict)]
    return tuple(
        ParkedFailure(**{name: str(row.get(name, "")) for name in ("handler", "reason", "error")}) for row in objects
    )
