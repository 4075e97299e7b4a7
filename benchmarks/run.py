"""One run: the environments, a private server, and the contenders in turn, round after round."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis

from benchmarks.chart import chart
from benchmarks.environments import BEFORE_COMMIT, Environment, Python, find_python, prepare
from benchmarks.machine import Machine, available, describe
from benchmarks.measuring import Measuring
from benchmarks.processes import Failed, Processors, pin
from benchmarks.results import TOLERATED, Findings, as_json, row_results
from benchmarks.scenario import BEFORE, Scenario
from benchmarks.servers import private_server
from benchmarks.stage import Stage, Wrong
from benchmarks.table import MARK, legend, table
from benchmarks.table import number as formatted

PATIENCE = 120.0
"""Seconds that a command which prepares a measurement may take."""


@dataclass(frozen=True, slots=True)
class Options:
    scenarios: tuple[Scenario, ...]
    contenders: tuple[str, ...]
    rounds: int
    quick: bool
    pinned: bool
    """Whether to keep what is measured on one processor and all else on another."""
    python: str | None
    """The interpreter to build the environments with; None finds one."""
    output: Path
    """The folder for the results."""
    before: str = BEFORE_COMMIT
    """The commit that the contender `before` is built from."""
    server: Path | None = None
    """Another server's executable than the embedded one's."""

    def describe(self) -> dict[str, Any]:
        return {
            "scenarios": [scenario.name for scenario in self.scenarios],
            "contenders": list(self.contenders),
            "rounds": self.rounds,
            "quick": self.quick,
            **({"before": self.before} if BEFORE in self.contenders else {}),
        }


class Run:
    def __init__(self, options: Options) -> None:
        self._options = options
        self._findings = Findings()
        self._began = time.monotonic()

    async def carry_out(self) -> list[str]:
        """Measure, print the table and write the results: what failed, if anything did."""
        python = await find_python(self._options.python)
        contenders = self._those_that_run(python)
        if BEFORE in contenders:
            self._findings.notes.append(_about_before(self._options.before))
        environments = await prepare(contenders, python, self._options.before)
        async with private_server(self._options.server) as server, _client(server.url) as redis:
            processors = _processors(self._options.pinned)
            pin(server.pid, processors.others)
            stage = Stage(redis)
            measuring = Measuring(stage, server.url, processors, quick=self._options.quick)
            machine = describe(python, await stage.version(), processors.measured is not None, environments)
            print(machine, flush=True)
            self._began = time.monotonic()
            for scenario in self._options.scenarios:
                await self._measure(measuring, scenario, [environments[name] for name in contenders])
        self._report(machine, contenders)
        return self._findings.failures

    async def _measure(self, measuring: Measuring, scenario: Scenario, environments: Sequence[Environment]) -> None:
        taking_part = [one for one in environments if scenario.has(one.contender)]
        for number in range(self._rounds_of(scenario)):
            first = number % max(1, len(taking_part))
            for environment in taking_part[first:] + taking_part[:first]:
                await self._measure_one(measuring, scenario, environment, number)
        self._say(scenario, [one.contender for one in taking_part])

    def _rounds_of(self, scenario: Scenario) -> int:
        """All that were asked for where two commits are compared: one round cannot tell a difference from noise."""
        rounds = self._options.rounds
        return rounds if BEFORE in self._options.contenders else min(rounds, scenario.most_rounds)

    async def _measure_one(
        self, measuring: Measuring, scenario: Scenario, environment: Environment, number: int
    ) -> None:
        contender = environment.contender
        if (scenario.name, contender) in self._findings.missing:
            return
        try:
            outcome = await measuring.measure(scenario, environment, number)
        except (Failed, Wrong) as error:
            print(f"{scenario.name}, {contender}: {error}", file=sys.stderr, flush=True)
            self._findings.add_failure(scenario, contender, number, str(error))
            return
        if outcome.unavailable:
            self._findings.add_missing(scenario, contender, outcome.unavailable)
        else:
            self._findings.add(scenario, contender, number, outcome.metrics)

    def _say(self, scenario: Scenario, contenders: Sequence[str]) -> None:
        for result in row_results([scenario], self._findings, contenders):
            medians = [
                f"{name} {formatted(found.median)}" if (found := result.spread_of(name)) else f"{name} n/a"
                for name in contenders
            ]
            seconds = time.monotonic() - self._began
            print(f"{seconds:7.1f} s  {result.row.name} [{result.row.unit}]: {', '.join(medians)}", flush=True)

    def _those_that_run(self, python: Python) -> list[str]:
        wanted = self._options.contenders
        if "peer" not in wanted or python.runs_the_peer:
            return list(wanted)
        note = (
            f"rapids-streams needs Python 3.12 or newer, and this is {python}: it is left out. Put a python3.13 or "
            "python3.12 on the PATH (or under ~/.pyenv/versions), or name one with --python."
        )
        print(note, flush=True)
        self._findings.notes.append(note)
        return [name for name in wanted if name != "peer"]

    def _report(self, machine: Machine, contenders: Sequence[str]) -> None:
        rows = row_results(self._options.scenarios, self._findings, contenders)
        seconds = time.monotonic() - self._began
        folder = self._options.output
        folder.mkdir(parents=True, exist_ok=True)
        found = as_json(machine, self._options.describe(), rows, self._findings, seconds)
        (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
        text = f"{machine}\n\n{table(rows, contenders)}\n\n{legend(self._findings)}\n"
        (folder / "table.md").write_text(text)
        (folder / "chart.svg").write_text(chart(rows))
        if slower := [result.row.title for result in rows if result.is_slower]:
            text += f"\n{len(slower)} of {len(rows)} rows are {MARK}: {'; '.join(slower)}\n"
        print(f"\n{text}\nWritten to {folder}, in {seconds:.0f} s.")


def _client(url: str) -> Redis:
    """The client that prepares each measurement, patient with a busy machine."""
    return Redis.from_url(url, socket_timeout=PATIENCE)


def _about_before(commit: str) -> str:
    percent = round((TOLERATED - 1) * 100)
    return f"before: Rapids at commit {commit[:10]}. {MARK}: more than {percent} % slower, or larger, than that."


def _processors(wanted: bool) -> Processors:
    found = available()
    return Processors(found[0], found[1]) if wanted and len(found) > 1 else Processors(None, None)
