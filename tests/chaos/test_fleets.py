"""Faults of fleets and their report: which are drawn, how long they lasted, what they undid."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from tests.chaos.__main__ import options
from tests.chaos.checks import check
from tests.chaos.events import handlers_of
from tests.chaos.evidence import Evidence, Letter, Stored
from tests.chaos.faults import Interruption
from tests.chaos.fleet_faults import HandOver, KillMaster, KillOtherMaster, MoveSlot, PauseMaster
from tests.chaos.kinds import draw
from tests.chaos.records import Emit, Execution
from tests.chaos.recovery import Recovery, recoveries
from tests.chaos.report import table
from tests.chaos.settings import Options

JOB, HOPELESS = 1, 77
FAILED_OVER = Interruption("master killed", 100.0, 103.0)


def run(number: int, handler: str, *, pid: int = 1, start: float = 90.0, result: str = "done") -> Execution:
    return Execution(f"{number}-0", number, handler, 1, pid, start, start + 0.01, result)


def good(*more: Execution, letters: int = 1, **others: object) -> Evidence:
    """An event that was handled, and one whose last handler gave up, both confirmed."""
    runs = [run(number, handler) for number in (JOB, HOPELESS) for handler in handlers_of(number)]
    runs[-1] = replace(runs[-1], result="failed")
    dead = [Letter(f"9{n}-0", f"{HOPELESS}-0", "hopeless", "max_deliveries_exceeded") for n in range(letters)]
    stored = Stored({f"{number}-0": number for number in (JOB, HOPELESS)}, dead)
    emits = {number: Emit(number, "confirmed", 89.0) for number in (JOB, HOPELESS)}
    return replace(Evidence(stored, emits, [*runs, *more], seconds=1.0), **others)  # type: ignore[arg-type]


def emitted(evidence: Evidence, number: int, at: float) -> Evidence:
    """The same with one more event, which is in the stream."""
    entries = {**evidence.stored.entries, f"{number}-0": number}
    emits = {**evidence.emits, number: Emit(number, "confirmed", at)}
    return replace(evidence, stored=replace(evidence.stored, entries=entries), emits=emits)


def broken(evidence: Evidence) -> list[str]:
    return [promise.name for promise in check(evidence) if promise.broken_by]


def test_each_topology_has_its_kinds_of_faults_all_of_them_in_a_minute_or_two() -> None:
    of_all = {KillMaster, PauseMaster, HandOver}
    for seed in range(20):
        struck = {type(fault) for fault in draw(Options(topology="sentinel", seconds=90, seed=seed))}
        assert of_all <= struck
        assert not struck & {MoveSlot, KillOtherMaster}
        cluster = Counter(type(fault) for fault in draw(Options(topology="cluster", seconds=90, seed=seed)))
        assert of_all | {MoveSlot, KillOtherMaster} <= set(cluster)
    assert not of_all & {type(fault) for fault in draw(Options(seconds=90))}


@pytest.mark.parametrize("topology", ["standalone", "sentinel", "cluster"])
def test_a_seed_decides_the_faults(topology: str) -> None:
    assert draw(Options(seed=5, topology=topology)) == draw(Options(seed=5, topology=topology))
    assert draw(Options(seed=5, topology=topology)) != draw(Options(seed=6, topology=topology))


def test_faults_are_in_order_of_time() -> None:
    times = [fault.at for fault in draw(Options(topology="cluster"))]
    assert times == sorted(times)


def test_emits_wait_for_every_replica_that_may_take_the_masters_place() -> None:
    assert {name: options(["--topology", name]).replicas for name in ("standalone", "sentinel", "cluster")} == {
        "standalone": 0,
        "sentinel": 2,
        "cluster": 1,
    }
    assert options([]).topology == "standalone"


def test_an_unconfirmed_event_may_be_lost_and_is_shown() -> None:
    evidence = good()
    evidence = replace(evidence, emits={**evidence.emits, 5: Emit(5, "unconfirmed"), 6: Emit(6, "sent")})
    assert broken(evidence) == []
    shown = table(Options(topology="cluster"), evidence, check(evidence))
    assert "1, 1 of them lost by failovers" in shown
    assert "1 by the emitter's death; 0 are in the stream" in shown


def test_the_time_to_recover_from_a_failover_is_measured() -> None:
    evidence = good(
        run(JOB, "slow", start=100.5),  # of before
        run(5, "slow", start=104.0),
        run(5, "slow", start=104.2),
        interruptions=[FAILED_OVER, Interruption("worker killed", 95.0, 95.0, pid=3)],
        faults={"master killed": 1, "worker killed": 1},
    )
    evidence = replace(evidence, emits={**evidence.emits, 5: Emit(5, "confirmed", 102.0)})
    (found,) = recoveries(evidence)["master killed"]
    assert found.new_event == pytest.approx(4.01)
    assert found.pause == pytest.approx(3.5)
    assert "new events handled after 4.0 s; nothing handled for 3.5 s" in table(
        Options(topology="cluster"), evidence, []
    )


def test_a_failover_without_recovery_is_found() -> None:
    evidence = good(interruptions=[FAILED_OVER], faults={"master killed": 1})
    assert recoveries(evidence) == {"master killed": [Recovery(None, 0.0)]}
    assert "no new event was handled" in table(Options(topology="cluster"), evidence, [])


@pytest.mark.parametrize(
    ("kind", "first", "is_explained"),
    [
        ("master killed", 98.9, True),  # settled just before, which the replica had not heard of
        ("master killed", 104.5, True),  # held in the failover, run after it
        ("master killed", 98.3, False),
        ("master killed", 109.0, False),
        ("slot moved", 102.0, False),
        ("other master killed", 102.0, False),
    ],
)
def test_an_entry_held_in_a_failover_may_be_handled_twice(kind: str, first: float, is_explained: bool) -> None:
    runs = [run(5, handler, start=first) for handler in handlers_of(5)]
    again = run(5, "always", pid=2, start=120.0)
    evidence = good(*runs, again, interruptions=[replace(FAILED_OVER, kind=kind)])
    assert broken(emitted(evidence, 5, 97.0)) == ([] if is_explained else ["repeated without cause"])


def test_an_event_emitted_after_a_failover_is_not_excused_by_it() -> None:
    runs = [run(5, handler, start=104.5) for handler in handlers_of(5)]
    evidence = good(*runs, run(5, "always", pid=2, start=120.0), interruptions=[FAILED_OVER])
    assert broken(emitted(evidence, 5, 104.2)) == ["repeated without cause"]


def test_a_letter_written_twice_is_shown_after_a_failover_in_which_two_processes_had_the_entry_else_a_fault() -> None:
    twice = good(letters=2)
    assert broken(twice) == ["dead letters repeated"]
    gave_up = run(HOPELESS, "hopeless", start=101.0, result="failed")
    shown = replace(twice, executions=[*twice.executions, gave_up], interruptions=[FAILED_OVER])
    assert broken(shown) == []
    assert "written twice 1, of lost entries 0" in table(Options(topology="cluster"), shown, [])


def test_a_letter_that_is_missing_is_a_fault_whichever_master_failed_over() -> None:
    gave_up = run(HOPELESS, "hopeless", start=100.1, result="failed")
    for kind in ("master killed", "other master killed"):
        lost = good(gave_up, letters=0, interruptions=[replace(FAILED_OVER, kind=kind)])
        assert broken(lost) == ["lost", "dead letters missing"]


def test_a_letter_may_be_of_an_event_that_a_failover_lost() -> None:
    gave_up = replace(run(HOPELESS, "hopeless", start=100.1, result="failed"), entry_id="8-0", number=277)
    orphan = Letter("98-0", "8-0", "hopeless", "max_deliveries_exceeded")
    evidence = good(gave_up, interruptions=[FAILED_OVER])
    evidence = replace(evidence, stored=replace(evidence.stored, letters=[*evidence.stored.letters, orphan]))
    assert broken(evidence) == []
    assert "of lost entries 1" in table(Options(topology="cluster"), evidence, [])
    assert broken(replace(evidence, interruptions=())) == ["dead letters unexpected"]


def test_an_entry_that_failovers_interrupted_whenever_it_was_delivered_is_worn_out() -> None:
    tries = [run(JOB, "slow", pid=pid, start=100.0 + pid / 10) for pid in range(5)]
    letter = Letter("98-0", f"{JOB}-0", "slow", "max_deliveries_exceeded")
    evidence = good(*tries, interruptions=[FAILED_OVER])
    evidence = replace(evidence, stored=replace(evidence.stored, letters=[*evidence.stored.letters, letter]))
    assert broken(evidence) == []
    assert "worn out 1" in table(Options(topology="cluster"), evidence, [])
    assert broken(replace(evidence, executions=evidence.executions[:-1])) == ["dead letters unexpected"]
