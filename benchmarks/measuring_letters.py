"""Measurements over dead letters: as many as a scenario says, written once and looked at by several."""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import asdict

from redis.asyncio import Redis

from benchmarks.environments import IMPORTABLE, Environment
from benchmarks.http_pages import Looking
from benchmarks.jobs import DLQ, LETTER_INDEX, Job, Outcome
from benchmarks.letters import fill
from benchmarks.processes import Failed, Processors, end_and_hear, output_of, running

MB = 1_000_000
APP = "benchmarks.contenders.endpoint_letters:app"


class MeasuringLetters:
    """Carries out measurements on one server, one after the other. Raises `Failed` or `Wrong`."""

    def __init__(self, redis: Redis, url: str, processors: Processors) -> None:
        self._redis = redis
        self._url = url
        self._processors = processors

    async def measure(self, job: Job, environment: Environment) -> Outcome:
        await self._fill(job.count)
        match job.task:
            case "letters-http":
                return Outcome(await self._over_http(environment))
            case "letters-index":
                return await self._index(job, environment)
            case _:
                return await self._run(job, environment)

    async def _fill(self, count: int) -> None:
        """The letters of the measurement before, if they are still there."""
        if await self._redis.xlen(DLQ) != count:
            await self._redis.flushall()
            await fill(self._redis, count)

    async def _index(self, job: Job, environment: Environment) -> Outcome:
        """The size of the index, as the server reports it for its keys and as the memory without them shows; and
        the cost of rebuilding it."""
        reported = await self._reported_size()
        before = await self._memory()
        await self._redis.delete(*await self._index_keys())
        without = await self._memory()
        outcome = await self._run(job, environment)
        rebuilt = await self._memory()
        sizes = {"reported": reported / MB, "used": (before - without) / MB, "rebuilt": (rebuilt - without) / MB}
        return Outcome({**outcome.metrics, **sizes})

    async def _index_keys(self) -> list[bytes]:
        return [key async for key in self._redis.scan_iter(f"{LETTER_INDEX}*", count=1_000)]

    async def _reported_size(self) -> int:
        return sum([await self._redis.memory_usage(key, samples=0) or 0 for key in await self._index_keys()])

    async def _memory(self) -> int:
        """What the server uses, once it has freed what was deleted, which it does in the background."""
        while (await self._redis.info("memory"))["lazyfree_pending_objects"]:
            await asyncio.sleep(0.05)
        return int((await self._redis.info("memory"))["used_memory"])

    async def _over_http(self, environment: Environment) -> Mapping[str, float]:
        port, token = _free_port(), secrets.token_hex(8)
        options = ["--port", str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        async with running(
            *(environment.python, "-m", "uvicorn", APP, *options, "--log-level", "warning"),
            cwd=IMPORTABLE,
            cpu=self._processors.measured,
            environment={"BENCH_REDIS_URL": self._url, "BENCH_TOKEN": token},
        ) as server:
            looking = Looking(port, token, server.pid)
            command = (environment.python, "-m", "benchmarks.http_pages", json.dumps(asdict(looking)))
            try:
                said = await output_of(*command, cwd=IMPORTABLE, cpu=self._processors.others)
            except Failed as error:
                raise Failed(f"{error}; the server: {await end_and_hear(server)}") from error
        return json.loads(said)

    async def _run(self, job: Job, environment: Environment) -> Outcome:
        command = (environment.python, "-m", "benchmarks.contenders", job.to_json())
        said = await output_of(*command, cwd=IMPORTABLE, cpu=self._processors.measured)
        return Outcome.from_json(said.splitlines()[-1])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
