"""The causation tree: all events and letters with one correlation id at one moment, as frozen values.

Texts are untrusted input: show them as data only. Nothing that an event says about itself is trusted: its causation id
may name the event itself, a missing event, or one of which there are several.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal, TypeAlias

from rapids._core.entry_id import moment, time_of
from rapids._core.json_schema import with_json_schema
from rapids._storage.inspection_queries import GroupTrace, PendingRow
from rapids._wire.trace_fields import Found
from rapids.dead_letters.letter import DeadLetter, LetterChange, ReplayOutcome
from rapids.inspection import snapshots
from rapids.inspection.snapshots import PendingEntry

__all__ = [
    "CausationTree",
    "DeliveryState",
    "LettersFound",
    "Limit",
    "ScannedWindow",
    "TracedDelivery",
    "TracedEvent",
    "TracedHandler",
    "TracedLetter",
    "TracedReplay",
    "delivery",
    "event",
    "letter",
    "linked",
    "replay_of",
]

DeliveryState: TypeAlias = Literal[
    "undelivered", "held", "waiting", "parked", "dead", "replayed", "discarded", "handled", "group_unknown"
]
"""`undelivered`: the group has not read it yet. `held`, `waiting`, `parked`: pending. `dead`, `replayed`, `discarded`:
settled, and it left dead letters: one is dead, else one was replayed, else all were discarded. `handled`: settled, and
no letter of it was found. `group_unknown`: there are letters of a group that the stream does not have."""

Limit: TypeAlias = Literal["entries", "seconds", "events", "letters", "groups"]
"""What ended a search before everything was read: the limit of entries, of time, or of results; or a stream with so
many groups that some were left out."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class TracedHandler:
    """The state of a handler in the ledger of a pending entry."""

    handler: str
    state: Literal["done", "dead", "gave_up", "waiting"]
    """`dead`: it has a dead letter; `gave_up`: it failed for good while there was no dead-letter stream."""
    failed_deliveries: int | None = None
    """For a handler that is to run again: deliveries that count towards `max_deliveries` so far."""
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class TracedDelivery:
    """The state of an entry in a group."""

    group: str
    state: DeliveryState
    inferred: bool = False
    """Set for `handled`: it is concluded from the acknowledgement (the entry was delivered, it is not pending, and no
    letter was found). Success of handlers is not recorded. It looks the same if the group began after the entry, has no
    handler for it, or if its letter is outside the scanned window."""
    pending: PendingEntry | None = None
    handlers: tuple[TracedHandler, ...] = ()
    """The handlers of a pending entry that failed before; other entries have no ledger."""
    letters: tuple[str, ...] = ()
    """The ids of its dead letters in `CausationTree.letters`."""


@dataclass(frozen=True, slots=True)
class TracedEvent:
    """One entry. An event that was appended several times has several entries."""

    stream: str
    entry_id: str
    appended_at: datetime | None
    event_id: str
    event_type: str
    timestamp: str
    causation_id: str
    schema_version: str
    data: bytes | None
    """None if it was too large to be fetched."""
    data_size: int
    metadata: bytes | None
    metadata_size: int
    parent: int | None = None
    """The index in `CausationTree.events` of the event that caused it; of several with that id, the first."""
    depth: int = 0
    children: tuple[int, ...] = ()
    missing_parent: bool = False
    """Whether it names a cause that was not found: one with another correlation id, or outside the scanned window."""
    in_cycle: bool = False
    """Whether its causes lead back to itself. The first event of a cycle is shown as a root."""
    copies: int = 1
    """How many entries with this event's id were found."""
    deliveries: tuple[TracedDelivery, ...] = ()


@dataclass(frozen=True, slots=True)
class TracedReplay:
    """A replay that is not settled yet: an entry of a group's replay stream."""

    stream: str
    entry_id: str
    appended_at: datetime | None
    group: str
    handler: str
    """The only handler to run; empty for all."""
    letter_id: str
    count: int
    event_id: str
    original_entry_id: str
    delivery: TracedDelivery


