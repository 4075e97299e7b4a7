"""What was promised, held against the evidence. Plain functions: each finds what breaks one promise."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from tests.chaos import failovers
from tests.chaos.events import expected_letters, handlers_of
from tests.chaos.evidence import Evidence
from tests.chaos.flight import repeats
from tests.chaos.settings import MAX_DELIVERIES

KEYS = (
    r"chaos:events|\{chaos:events\}:dlq",
    r"\{chaos:events\}:dlq:rapids:index(:.+)?",  # belongs to the letters, and is bounded by them
    r"\{chaos:events\}:rapids:replay:chaos-group",  # its group is made with the router; it has no entries here
    r"\{chaos:events\}:rapids:(consumer|handlers):chaos-group:.+",  # has a TTL
    r"\{chaos:events\}:rapids:rates:chaos-group",  # so many records, and has a TTL
    r"rapids:routers",  # has a TTL
)
"""What may be left once everything is settled."""

INTERRUPTED, KILLED = -15, -9


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise and what broke it: nothing, if it was kept."""

    name: str
    broken_by: Sequence[str]


def check(evidence: Evidence) -> list[Promise]:
    return [Promise(name, list(find(evidence))) for name, find in PROMISES.items()]


def not_stored(evidence: Evidence) -> Iterable[str]:
    """Every confirmed event is in the stream: what replicas were asked for and confirmed, after any failover."""
    stored = set(evidence.stored.entries.values())
    for emit in evidence.emits.values():
        if emit.status == "confirmed" and emit.number not in stored:
            yield f"event {emit.number} was confirmed and is not in the stream"


def lost(evidence: Evidence) -> Iterable[str]:
    """Every stored event is handled by every matching handler, or is a dead letter for it."""
    done = {(run.entry_id, run.number, run.handler) for run in evidence.executions if run.result == "done"}
    dead = {(letter.entry_id, letter.handler) for letter in evidence.stored.letters}
    for entry_id, number in evidence.stored.entries.items():
        for handler in handlers_of(number):
            if (entry_id, number, handler) not in done and (entry_id, handler) not in dead:
                yield f"event {number} (entry {entry_id}) was neither handled by {handler!r} nor is it a dead letter"


def unsettled(evidence: Evidence) -> Iterable[str]:
    """At the end nothing is pending, and nothing is undelivered."""
    if evidence.stored.undelivered:
        yield "entries at the end of the stream were never delivered"
    for entry_id in evidence.stored.pending:
        yield f"entry {entry_id} (event {evidence.stored.entries.get(entry_id)}) is still pending"


def letters_missing(evidence: Evidence) -> Iterable[str]:
    """A handler that fails for good has a dead letter with the reason."""
    found = {(letter.entry_id, letter.handler): letter.reason for letter in evidence.stored.letters}
    for entry_id, number in evidence.stored.entries.items():
        for handler, reason in expected_letters(number).items():
            actual = found.get((entry_id, handler))
            if actual != reason:
                yield f"event {number} (entry {entry_id}), handler {handler!r}: expected {reason}, found {actual}"


def letters_unexpected(evidence: Evidence) -> Iterable[str]:
    """What does not give up becomes none: an innocent neighbour of a toxic event, for instance."""
    explained = {*failovers.letters_of_nothing(evidence), *failovers.letters_worn_out(evidence)}
    for letter in evidence.stored.letters:
        if letter in explained:
            continue
        number = evidence.stored.entries.get(letter.entry_id)
        if number is None or letter.handler not in expected_letters(number):
            yield f"letter {letter.id}: event {number} (entry {letter.entry_id}), {letter.handler!r}: {letter.reason}"


def letters_repeated(evidence: Evidence) -> Iterable[str]:
    """A dead letter exists exactly once per entry, group and handler; but see `failovers`."""
    written = Counter((letter.entry_id, letter.handler) for letter in evidence.stored.letters)
    written -= Counter(failovers.letters_twice(evidence))
    for (entry_id, handler), times in written.items():
        if times > 1:
            yield f"{times} letters for entry {entry_id}, handler {handler!r}"


