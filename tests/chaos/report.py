"""The table at the end of a run, and what broke a promise, if anything did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from tests.chaos import failovers
from tests.chaos.checks import Promise
from tests.chaos.events import expected_letters, is_toxic
from tests.chaos.evidence import Evidence, Letter
from tests.chaos.flight import in_flight, repeats
from tests.chaos.recovery import Recovery, recoveries
from tests.chaos.settings import DLQ, Options

MOST_DETAILS = 20

TOPOLOGY_WORDS = {
    "standalone": "one",
    "sentinel": "a master, two replicas, three sentinels",
    "cluster": "three masters with a replica each",
}


def table(options: Options, evidence: Evidence, promises: Sequence[Promise]) -> str:
    rows = [("seed", str(options.seed)), *_facts(options, evidence)]
    rows += [(promise.name, f"{len(promise.broken_by)}   (must be 0)") for promise in promises]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def details(promises: Sequence[Promise]) -> str:
    """What broke promises, as much of it as can be read."""
    lines: list[str] = []
    for promise in promises:
        if promise.broken_by:
            lines.append(f"\nBROKEN: {promise.name}: {len(promise.broken_by)}")
            lines += [f"  {line}" for line in promise.broken_by[:MOST_DETAILS]]
            if len(promise.broken_by) > MOST_DETAILS:
                lines.append(f"  and {len(promise.broken_by) - MOST_DETAILS} more")
    return "\n".join(lines)


def _facts(options: Options, evidence: Evidence) -> list[tuple[str, str]]:
    emits = Counter(emit.status for emit in evidence.emits.values())
    stored = evidence.stored
    toxic = [number for number in stored.entries.values() if is_toxic(number)]
    expected = sum(len(expected_letters(number)) for number in stored.entries.values())
    suicides = sum(run.handler == "toxic" for run in evidence.executions)
    again = repeats(evidence)
    bound = sum(len(flight.runs) for flight in in_flight(evidence))
    failed = sum(run.result == "failed" for run in evidence.executions)
    found = recoveries(evidence)
    seconds = f"{evidence.seconds:.0f}, {evidence.drain_seconds:.1f} of them draining"
    return [
        ("servers", TOPOLOGY_WORDS[options.topology]),
        ("seconds", seconds),
        ("workers, emitters", f"{options.workers}, {options.emitters}"),
        ("events confirmed", f"{emits['confirmed']}"),
        *_unconfirmed(options, evidence),
        ("events refused", f"{emits['failed']}"),
        ("events unknown", _unknown(evidence)),
        ("events in the stream", f"{len(stored.entries)}"),
        ("events/s", f"{len(stored.entries) / evidence.seconds:.0f}"),
        ("handler runs", f"{len(evidence.executions)}, {failed} of them failed"),
        *((f"  {kind}", f"{times}{_recovery(found.get(kind))}") for kind, times in sorted(evidence.faults.items())),
        ("  worker killed by a toxic event", f"{suicides} (by {len(toxic)} events)"),
        ("handled more than once", f"{len(again)} handler runs; {bound} were in flight in a fault"),
        ("dead letters", f"{expected} expected, {len(stored.letters)} found"),
        *_undone(options, evidence),
    ]


def _unconfirmed(options: Options, evidence: Evidence) -> list[tuple[str, str]]:
    """What replicas were asked to confirm and did not: it may be lost by a failover, and no answer said otherwise."""
    if not options.replicas:
        return []
    stored = set(evidence.stored.entries.values())
    unconfirmed = [emit.number for emit in evidence.emits.values() if emit.status == "unconfirmed"]
    lost = sum(number not in stored for number in unconfirmed)
    return [
        ("  by so many replicas", str(options.replicas)),
        ("events stored, not confirmed", f"{len(unconfirmed)}, {lost} of them lost by failovers"),
    ]


def _undone(options: Options, evidence: Evidence) -> list[tuple[str, str]]:
    """What failovers did to dead letters."""
    if not options.replicas:
        return []
    twice, of_nothing = failovers.letters_twice(evidence), failovers.letters_of_nothing(evidence)
    worn_out = [one for one in failovers.letters_worn_out(evidence) if not _is_expected(one, evidence)]
    summary = f"written twice {len(twice)}, of lost entries {len(of_nothing)}, worn out {len(worn_out)}"
    return [(f"  in {DLQ}, by failovers", summary)]


def _is_expected(letter: Letter, evidence: Evidence) -> bool:
    number = evidence.stored.entries.get(letter.entry_id)
    return number is not None and letter.handler in expected_letters(number)


def _recovery(found: Sequence[Recovery] | None) -> str:
    if not found:
        return ""
    new = [one.new_event for one in found if one.new_event is not None]
    pauses = [one.pause for one in found]
    summary = f"new events handled after {_longest(new)}" if new else "no new event was handled"
    return f"   {summary}; nothing handled for {_longest(pauses)}"


def _longest(seconds: Sequence[float]) -> str:
    return f"{max(seconds):.1f} s" + (f" (median {median(seconds):.1f})" if len(seconds) > 1 else "")


def _unknown(evidence: Evidence) -> str:
    stored = set(evidence.stored.entries.values())
    by = {
        status: [emit.number in stored for emit in evidence.emits.values() if emit.status == status]
        for status in ("unknown", "sent")
    }
    found = sum(map(sum, by.values()))
    return f"{len(by['unknown'])} by EmitError, {len(by['sent'])} by the emitter's death; {found} are in the stream"
