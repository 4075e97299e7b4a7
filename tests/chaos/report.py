"""The table at the end of a run, and what broke a promise, if anything did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tests.chaos.checks import Promise
from tests.chaos.events import expected_letters, is_toxic
from tests.chaos.evidence import Evidence
from tests.chaos.flight import in_flight, repeats
from tests.chaos.settings import Options

MOST_DETAILS = 20


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
    seconds = f"{evidence.seconds:.0f}, {evidence.drain_seconds:.1f} of them draining"
    return [
        ("seconds", seconds),
        ("workers, emitters", f"{options.workers}, {options.emitters}"),
        ("events confirmed", f"{emits['confirmed']}"),
        ("events refused", f"{emits['failed']}"),
        ("events unknown", f"{emits['unknown']} by EmitError, {emits['sent']} by the emitter's death"),
        ("events in the stream", f"{len(stored.entries)}"),
        ("events/s", f"{len(stored.entries) / evidence.seconds:.0f}"),
        ("handler runs", f"{len(evidence.executions)}, {failed} of them failed"),
        *((f"  {kind}", str(times)) for kind, times in sorted(evidence.faults.items())),
        ("  worker killed by a toxic event", f"{suicides} (by {len(toxic)} events)"),
        ("handled more than once", f"{len(again)} handler runs; {bound} were in flight in a fault"),
        ("dead letters", f"{expected} expected, {len(stored.letters)} found"),
    ]
