"""Settled entries: an entry with its settlement, and how it is counted and reported."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rapids._core.counter_state import Counts, OfType
from rapids._core.outcomes import Ack, Dead, Keep, Park, Release, Settlement
from rapids._storage.groups import RawEntry
from rapids._wire.letter_format import Origin
from rapids._wire.trace_context import trace_context_in
from rapids._worker.inflight import HeldEntry
from rapids.hooks import Decision
from rapids.observers import DeadLettered, Parked

__all__ = ["Settled"]


@dataclass(frozen=True, slots=True)
class Settled:
    """An entry and its settlement, with the data for log records, letters and counters."""

    held: HeldEntry
    entry: RawEntry
    """The same entry, with the fields for a letter."""
    settlement: Settlement
    origin: Origin
    event_id: str = ""
    correlation_id: str = ""
    counts: OfType | None = None
    """What is counted for its type; None if no handler began."""
    retried: tuple[str, ...] = ()
    """The handlers that failed and are to run again."""
    is_buried: bool = False
    """Whether the entry is neither pending nor in the stream any more: only its letters are written."""
    is_trimmed: bool = False  # from the stream, while it was held
    is_lost: bool = False
    """Whether it was trimmed from the stream, and no letter can be written for it."""
    decided_at: float = field(default_factory=time.monotonic)

    def count(self, counts: Counts, *, is_held: bool) -> None:
        """Count what was stored, and report it. `is_held`: whether the lease was not counted as lost before."""
        if self.counts is not None:
            for letter in () if isinstance(self.settlement, Park) else self.settlement.letters:
                self._count_letter(counts, self.counts, letter)
            for handler in self.retried if not self.is_lost else ():
                self.counts.retried[counts.handler(handler)] += 1
        if not is_held:
            return
        if self.is_lost:
            entry_id, stream = self.entry.entry_id.decode(), self.entry.source.stream
            counts.lost(1, "held", entry_ids=(entry_id,), stream=stream)
            return
        match self.settlement:
            case Ack():
                counts.acked += 1
            case Keep():
                counts.kept += 1
            case Release():
                counts.handed_back += 1
                self._report(counts, "release")
            case Park(failures=failures):
                self._count_parked(counts, failures)

    def _count_letter(self, counts: Counts, of_type: OfType, letter: Dead) -> None:
        of_type.dead[counts.handler(letter.handler), letter.reason.value] += 1
        self._report(counts, "dead_letter", letter)
        if counts.observers is not None:
            counts.observers.tell(
                DeadLettered(
                    stream=self.entry.source.stream,
                    group=self.entry.source.group,
                    entry_id=self.entry.entry_id.decode(),
                    event_id=self.event_id,
                    event_type=of_type.event_type,
                    handler=letter.handler,
                    reason=letter.reason,
                    failure=letter.failure,
                    deliveries=self.entry.deliveries,
                )
            )

    def _count_parked(self, counts: Counts, failures: Sequence[Dead]) -> None:
        of_type = counts.of_type(None) if self.counts is None else self.counts
        of_type.parked += 1
        for failure in failures:
            self._report(counts, "park", failure)
        if counts.observers is not None:
            counts.observers.tell(
                Parked(
                    stream=self.entry.source.stream,
                    group=self.entry.source.group,
                    entry_id=self.entry.entry_id.decode(),
                    event_id=self.event_id,
                    event_type=of_type.event_type,
                    handlers=tuple(sorted(self.settlement.ledger.gave_up)),
                    deliveries=self.entry.deliveries,
                )
            )

    def _report(self, counts: Counts, decision: Decision, dead: Dead | None = None) -> None:
        """Report a decision to the telemetry, if there is one."""
        if counts.telemetry is not None:
            counts.telemetry.settled(
                decision,
                stream=self.origin.stream,
                group=self.entry.source.group,
                entry_id=self.entry.entry_id.decode(),
                event_type="" if self.counts is None else self.counts.event_type,
                handler=dead.handler if dead else "",
                reason=dead.reason.value if dead else "",
                seconds=time.monotonic() - self.decided_at,
                run=dead.run if dead else None,
                context=trace_context_in(self.entry.fields),
            )
