"""One measurement: one contender in one scenario and round; and whether what it left is right."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.environments import IMPORTABLE, Environment
from benchmarks.http_load import Answers, Load
from benchmarks.jobs import Job, Outcome, checksum
from benchmarks.measuring_letters import MeasuringLetters
from benchmarks.processes import Failed, Processors, end_and_hear, output_of, running
from benchmarks.scenario import BEFORE, Scenario
from benchmarks.stage import Stage, Wrong

WARM_SHARE = 10
"""One in so many events comes before the clock."""

ENDPOINTS = ("plain", "built", "emits")
LOOP_OF_ENDPOINTS = "uvloop"


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long an endpoint is under load."""

    warm: float
    timed: float


class Measuring:
    """Carries out measurements on one server, one after the other."""

    def __init__(self, stage: Stage, url: str, processors: Processors, *, quick: bool) -> None:
        self._stage = stage
        self._url = url
        self._processors = processors
        self._quick = quick
        self._seconds = Seconds(0.3, 0.5) if quick else Seconds(1.0, 2.0)
        self._samples: dict[tuple[str, int], list[bytes]] = {}
        self._letters = MeasuringLetters(stage.redis, url, processors)

    async def measure(self, scenario: Scenario, environment: Environment, number: int) -> Outcome:
        """Raises `Failed` or `Wrong`."""
        if scenario.task == "endpoint":
            return await self._endpoints(environment, number)
        job = self._job(scenario, environment.contender)
        if scenario.task.startswith("letters-"):
            return await self._letters.measure(job, environment)
        match scenario.task:
            case "consume":
                return await self._consume(job, environment)
            case "latency":
                return await self._latency(job, environment)
            case _:
                return await self._emit(job, environment)

    def _job(self, scenario: Scenario, contender: str) -> Job:
        count = scenario.count_for(contender, self._quick)
        job = Job(task=scenario.task, contender=contender, url=self._url, count=count, **scenario.options)
        mark = min(job.memory_mark, count // 2)
        return replace(job, warm=count // WARM_SHARE, memory_mark=mark)

    async def _emit(self, job: Job, environment: Environment) -> Outcome:
        await self._stage.clear()
        outcome = await self._run(job, environment)
        if not outcome.unavailable:
            await self._stage.expect_length(job.warm + job.count)
        return outcome

    async def _consume(self, job: Job, environment: Environment) -> Outcome:
        await self._stage.fill(await self._sample(job, environment), job.count)
        outcome = await self._run(job, environment)
        if not outcome.unavailable:
            await self._check_handled(outcome, job.count, job.handlers)
        return outcome

    async def _latency(self, job: Job, environment: Environment) -> Outcome:
        await self._stage.clear()
        await self._stage.make_group()
        outcome = await self._run(job, environment)
        if not outcome.unavailable:
            await self._stage.expect_length(job.warm + job.count)
            await self._check_handled(outcome, job.warm + job.count, 1)
        return outcome

    async def _check_handled(self, outcome: Outcome, count: int, handlers: int) -> None:
        if (outcome.handled, outcome.checksum) != (count * handlers, checksum(count, handlers)):
            raise Wrong(
                f"{outcome.handled:,} handler calls for {count:,} events and {handlers} handlers, or not for each"
            )
        await self._stage.expect_consumed()

    async def _sample(self, job: Job, environment: Environment) -> list[bytes]:
        """An entry in the contender's own format."""
        key = (job.contender, job.payload)
        if key not in self._samples:
            await self._stage.clear()
            await self._run(Job(task="sample", contender=key[0], url=job.url, payload=key[1]), environment)
            self._samples[key] = await self._stage.take_sample()
        return self._samples[key]

    async def _run(self, job: Job, environment: Environment) -> Outcome:
        command = (environment.python, "-m", "benchmarks.contenders", job.to_json())
        said = await output_of(*command, cwd=IMPORTABLE, cpu=self._processors.measured)
        return Outcome.from_json(said.splitlines()[-1])

    async def _endpoints(self, environment: Environment, number: int) -> Outcome:
        """All endpoints of one server process, in another order each round."""
        await self._stage.clear()
        with tempfile.TemporaryDirectory(prefix="rapids-bench-") as folder:
            socket = str(Path(folder) / "http.sock")
            async with running(
                *self._server_command(environment, socket),
                cwd=IMPORTABLE,
                cpu=self._processors.measured,
                environment={"BENCH_REDIS_URL": self._url},
            ) as server:
                try:
                    answers = {path: await self._load(environment, socket, path) for path in _turned(number)}
                except Failed as error:
                    raise Failed(f"{error}; the server: {await end_and_hear(server)}") from error
        await self._stage.expect_length(answers["emits"].total)
        return Outcome(_kept({path: answer.timed / answer.seconds for path, answer in answers.items()}))

    def _server_command(self, environment: Environment, socket: str) -> list[str]:
        contender = "ours" if environment.contender == BEFORE else environment.contender
        app = f"benchmarks.contenders.endpoint_{contender}:app"
        options = ["--loop", LOOP_OF_ENDPOINTS, "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        return [environment.python, "-m", "uvicorn", app, "--uds", socket, *options]

    async def _load(self, environment: Environment, socket: str, path: str) -> Answers:
        load = Load(socket, f"/{path}", self._seconds.warm, self._seconds.timed)
        command = (environment.python, "-m", "benchmarks.http_load", json.dumps(asdict(load)))
        said = await output_of(*command, cwd=IMPORTABLE, cpu=self._processors.others)
        return Answers(**json.loads(said))


def _turned(number: int) -> tuple[str, ...]:
    turn = number % len(ENDPOINTS)
    return ENDPOINTS[turn:] + ENDPOINTS[:turn]


def _kept(rates: Mapping[str, float]) -> dict[str, float]:
    return {**rates, "kept": rates["emits"] / rates["plain"], "kept_built": rates["emits"] / rates["built"]}