@dataclass(frozen=True, slots=True)
class TracedLetter:
    """A dead letter, without its payload: `DeadLetterQueue.get` has that."""

    dlq: str
    id: str
    state: Literal["dead", "replayed", "discarded"]
    stream: str
    entry_id: str
    """The id of the event's entry in `stream`."""
    group: str
    handler: str
    event_id: str
    event_type: str
    reason: str
    error: str
    error_type: str
    deliveries: int
    failed_at: datetime | None
    replay_of: str | None
    replay_count: int
    history: tuple[LetterChange, ...]
    replays: tuple[ReplayOutcome, ...]
    """The outcomes of its replay; `handled` is inferred here too."""
    data: bytes | None
    metadata: bytes | None
    """The payload, which the error may quote; None if it was too large to be fetched."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class ScannedWindow:
    """The part of a stream that was read."""

    stream: str
    kind: Literal["events", "replays", "letters", "archive"]
    entries: int
    """How many entries were read; 0 if none was read or the stream is empty."""
    newest_id: str | None
    newest_at: datetime | None
    oldest_id: str | None
    oldest_at: datetime | None
    """The times of the oldest and the newest of these entries, from their ids."""
    first_id: str | None
    """The id of the oldest entry in the stream."""
    reaches_further: bool
    """Whether the stream has older entries that were not read."""
    exhausted: bool
    """Whether the whole requested range (`since`, `until`) was read, as far as the stream still has it."""


@dataclass(frozen=True, slots=True)
class CausationTree:
    """What was found for a correlation id in the windows that were read."""

    at: datetime
    correlation_id: str
    began_at: datetime | None
    """When the first found event was appended."""
    roots: tuple[int, ...]
    events: tuple[TracedEvent, ...]
    """In the order in which they were appended, by the times in their ids."""
    replays: tuple[TracedReplay, ...]
    letters: tuple[TracedLetter, ...]
    """Oldest first, including letters of events that were not found."""
    windows: tuple[ScannedWindow, ...]
    complete: bool
    """Whether the whole requested range of every stream was read, and nothing was left out."""
    limits: tuple[Limit, ...]
    """The limits that ended the search early."""
    cursor: str | None
    """Where to continue with older entries; None if nothing is left. The next part is a separate tree: events whose
    cause is in this tree have `missing_parent` there."""


@dataclass(frozen=True, slots=True)
class LettersFound:
    """Dead letters with a correlation id, oldest first."""

    letters: tuple[TracedLetter, ...]
    """The letters, without the outcomes of their replays."""
    windows: tuple[ScannedWindow, ...]
    complete: bool


def linked(events: Sequence[TracedEvent]) -> tuple[TracedEvent, ...]:
    """Events in order, linked by their causes. The result is always a forest, even if causes form a cycle."""
    first: dict[str, int] = {}
    copies: dict[str, int] = {}
    for at, event in enumerate(events):
        first.setdefault(event.event_id, at)
        copies[event.event_id] = copies.get(event.event_id, 0) + 1
    parents = [first.get(event.causation_id) if event.causation_id else None for event in events]
    cyclic = _broken(parents)
    children: list[list[int]] = [[] for _ in events]
    for at, parent in enumerate(parents):
        if parent is not None:
            children[parent].append(at)
    depths = _depths(parents, children)
    return tuple(
        replace(
            event,
            parent=parents[at],
            depth=depths[at],
            children=tuple(children[at]),
            missing_parent=bool(event.causation_id) and event.causation_id not in first,
            in_cycle=at in cyclic,
            copies=copies[event.event_id],
        )
        for at, event in enumerate(events)
    )


def _broken(parents: list[int | None]) -> set[int]:
    """Make the first event of each cycle a root. Returns all events that are in a cycle."""
    cyclic, seen = set[int](), [0] * len(parents)
    for start in range(len(parents)):
        path: list[int] = []
        at: int | None = start
        while at is not None and not seen[at]:
            seen[at] = start + 1
            path.append(at)
            at = parents[at]
        if at is not None and seen[at] == start + 1:
            cycle = path[path.index(at) :]
            cyclic.update(cycle)
            parents[min(cycle)] = None
    return cyclic


def _depths(parents: Sequence[int | None], children: Sequence[Sequence[int]]) -> list[int]:
    depths = [0] * len(parents)
    left = [at for at, parent in enumerate(parents) if parent is None]
    while left:
        at = left.pop()
        for child in children[at]:
            depths[child] = depths[at] + 1
            left.append(child)
    return depths


def event(stream: str, one: Found, groups: Sequence[GroupTrace], letters: Iterable[TracedLetter]) -> TracedEvent:
    """An event that is not linked yet, with its state in each group."""
    of_entry = [letter for letter in letters if letter.stream == stream and letter.entry_id == one.entry_id]
    known = [group.name.decode(errors="backslashreplace") for group in groups]
    others = sorted({letter.group for letter in of_entry}.difference(known))
    deliveries = [
        delivery(group, name, one.entry_id, [letter for letter in of_entry if letter.group == name])
        for name, group in [*zip(known, groups, strict=True), *((name, None) for name in others)]
    ]
    of = one.event
    return TracedEvent(
        stream=stream,
        entry_id=one.entry_id,
        appended_at=time_of(one.entry_id),
        event_id=of.event_id,
        event_type=of.event_type,
        timestamp=of.timestamp,
        causation_id=of.causation_id,
        schema_version=of.schema_version,
        data=of.data,
        data_size=of.data_size,
        metadata=of.metadata,
        metadata_size=of.metadata_size,
        deliveries=tuple(deliveries),
    )


def delivery(group: GroupTrace | None, name: str, entry_id: str, letters: Sequence[TracedLetter]) -> TracedDelivery:
    """The state of an entry in a group. `group` is None for a group that the stream does not have."""
    ids = tuple(letter.id for letter in letters)
    is_ = None if group is None else group.entries.get(entry_id)
    match is_:
        case None:
            return TracedDelivery(name, "group_unknown", letters=ids)
        case PendingRow():
            entry = snapshots.pending(is_)
            return TracedDelivery(name, entry.state, pending=entry, handlers=_handlers(is_), letters=ids)
        case "undelivered":
            return TracedDelivery(name, "undelivered", letters=ids)
        case _:
            of_letters = {letter.state for letter in letters}
            state: DeliveryState = "discarded" if of_letters else "handled"
            if "dead" in of_letters:
                state = "dead"
            elif "replayed" in of_letters:
                state = "replayed"
            return TracedDelivery(name, state, inferred=not letters, letters=ids)


def letter(dlq: str, read: DeadLetter, one: Found) -> TracedLetter:
    """A letter, without the larger part of its payload."""
    return TracedLetter(
        dlq=dlq,
        id=read.id,
        state=read.state,
        stream=read.stream,
        entry_id=read.entry_id,
        group=read.group,
        handler=read.handler,
        event_id=read.event_id,
        event_type=read.event_type,
        reason=read.reason,
        error=read.error,
        error_type=read.error_type,
        deliveries=read.deliveries,
        failed_at=read.failed_at,
        replay_of=read.replay_of,
        replay_count=read.replay_count,
        history=read.history,
        replays=read.replays,
        data=one.event.data,
        metadata=one.event.metadata,
    )


def replay_of(stream: str, group: str, one: Found, state: TracedDelivery) -> TracedReplay:
    """A replay that is not settled yet."""
    return TracedReplay(
        stream=stream,
        entry_id=one.entry_id,
        appended_at=time_of(one.entry_id),
        group=group,
        handler=one.replay.handler,
        letter_id=one.replay.letter_id,
        count=one.replay.count,
        event_id=one.event.event_id,
        original_entry_id=one.replay.original_entry_id,
        delivery=state,
    )


def _handlers(row: PendingRow) -> tuple[TracedHandler, ...]:
    ledger = snapshots.ledger_of(row.ledger)
    finished = (
        *(TracedHandler(name, "done") for name in sorted(ledger.done)),
        *(TracedHandler(name, "dead") for name in sorted(ledger.dead)),
        *(TracedHandler(name, "gave_up") for name in sorted(ledger.gave_up)),
    )
    waiting = (
        TracedHandler(wait.handler, "waiting", wait.spent, None if wait.due_ms is None else moment(wait.due_ms))
        for wait in ledger.waits
    )
    return (*finished, *waiting)
