"""What was in flight when a process died or may have lost its leases: only that may be handled twice."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from tests.chaos.evidence import Evidence
from tests.chaos.faults import Interruption
from tests.chaos.records import Execution

INTERRUPTING = ("worker killed", "worker stopped", "server killed", "clients paused", "master ")
"""Faults by which leases end or settlements are late, or lost by a failover. A connection lost or a process stopped in
order is no excuse, nor is a slot that moves, or the death of a master that does not have the stream."""

BEFORE = 0.5
"""Seconds within which a delivery is settled after its last handler. In a fault it may be what was not settled yet."""

FAILOVERS = ("master ",)
"""Faults in which another takes the place of the stream's master."""

LAG = 1.5
"""Seconds before a failover in which something was settled that the replica had not heard of: settled late, after the
failover before perhaps, and passed on late by a machine with much to do."""

HELD = 5.0
"""Seconds after a failover in which a process may begin what it held then. The new master may not know that the entry
was given out, and gives it to another."""

AFTER = 0.3
"""Seconds after a fault within which a process knows that it lost a lease or its connection; then it says so itself."""


@dataclass(frozen=True, slots=True)
class Flight:
    """One delivery in one process: from its first handler's start to its last one's end."""

    pid: int
    start: float
    end: float
    runs: Sequence[Execution]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A handler that finished an entry, and finished it again."""

    first: Execution
    again: Execution
    has_cause: bool


def repeats(evidence: Evidence) -> list[Repeat]:
    excused = {run for flight in in_flight(evidence) for run in flight.runs}
    finished = defaultdict[tuple[str, int, str], list[Execution]](list)
    for run in evidence.executions:
        if run.result == "done":
            finished[run.entry_id, run.number, run.handler].append(run)
    found: list[Repeat] = []
    for runs in finished.values():
        runs.sort(key=lambda run: run.start)
        found += [
            Repeat(first, again, first in excused or again in excused) for first, again in itertools.pairwise(runs)
        ]
    return found


def in_flight(evidence: Evidence) -> list[Flight]:
    """The deliveries that an interruption met."""
    times = defaultdict[int | None, list[tuple[float, float]]](list)
    for one in _interruptions(evidence):
        times[one.pid].append((one.start - BEFORE, one.end + AFTER))
    merged = {pid: _merged(spans) for pid, spans in times.items()}
    held = {(flight.pid, flight.start) for flight in failed_over(evidence)}
    return [
        flight
        for flight in _flights(evidence.executions)
        if _meets(flight, merged.get(None, ()))
        or _meets(flight, merged.get(flight.pid, ()))
        or (flight.pid, flight.start) in held
    ]


def failed_over(evidence: Evidence, kinds: tuple[str, ...] = FAILOVERS) -> list[Flight]:
    """The deliveries under way, just settled or held already when a master was replaced."""
    times = [(one.start, one.end) for one in evidence.interruptions if one.kind.startswith(kinds)]
    if not times:
        return []
    emitted = {emit.number: emit.at for emit in evidence.emits.values()}
    return [
        flight
        for flight in _flights(evidence.executions)
        if any(
            start - LAG <= flight.end and flight.start <= end + HELD and emitted.get(flight.runs[0].number, 0.0) <= end
            for start, end in times
        )
    ]


def _merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same times without overlaps, in order: a long run has thousands of deliveries for each of hundreds."""
    merged: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _meets(flight: Flight, spans: Sequence[tuple[float, float]]) -> bool:
    last = bisect_right(spans, flight.end, key=lambda span: span[0])  # those from here on start after its end
    return last > 0 and spans[last - 1][1] >= flight.start


def _interruptions(evidence: Evidence) -> Iterable[Interruption]:
    """Those on purpose, the deaths by toxic events, and what a process says it went through."""
    yield from (one for one in evidence.interruptions if one.kind.startswith(INTERRUPTING))
    yield from (Interruption("died", one.at, one.at, one.pid) for one in evidence.exits if one.code == -9)
    # Of a child, only its parent sees how it ended.
    yield from (
        Interruption("died", run.start, run.start, run.pid) for run in evidence.executions if run.handler == "toxic"
    )
    since: dict[int, float] = {}
    for note in evidence.notes:
        match note.kind:
            case "standstill":
                yield Interruption("stood still", note.at - float(note.text), note.at, note.pid)
            case "outage":
                since[note.pid] = note.at
            case "back":
                yield Interruption("without Redis", since.pop(note.pid, 0.0), note.at, note.pid)
    yield from (Interruption("without Redis", at, inf, pid) for pid, at in since.items())


def _flights(executions: Iterable[Execution]) -> Iterable[Flight]:
    by_delivery = defaultdict[tuple[int, str, int], list[Execution]](list)
    for run in executions:
        by_delivery[run.pid, run.entry_id, run.deliveries].append(run)
    for (pid, _, _), runs in by_delivery.items():
        ends = [inf if run.end is None else run.end for run in runs]
        yield Flight(pid, min(run.start for run in runs), max(ends), runs)
