"""What a delivery came to, on its way to be written, and what is counted once it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from rapids._core.counter_state import Counts, OfType
from rapids._core.outcomes import Ack, Dead, HandBack, Keep, Park, Settlement
from rapids._storage.client.connections import Reply
from rapids._storage.groups import RawEntry
from rapids._wire.letter_format import Origin
from rapids._worker.inflight import HeldEntry
from rapids.observers import DeadLettered, Parked

__all__ = ["Settled", "count"]


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry and what its delivery came to, with what a log line, a letter or a counter says about it."""

    held: HeldEntry
    entry: RawEntry
    """The same entry, with the fields that a letter of it gets."""
    settlement: Settlement
    origin: Origin
    event_id: str = ""
    correlation_id: str = ""
    counts: OfType | None = None
    """What is counted for its type; None where no handler was begun."""
    retried: tuple[str, ...] = ()
    """The handlers that failed and are to run again."""
    is_buried: bool = False
    """Whether the entry was found to be neither pending nor in the stream: what is to be written are its letters."""
    is_lost: bool = False
    """Whether it was trimmed from the stream, and no letter can be written for it."""


def count(counts: Counts, one: Settled, reply: Reply, *, is_held: bool) -> None:
    """Count what the settling script did. `is_held`: whether the lease had not been counted as lost before."""
    letters = () if isinstance(one.settlement, Park) else one.settlement.letters
    if reply in (b"gone", b"lost"):
        if is_held:
            counts.lease_lost(one.entry.source, one.entry.entry_id)
        return
    if one.counts is not None:
        _count_letters(counts, one, one.counts, letters)
    if one.is_lost:
        if is_held:
            counts.lost(1, "held", entry_ids=(one.entry.entry_id.decode(),), stream=one.entry.source.stream)
        return
    if one.counts is not None:
        for handler in one.retried:
            one.counts.retried[counts.handler(handler)] += 1
    if is_held:
        _count_entry(counts, one)


def _count_entry(counts: Counts, one: Settled) -> None:
    match one.settlement:
        case Ack():
            counts.acked += 1
        case Keep():
            counts.kept += 1
        case HandBack():
            counts.handed_back += 1
        case Park(ledger=ledger):
            of_type = counts.of_type(None) if one.counts is None else one.counts
            of_type.parked += 1
            if counts.observers is not None:
                source, entry_id, handlers = one.entry.source, one.entry.entry_id.decode(), sorted(ledger.gave_up)
                counts.observers.tell(
                    Parked(
                        *(source.stream, source.group, entry_id, one.event_id, of_type.event_type),
                        *(tuple(handlers), one.entry.deliveries),
                    )
                )


def _count_letters(counts: Counts, one: Settled, of_type: OfType, letters: Sequence[Dead]) -> None:
    for letter in letters:
        of_type.dead[counts.handler(letter.handler), letter.reason.value] += 1
        if counts.observers is not None:
            source, entry_id = one.entry.source, one.entry.entry_id.decode()
            counts.observers.tell(
                DeadLettered(
                    *(source.stream, source.group, entry_id, one.event_id, of_type.event_type),
                    *(letter.handler, letter.reason, letter.failure, one.entry.deliveries),
                )
            )
