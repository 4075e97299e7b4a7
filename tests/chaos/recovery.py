"""How long a fault of the servers kept events from being handled."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.chaos.evidence import Evidence

AFTERMATH = 5.0
"""Seconds after a fault in which a pause is still its doing."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """In seconds: from the strike until an event emitted after it was handled, None if none ever was; and the longest
    time in which no handler finished anything."""

    new_event: float | None
    pause: float


def recoveries(evidence: Evidence) -> Mapping[str, Sequence[Recovery]]:
    """Those of each kind of fault that strikes all processes at once."""
    begun = {emit.number: emit.at for emit in evidence.emits.values()}
    done = [(run.end, begun.get(run.number, 0.0)) for run in evidence.executions if run.result == "done" and run.end]
    done.sort()
    found = defaultdict[str, list[Recovery]](list)
    for one in evidence.interruptions:
        if one.pid is None:
            new = next((end - one.start for end, emitted_at in done if emitted_at >= one.start), None)
            ends = [end for end, _ in done if one.start <= end <= one.end + AFTERMATH]
            pauses = [later - before for before, later in itertools.pairwise([one.start, *ends])]
            found[one.kind].append(Recovery(new, max(pauses, default=0.0)))
    return found