def stored_twice(evidence: Evidence) -> Iterable[str]:
    """An emit that was repeated by the emitter does not store its event twice."""
    entries = defaultdict[int, list[str]](list)
    for entry_id, number in evidence.stored.entries.items():
        entries[number].append(entry_id)
    for number, ids in entries.items():
        if len(ids) > 1:
            yield f"event {number} was stored {len(ids)} times: {', '.join(ids)}"


def stored_after_all(evidence: Evidence) -> Iterable[str]:
    """What an emitter said is not stored is not stored."""
    stored = set(evidence.stored.entries.values())
    for emit in evidence.emits.values():
        if emit.status == "failed" and emit.number in stored:
            yield f"event {emit.number} was said not to be stored and is in the stream"


def repeated_without_cause(evidence: Evidence) -> Iterable[str]:
    """A handler that finished runs again only where its process died or may have lost its lease."""
    for repeat in repeats(evidence):
        if not repeat.has_cause:
            first, again = repeat.first, repeat.again
            yield (
                f"{first.handler!r} finished event {first.number} (entry {first.entry_id}) in process {first.pid} "
                f"(delivery {first.deliveries}) and {again.start - first.start:.2f} s later in {again.pid} "
                f"(delivery {again.deliveries}), and no fault explains it"
            )


def delivered_too_often(evidence: Evidence) -> Iterable[str]:
    """No handler is run when it has spent `max_deliveries`."""
    for run in evidence.executions:
        if run.spent > MAX_DELIVERIES:
            yield f"event {run.number} (entry {run.entry_id}): {run.handler!r} was run on delivery {run.spent}"


def bad_ends(evidence: Evidence) -> Iterable[str]:
    """Processes end when they are asked to stop or killed, toxic events included; and a stop does not hang."""
    suicides = {run.pid for run in evidence.executions if run.handler == "toxic"}
    for one in evidence.exits:
        expected = {0, INTERRUPTED} if one.wanted == "asked to stop" else set[int]()  # -15: it had only just started
        expected |= {KILLED} if one.wanted == "killed" or one.pid in suicides else set()
        # `rapids run` does not start without Redis, which a process manager, as this one, tries again.
        expected |= {2} if re.search("cannot reach Redis|Redis is unavailable", one.said) else set()
        if one.code not in expected:
            why = one.wanted or "though it was not asked to"
            yield f"{one.name} (process {one.pid}) ended with {one.code}, {why} {one.said}"
    for name in evidence.hanging:
        yield f"{name} was asked to stop and did not"


def bugs(evidence: Evidence) -> Iterable[str]:
    """No task of a router fails, and an emit raises nothing but `EmitError`."""
    for note in evidence.notes:
        if note.kind == "bug":
            yield f"process {note.pid}: {note.text}"


def keys_left(evidence: Evidence) -> Iterable[str]:
    """Nothing that belonged to an entry outlives its settlement."""
    for key in evidence.stored.keys:
        if not any(re.fullmatch(pattern, key) for pattern in KEYS):
            yield f"key {key} is left"


PROMISES: dict[str, Callable[[Evidence], Iterable[str]]] = {
    "confirmed, not stored": not_stored,
    "lost": lost,
    "unsettled": unsettled,
    "repeated without cause": repeated_without_cause,
    "dead letters missing": letters_missing,
    "dead letters unexpected": letters_unexpected,
    "dead letters repeated": letters_repeated,
    "stored twice by an emitter": stored_twice,
    "said not stored, yet stored": stored_after_all,
    "run above max_deliveries": delivered_too_often,
    "processes that ended badly": bad_ends,
    "errors inside Rapids": bugs,
    "keys left behind": keys_left,
}
