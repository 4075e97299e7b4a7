"""`python -m benchmarks.profile consume|emit|emit-concurrent`: where our time goes, by cProfile, most first."""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import sys

from redis.asyncio import Redis

from benchmarks.contenders.__main__ import run
from benchmarks.jobs import Job
from benchmarks.stage import Stage
from rapids.embedded import EmbeddedServer

TASKS = {"consume": "consume", "emit": "emit-one", "emit-concurrent": "emit-concurrent", "emit-lists": "emit-lists"}
LINES = 40
COUNT = 20_000


async def _prepare(job: Job, *, filled: bool) -> None:
    async with Redis.from_url(job.url) as redis:
        await Stage(redis).clear()
        if filled:
            await _fill(Stage(redis), job)


async def _fill(stage: Stage, job: Job) -> None:
    await asyncio.to_thread(run, Job(task="sample", contender=job.contender, url=job.url))
    await stage.fill(await stage.take_sample(), job.count)


def profile(job: Job) -> pstats.Stats:
    asyncio.run(_prepare(job, filled=job.task == "consume"))
    profiler = cProfile.Profile()
    outcome = profiler.runcall(run, job)
    print(f"{outcome.metrics['us']:.1f} µs an event, the profiler's own time included")
    return pstats.Stats(profiler)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("path", choices=TASKS)
    parser.add_argument("--contender", choices=["ours", "floor"], default="ours")
    parser.add_argument("--count", type=int, default=COUNT, help="events")
    parser.add_argument("--batch-size", type=int, help="entries a read takes; by default the router's default")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--sort", default="tottime", help="as pstats names it")
    chosen = parser.parse_args(arguments)
    with EmbeddedServer() as server:
        job = Job(
            task=TASKS[chosen.path],
            contender=chosen.contender,
            url=server.url,
            loop=chosen.loop,
            count=chosen.count,
            warm=chosen.count // 10,
            batch_size=chosen.batch_size,
        )
        profile(job).sort_stats(chosen.sort).print_stats(LINES)


if __name__ == "__main__":
    main(sys.argv[1:])
