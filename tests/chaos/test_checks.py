"""The checks see what they are there to see: evidence of each broken promise, forged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.chaos.checks import check
from tests.chaos.events import expected_letters, handlers_of, is_hopeless, is_toxic
from tests.chaos.evidence import Evidence, Letter, Stored
from tests.chaos.faults import Interruption
from tests.chaos.kinds import draw
from tests.chaos.processes import Exit
from tests.chaos.records import Emit, Execution, Note
from tests.chaos.settings import Options

JOB, HOPELESS, TOXIC = 1, 77, 150


def good() -> Evidence:
    """Three events, each of which came to what it must."""
    entries = {f"{number}-0": number for number in (JOB, HOPELESS, TOXIC)}
    runs = [
        run(entry_id, number, handler)
        for entry_id, number in entries.items()
        for handler in handlers_of(number)
        if handler not in expected_letters(number)
    ]
    letters = [
        Letter(f"9{number}-0", entry_id, handler, reason)
        for entry_id, number in entries.items()
        for handler, reason in expected_letters(number).items()
    ]
    emits = {number: Emit(number, "confirmed") for number in entries.values()}
    return Evidence(Stored(entries, letters), emits, runs, seconds=1.0)


def run(
    entry_id: str, number: int, handler: str, *, pid: int = 1, start: float = 100.0, deliveries: int = 1
) -> Execution:
    return Execution(entry_id, number, handler, deliveries, pid, start, start + 0.01, "done")


def broken(evidence: Evidence) -> list[str]:
    return [promise.name for promise in check(evidence) if promise.broken_by]


def test_the_events_are_what_their_numbers_are_meant_for() -> None:
    assert not expected_letters(JOB)
    assert is_hopeless(HOPELESS)
    assert list(expected_letters(HOPELESS)) == ["hopeless"]
    assert is_toxic(TOXIC)
    assert list(expected_letters(TOXIC)) == list(handlers_of(TOXIC))


def test_good_evidence_breaks_nothing() -> None:
    assert broken(good()) == []


def test_a_confirmed_event_that_is_not_stored() -> None:
    evidence = good()
    assert broken(replace(evidence, emits={**evidence.emits, 5: Emit(5, "confirmed")})) == ["confirmed, not stored"]


@pytest.mark.parametrize("status", ["sent", "unknown", "failed"])
def test_an_event_that_was_not_confirmed_may_be_missing(status: str) -> None:
    evidence = good()
    assert broken(replace(evidence, emits={**evidence.emits, 5: Emit(5, status)})) == []


def test_a_handler_that_never_finished() -> None:
    evidence = good()
    assert broken(replace(evidence, executions=evidence.executions[1:])) == ["lost"]
    failed = replace(evidence.executions[0], result="failed")
    assert broken(replace(evidence, executions=[failed, *evidence.executions[1:]])) == ["lost"]


def with_stored(**changes: object) -> Evidence:
    evidence = good()
    return replace(evidence, stored=replace(evidence.stored, **changes))  # type: ignore[arg-type]


def letters_of(*changed: Letter) -> Sequence[Letter]:
    return [*good().stored.letters, *changed]


@pytest.mark.parametrize(
    ("evidence", "name"),
    [
        (with_stored(pending=["1-0"]), "unsettled"),
        (with_stored(undelivered=True), "unsettled"),
        (with_stored(letters=letters_of(Letter("99-0", "1-0", "slow", "non_retryable"))), "dead letters unexpected"),
        (with_stored(letters=letters_of(good().stored.letters[0])), "dead letters repeated"),
        (with_stored(keys=["{chaos:events}:rapids:ledger:chaos-group"]), "keys left behind"),
    ],
)
def test_remaining_entries_at_the_end_are_found(evidence: Evidence, name: str) -> None:
    assert broken(evidence) == [name]


def test_a_dead_letter_that_is_missing_or_has_another_reason() -> None:
    first, *others = good().stored.letters
    assert broken(with_stored(letters=others)) == ["lost", "dead letters missing"]
    assert broken(with_stored(letters=[replace(first, reason="non_retryable"), *others])) == ["dead letters missing"]


def test_an_event_stored_twice() -> None:
    evidence = good()
    entries = {**evidence.stored.entries, "2-0": JOB}
    again = [run("2-0", JOB, handler) for handler in handlers_of(JOB)]
    twice = replace(
        evidence, stored=replace(evidence.stored, entries=entries), executions=[*evidence.executions, *again]
    )
    assert broken(twice) == ["stored twice by an emitter"]


def test_an_event_said_not_to_be_stored() -> None:
    evidence = good()
    emits = {**evidence.emits, JOB: Emit(JOB, "failed")}
    assert broken(replace(evidence, emits=emits)) == ["said not stored, yet stored"]


def repeated(*interruptions: Interruption, **others: object) -> Evidence:
    """`always` finished event 1 in process 1 at 100.0 and in process 2 at 102.0."""
    evidence = good()
    again = run("1-0", JOB, "always", pid=2, start=102.0, deliveries=2)
    executions = [*evidence.executions, again]
    return replace(evidence, executions=executions, interruptions=interruptions, **others)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "evidence",
    [
        repeated(),
        repeated(Interruption("worker killed", 100.1, 100.1, pid=3)),
        repeated(Interruption("worker killed", 104.0, 104.0, pid=1)),
        repeated(Interruption("worker asked to stop", 100.1, 100.1, pid=1)),
        repeated(Interruption("clients killed", 100.1, 100.1)),
        repeated(notes=[Note(1, "outage", 104.0, ""), Note(1, "back", 105.0, "")]),
    ],
)
def test_a_repetition_that_nothing_explains(evidence: Evidence) -> None:
    assert broken(evidence) == ["repeated without cause"]


@pytest.mark.parametrize(
    "evidence",
    [
        repeated(Interruption("worker killed", 100.1, 100.1, pid=1)),
        repeated(Interruption("worker stopped", 99.0, 101.9, pid=2)),
        repeated(Interruption("server killed", 99.9, 101.0)),
        repeated(notes=[Note(1, "standstill", 101.9, "1.9")]),
        repeated(notes=[Note(1, "outage", 99.0, "")]),
        repeated(exits=[Exit("worker", 1, -9, 100.1, "killed")]),
    ],
)
def test_a_repetition_that_a_fault_explains(evidence: Evidence) -> None:
    assert broken(evidence) == []


def test_a_run_above_max_deliveries() -> None:
    evidence = good()
    first, *others = evidence.executions
    assert broken(replace(evidence, executions=[replace(first, spent=6), *others])) == ["run above max_deliveries"]


@pytest.mark.parametrize(
    ("code", "wanted", "is_bad"),
    [
        (0, "asked to stop", False),
        (-15, "asked to stop", False),
        (-9, "killed", False),
        (-9, "", True),
        (0, "", True),
        (1, "asked to stop", True),
        (-9, "asked to stop", True),
    ],
)
def test_processes_end_as_their_faults_allow(code: int, wanted: str, is_bad: bool) -> None:
    evidence = replace(good(), exits=[Exit("worker", 7, code, 50.0, wanted)])
    assert broken(evidence) == (["processes that ended badly"] if is_bad else [])


def test_a_toxic_event_explains_the_end_of_a_process() -> None:
    evidence = good()
    toxic = Execution("150-0", TOXIC, "toxic", 1, 7, 40.0)
    exits = [Exit("worker", 7, -9, 50.0, "")]
    assert broken(replace(evidence, executions=[*evidence.executions, toxic], exits=exits)) == []


def test_a_process_that_hangs_and_an_error_inside() -> None:
    assert broken(replace(good(), hanging=["worker 1"])) == ["processes that ended badly"]
    assert broken(replace(good(), notes=[Note(1, "bug", 1.0, "KeyError")])) == ["errors inside Rapids"]


def test_a_seed_decides_the_faults() -> None:
    assert draw(Options(seed=5)) == draw(Options(seed=5))
    assert draw(Options(seed=5)) != draw(Options(seed=6))
