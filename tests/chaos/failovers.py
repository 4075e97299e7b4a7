"""What a failover may undo: what had happened on the old master only, seen from the history that continues.

An event that replicas confirmed is not lost. But that an entry was given out, settled, or became a dead letter may
never have reached the replica that is the master now. So it is given out again, by another process perhaps while the
first process still holds it: both may handle it, and both may write its dead letter. None of that can be known in
advance; it is counted and shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tests.chaos.events import MAX_DELIVERIES_EXCEEDED
from tests.chaos.evidence import Evidence, Letter
from tests.chaos.flight import FAILOVERS, failed_over, in_flight
from tests.chaos.settings import MAX_DELIVERIES

Key = tuple[str, str]
"""An entry's id and a handler's name."""


def touched(evidence: Evidence) -> Collection[Key]:
    """The handlers of entries that processes held, or had just settled, when a master was replaced."""
    return {(run.entry_id, run.handler) for flight in failed_over(evidence, FAILOVERS) for run in flight.runs}


def letters_twice(evidence: Evidence) -> Sequence[Key]:
    """More dead letters than one, where both were written by processes that had the entry."""
    known, seen = touched(evidence), set[Key]()
    twice: list[Key] = []
    for letter in evidence.stored.letters:
        key = (letter.entry_id, letter.handler)
        if key in seen and key in known:
            twice.append(key)
        seen.add(key)
    return twice


def letters_of_nothing(evidence: Evidence) -> Sequence[Letter]:
    """Dead letters whose entries a failover lost: to who still holds an entry, it is as if it had been trimmed.

    Nothing else takes an entry out of the stream here. It may be held and not begun: that letter is for all handlers.
    """
    if not any(one.kind.startswith(FAILOVERS) for one in evidence.interruptions):
        return []
    return [letter for letter in evidence.stored.letters if letter.entry_id not in evidence.stored.entries]


def letters_worn_out(evidence: Evidence) -> Sequence[Letter]:
    """Dead letters of entries that faults interrupted at every delivery there is, failovers among them: one that takes
    longer than a failover is away has no chance where they come one after another."""
    if not (known := touched(evidence)):
        return []
    interrupted = Counter(flight.runs[0].entry_id for flight in in_flight(evidence))
    return [
        letter
        for letter in evidence.stored.letters
        if letter.reason == MAX_DELIVERIES_EXCEEDED
        and interrupted[letter.entry_id] >= MAX_DELIVERIES
        and (letter.entry_id, letter.handler) in known
    ]
