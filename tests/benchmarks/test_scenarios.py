"""The list of what is measured, and what travels to contenders and back."""

from __future__ import annotations

from benchmarks.budgets import AtMostMore, AtMostTimes, Flat, TimesFaster
from benchmarks.jobs import FIRST, SAMPLE, Job, Outcome, checksum, order
from benchmarks.scenario import ALL
from benchmarks.scenarios import SCENARIOS

ROWS = [row for scenario in SCENARIOS for row in scenario.rows]


def test_names_are_unique() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_contenders_are_known_and_ours_is_always_among_them() -> None:
    assert all(set(scenario.contenders) <= set(ALL) and "ours" in scenario.contenders for scenario in SCENARIOS)


def test_the_earlier_commit_is_measured_wherever_ours_is() -> None:
    assert all(scenario.has("before") for scenario in SCENARIOS)
    assert not any(scenario.has("faststream") for scenario in SCENARIOS if "faststream" not in scenario.contenders)


def test_budgets_name_rows_and_contenders_that_are_measured() -> None:
    for scenario in SCENARIOS:
        for budget in (budget for row in scenario.rows for budget in row.budgets):
            match budget:
                case Flat(row, _) | AtMostMore(row, _):
                    assert row in {one.name for one in ROWS}
                case AtMostTimes(other, _) | TimesFaster(other, _):
                    assert other in scenario.contenders
                case _:
                    pass


def test_options_are_those_of_a_job() -> None:
    for scenario in SCENARIOS:
        Job(task=scenario.task, contender="ours", url="", **scenario.options)


def test_no_stream_reaches_the_length_emitters_trim_to() -> None:
    emitting = [scenario for scenario in SCENARIOS if scenario.task.startswith("emit")]
    assert emitting
    assert all(scenario.count * 1.1 < 100_000 for scenario in emitting)


def test_quick_runs_are_small() -> None:
    assert all(scenario.count_for(name, quick=True) <= 20_000 for scenario in SCENARIOS for name in scenario.contenders)


def test_jobs_and_outcomes_travel_as_json() -> None:
    job = Job(task="consume", contender="peer", url="unix:///x", count=10, batch_size=100, order_by="customer")
    outcome = Outcome({"us": 1.5}, handled=3, checksum=9)

    assert Job.from_json(job.to_json()) == job
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_the_checksum_is_the_sum_of_the_numbers() -> None:
    assert checksum(4, 3) == 3 * sum(range(FIRST, FIRST + 4))


def test_every_event_is_as_long_as_any_other() -> None:
    assert {len(str(order(number))) for number in (FIRST, FIRST + 999_999, SAMPLE)} == {len(str(order(FIRST)))}
