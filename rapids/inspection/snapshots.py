"""What an inspector saw: frozen values, as of one moment.

Durations are whole milliseconds and say so in their names. Moments are UTC by the server's clock. Names of groups,
consumers and handlers are hostile text: show them as data only; bytes that are not UTF-8 are written as escapes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeAlias, TypeVar, cast

import orjson

from rapids._core.attempt_log import Attempt
from rapids._core.entry_id import FIRST_ID, moment, order, time_of
from rapids._core.json_schema import with_json_schema
from rapids._core.outcomes import Ledger
from rapids._storage import groups
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

__all__ = [
    "ConsumerSnapshot",
    "GroupSnapshot",
    "HandlerAttempts",
    "Page",
    "ParkedFailure",
    "PendingEntry",
    "PendingState",
    "StreamSnapshot",
    "consumer",
    "group",
    "lag",
    "pending",
    "server_time",
    "stream",
    "waiting",
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
    behind, exact = lag(found, row)
    last_delivered = row.last_delivered_id.decode()
    oldest = min(filter(None, (row.oldest_id, row.next_id)), key=order, default=None)
    return GroupSnapshot(
        at=server_time(found.now_ms),
        stream=stream,
        group=_text(row.name),
        last_delivered_id=last_delivered,
        last_delivered_at=None if last_delivered == FIRST_ID else time_of(row.last_delivered_id),
        entries_read=row.entries_read,
        lag=behind,
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
    )


def lag(found: GroupRows, row: GroupRow) -> tuple[int, bool]:
    """Entries that were not delivered, and whether that is exact.

    Some servers count those trimmed away before they were read, too; here, only what is in the stream does.
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
        # Redis says -1 where it never got anything.
        inactive_ms=None if row.inactive_ms is None or row.inactive_ms < 0 else row.inactive_ms,
        pending=row.pending,
    )


def pending(row: PendingRow) -> PendingEntry:
    state = {WAITING: "waiting", PARKED: "parked"}.get(row.consumer, "held")
    entry_id, at, ledger = row.entry_id.decode(), time_of(row.entry_id), _ledger(row.ledger)
    attempts = _attempts(ledger)
    match state:
        case "waiting":
            return PendingEntry(
                *(entry_id, at, "waiting", None, False, row.idle_ms, row.deliveries),
                due_at=None if row.due is None else _time_of_score(row.due),
                handlers=_handlers(ledger),
                attempts=attempts,
            )
        case "parked":
            return PendingEntry(
                *(entry_id, at, "parked", None, False, row.idle_ms, row.deliveries),
                failures=_failures(row.why),
                attempts=attempts,
            )
        case _:
            return PendingEntry(
                *(entry_id, at, "held", _text(row.consumer), row.is_living == 1, row.idle_ms, row.deliveries),
                handlers=_handlers(ledger),
                attempts=attempts,
            )


def waiting(row: WaitingRow) -> PendingEntry | None:
    """A waiting entry; None for one that somebody holds although it is told to be due."""
    if row.consumer not in (WAITING, None):
        return None
    ledger = _ledger(row.ledger)
    return PendingEntry(
        entry_id=row.entry_id.decode(),
        appended_at=time_of(row.entry_id),
        state="waiting",
        consumer=None,
        consumer_alive=False,
        idle_ms=None if row.consumer is None else row.idle_ms,
        deliveries=row.deliveries if row.consumer else ledger.recorded,
        due_at=_time_of_score(row.due),
        handlers=_handlers(ledger),
        attempts=_attempts(ledger),
    )


def server_time(now_ms: int) -> datetime:
    """A moment of the server's clock."""
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


# What is kept beside a stream is Rapids' own, but nothing keeps others from writing there.


def _ledger(raw: bytes | None) -> Ledger:
    try:
        return Ledger.load(raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        return Ledger()


def _handlers(ledger: Ledger) -> tuple[str, ...]:
    return tuple(wait.handler for wait in ledger.waits)


def _attempts(ledger: Ledger) -> tuple[HandlerAttempts, ...]:
    return tuple(HandlerAttempts(handler, log.kept, log.left_out) for handler, log in ledger.attempts)


def _failures(raw: bytes | None) -> tuple[ParkedFailure, ...]:
    try:
        told: Any = orjson.loads(raw or b"[]")
    except ValueError:
        return ()
    rows = cast(list[Any], told) if isinstance(told, list) else []
    return tuple(_failure(cast(Mapping[str, Any], row)) for row in rows if isinstance(row, dict))


def _failure(row: Mapping[str, Any]) -> ParkedFailure:
    return ParkedFailure(*(str(row.get(name, "")) for name in ("handler", "reason", "error")))
