"""From what the server sent of a correlation id's entries to the parts of its tree: plain functions."""

from collections.abc import Iterable, Sequence

from rapids._core.entry_id import moment, time_of
from rapids._core.outcomes import Ledger
from rapids._storage.inspection_queries import PendingRow
from rapids._storage.trace_queries import Found, GroupTrace
from rapids.dead_letters.letter import DeadLetter
from rapids.inspection import reading
from rapids.inspection.causation_tree import (
    DeliveryState,
    TracedDelivery,
    TracedEvent,
    TracedHandler,
    TracedLetter,
    TracedReplay,
)

__all__ = ["delivery", "event", "letter", "replay_of"]


def event(stream: str, one: Found, groups: Sequence[GroupTrace], letters: Iterable[TracedLetter]) -> TracedEvent:
    """An event that is not linked yet, and what the groups have made of it."""
    of_entry = [letter for letter in letters if letter.stream == stream and letter.entry_id == one.entry_id]
    known = [group.name.decode(errors="backslashreplace") for group in groups]
    others = sorted({letter.group for letter in of_entry}.difference(known))
    deliveries = [
        delivery(group, name, one.entry_id, [letter for letter in of_entry if letter.group == name])
        for name, group in [*zip(known, groups, strict=True), *((name, None) for name in others)]
    ]
    return TracedEvent(
        stream=stream,
        entry_id=one.entry_id,
        appended_at=time_of(one.entry_id),
        event_id=_text(one, b"id"),
        event_type=_text(one, b"event_type"),
        timestamp=_text(one, b"timestamp"),
        causation_id=_text(one, b"causation_id"),
        schema_version=_text(one, b"schema_version"),
        data=one.whole(b"data"),
        data_size=one.sizes.get(b"data", 0),
        metadata=one.whole(b"metadata"),
        metadata_size=one.sizes.get(b"metadata", 0),
        deliveries=tuple(deliveries),
    )


def delivery(group: GroupTrace | None, name: str, entry_id: str, letters: Sequence[TracedLetter]) -> TracedDelivery:
    """What a group has made of an entry; None for a group that the stream does not have."""
    ids = tuple(letter.id for letter in letters)
    is_ = None if group is None else group.entries.get(entry_id)
    match is_:
        case None:
            return TracedDelivery(name, "group_unknown", letters=ids)
        case PendingRow():
            entry = reading.pending(is_)
            return TracedDelivery(name, entry.state, pending=entry, handlers=_handlers(is_), letters=ids)
        case "undelivered":
            return TracedDelivery(name, "undelivered", letters=ids)
        case _:
            return TracedDelivery(name, _settled(letters), inferred=not letters, letters=ids)


def letter(dlq: str, read: DeadLetter, one: Found) -> TracedLetter:
    """A letter, without its payload's larger part."""
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
        data=one.whole(b"data"),
        metadata=one.whole(b"metadata"),
    )


def replay_of(stream: str, group: str, one: Found, made: TracedDelivery) -> TracedReplay:
    """A replay under way."""
    count = one.values.get(b"replay_count", b"")
    return TracedReplay(
        stream=stream,
        entry_id=one.entry_id,
        appended_at=time_of(one.entry_id),
        group=group,
        handler=_text(one, b"replay_handler"),
        letter_id=_text(one, b"replay_of"),
        count=int(count) if count.isdigit() and len(count) < 10 else 1,
        event_id=_text(one, b"id"),
        original_entry_id=_text(one, b"original_msg_id"),
        delivery=made,
    )


def _settled(letters: Sequence[TracedLetter]) -> DeliveryState:
    states = {letter.state for letter in letters}
    if "dead" in states:
        return "dead"
    if "replayed" in states:
        return "replayed"
    return "discarded" if states else "handled"


def _handlers(row: PendingRow) -> tuple[TracedHandler, ...]:
    try:
        ledger = Ledger.load(row.ledger)
    except (ValueError, KeyError, TypeError, AttributeError):  # nothing keeps others from writing there
        return ()
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


def _text(one: Found, name: bytes) -> str:
    return one.values.get(name, b"").decode(errors="replace")
