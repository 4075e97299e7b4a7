"""What a run found: for each row the rounds of each contender, their spread, the ratios, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.budgets import Verdict, judge
from benchmarks.machine import Machine
from benchmarks.scenario import BEFORE, Row, Scenario
from benchmarks.statistics import Rounds, Spread, ratio, spread

FAILED = "failed"
TOLERATED = 1.03
"""How many times as slow as an earlier commit ours may be before the table marks it."""


@dataclass(frozen=True, slots=True)
class RowResult:
    row: Row
    rounds: Mapping[str, Rounds]
    """By contender."""
    missing: Mapping[str, str]
    """Why a contender has nothing here."""
    to_floor: Spread | None
    """Ours to the floor: how many times its cost, or which share of its rate."""
    to_peer: Spread | None
    """How many times as fast as the peer ours is."""
    to_before: Spread | None
    """Ours to an earlier commit of ours, in the unit of the row."""
    verdicts: tuple[Verdict, ...]

    @property
    def is_slower(self) -> bool:
        """Whether ours is worse than the earlier commit by more than is tolerated."""
        if self.to_before is None:
            return False
        ratio = self.to_before.median
        return ratio > TOLERATED if self.row.lower_is_better else ratio < 1 / TOLERATED

    def spread_of(self, contender: str) -> Spread | None:
        return spread(list(self.rounds.get(contender, {}).values()))


@dataclass(slots=True)
class Findings:
    """Filled during a run."""

    measured: dict[tuple[str, str], dict[int, float]] = field(default_factory=dict)
    """By row and contender: what each round gave."""
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    """By scenario and contender: why there is nothing, `FAILED` among the reasons."""
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What else a reader of the table has to know."""

    def add(self, scenario: Scenario, contender: str, number: int, metrics: Mapping[str, float]) -> None:
        for row in scenario.rows:
            if row.metric in metrics:
                self.measured.setdefault((row.name, contender), {})[number] = metrics[row.metric]

    def add_missing(self, scenario: Scenario, contender: str, reason: str) -> None:
        self.missing[scenario.name, contender] = reason

    def add_failure(self, scenario: Scenario, contender: str, number: int, reason: str) -> None:
        """What the contender measured in other rounds does not count either: it may be as wrong.

        Of the reason its last line is kept: a trace has paths of the machine in it.
        """
        last = (reason.strip().splitlines() or ["?"])[-1]
        self.failures.append(f"{scenario.name}, {contender}, round {number + 1}: {last}")
        self.missing[scenario.name, contender] = FAILED
        for row in scenario.rows:
            self.measured.pop((row.name, contender), None)


def row_results(scenarios: Sequence[Scenario], findings: Findings, contenders: Sequence[str]) -> list[RowResult]:
    return [
        _result(scenario, row, findings, contenders)
        for scenario in scenarios
        for row in scenario.rows
        if row.is_shown(contenders)
    ]


def _result(scenario: Scenario, row: Row, findings: Findings, contenders: Sequence[str]) -> RowResult:
    rounds = {name: findings.measured[row.name, name] for name in contenders if (row.name, name) in findings.measured}
    ours, before, floor, peer = (rounds.get(name, {}) for name in ("ours", BEFORE, "floor", "peer"))
    return RowResult(
        row=row,
        rounds=rounds,
        missing={name: reason for (of, name), reason in findings.missing.items() if of == scenario.name},
        to_floor=ratio(ours, floor),
        to_peer=ratio(peer, ours) if row.lower_is_better else ratio(ours, peer),
        to_before=ratio(ours, before),
        verdicts=tuple(judge(budget, row.name, findings.measured) for budget in row.budgets),
    )


def as_json(
    machine: Machine, options: Mapping[str, Any], rows: Sequence[RowResult], findings: Findings, seconds: float
) -> dict[str, Any]:
    """Plain values, all that was measured among them."""
    return {
        "machine": asdict(machine),
        "options": dict(options),
        "seconds": round(seconds),
        "notes": findings.notes,
        "failures": findings.failures,
        "rows": [_row_as_json(result) for result in rows],
    }


def _row_as_json(result: RowResult) -> dict[str, Any]:
    return {
        "name": result.row.name,
        "title": result.row.title,
        "unit": result.row.unit,
        "lower_is_better": result.row.lower_is_better,
        "contenders": {
            name: {**asdict(found), "values": list(result.rounds[name].values())}
            for name in result.rounds
            if (found := result.spread_of(name))
        },
        "missing": dict(result.missing),
        "ours_to_floor": result.to_floor and asdict(result.to_floor),
        "times_as_fast_as_peer": result.to_peer and asdict(result.to_peer),
        "ours_to_before": result.to_before and asdict(result.to_before),
        "slower_than_before": result.is_slower,
        "budgets": [asdict(verdict) for verdict in result.verdicts],
    }
