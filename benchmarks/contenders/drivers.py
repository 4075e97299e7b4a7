"""The measurements, the same for every contender."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from redis.asyncio import Redis

from benchmarks.contenders.contract import Contender, Emitting
from benchmarks.contenders.tally import Tally
from benchmarks.jobs import FIRST, GROUP, SAMPLE, STREAM, Job, Outcome, checksum
from benchmarks.memory import resident_mib

CONCURRENT = 100
LIST = 100
PATIENCE = 300.0
SETTLE_PATIENCE = 20.0
POLL = 0.02


async def carry_out(contender: Contender, job: Job) -> Outcome:
    """Raises `Unavailable`."""
    match job.task:
        case "consume":
            return await _consume(contender, job)
        case "latency":
            return await _latency(contender, job)
        case "sample":
            async with contender.emitting(job) as emitting:
                await emitting.emit(SAMPLE)
            return Outcome()
        case _:
            return await _emit(contender, job)


# --- emitting -------------------------------------------------------------------------------------------------------


async def _emit(contender: Contender, job: Job) -> Outcome:
    shape = _SHAPES[job.task]
    async with contender.emitting(job) as emitting:
        await shape(emitting, range(FIRST, FIRST + job.warm))
        gc.collect()
        began, cpu_began = time.perf_counter(), time.process_time()
        await shape(emitting, range(FIRST + job.warm, FIRST + job.warm + job.count))
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    return Outcome(_speed(job.count, seconds, cpu_seconds))


async def _one_at_a_time(emitting: Emitting, numbers: range) -> None:
    for number in numbers:
        await emitting.emit(number)


async def _concurrently(emitting: Emitting, numbers: range) -> None:
    async with asyncio.TaskGroup() as tasks:
        for first in range(CONCURRENT):
            tasks.create_task(_one_at_a_time(emitting, numbers[first::CONCURRENT]))


async def _in_lists(emitting: Emitting, numbers: range) -> None:
    for first in range(0, len(numbers), LIST):
        await emitting.emit_list(numbers[first : first + LIST])


_SHAPES: dict[str, Callable[[Emitting, range], Awaitable[None]]] = {
    "emit-one": _one_at_a_time,
    "emit-concurrent": _concurrently,
    "emit-lists": _in_lists,
}


def _speed(count: int, seconds: float, cpu_seconds: float) -> dict[str, float]:
    return {"us": seconds / count * 1e6, "cpu_us": cpu_seconds / count * 1e6, "per_second": count / seconds}


# --- consuming ------------------------------------------------------------------------------------------------------


async def _consume(contender: Contender, job: Job) -> Outcome:
    tally = Tally(job.count * job.handlers, job.warm * job.handlers)
    memory: dict[str, float] = {}
    gc.collect()
    async with AsyncExitStack() as stack:
        if job.memory_mark:
            watching = asyncio.create_task(_watch_memory(tally, job.memory_mark, memory))
            stack.callback(watching.cancel)
        consuming = await stack.enter_async_context(contender.consuming(job, tally))
        await _handled(tally, consuming)
        await _settled(job.url)
    if job.memory_mark:
        memory["mib_last"] = resident_mib()
        memory["growth"] = memory["mib_last"] / memory["mib_first"]
    speed = _speed(tally.timed // job.handlers, tally.seconds, tally.cpu_seconds)
    return Outcome({**speed, **memory}, tally.count, tally.checksum)


async def _handled(tally: Tally, consuming: asyncio.Task[object] | None) -> None:
    """Return when everything was handled. Raises what the consumer raised, if it ended before."""
    waiting = asyncio.create_task(tally.done.wait())
    try:
        tasks = {waiting} if consuming is None else {waiting, consuming}
        finished, _ = await asyncio.wait(tasks, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if waiting not in finished:
            if consuming in finished:
                consuming.result()
            raise AssertionError(f"handled {tally.count} of {tally.expected}, then nothing more")
    finally:
        waiting.cancel()


async def _settled(url: str) -> None:
    """Return when the group has nothing pending. Off the clock, and asked rarely."""
    async with asyncio.timeout(SETTLE_PATIENCE), Redis.from_url(url) as client:
        while (await client.xpending(STREAM, GROUP))["pending"]:
            await asyncio.sleep(POLL)


async def _watch_memory(tally: Tally, mark: int, memory: dict[str, float]) -> None:
    while tally.count < mark:
        await asyncio.sleep(POLL)
    memory["mib_first"] = resident_mib()


# --- from emit to handler -------------------------------------------------------------------------------------------


class _Arrivals(Tally):
    """Notes when each event reaches its handler, which does nothing else."""

    def __init__(self, count: int) -> None:
        super().__init__(count, 1)
        self.sent = [0] * count
        self.arrived = [0] * count

    def note(self, number: int) -> None:
        self.arrived[number - FIRST] = time.perf_counter_ns()
        super().note(number)


async def _latency(contender: Contender, job: Job) -> Outcome:
    """Emits at a steady rate, whatever becomes of earlier emits: a slow one does not slow the load down."""
    total = job.warm + job.count
    arrivals = _Arrivals(total)
    async with contender.consuming(job, arrivals) as consuming, contender.emitting(job) as emitting:
        gc.collect()
        async with asyncio.TaskGroup() as tasks:
            await _paced(tasks, emitting, arrivals, job.rate)
        await _handled(arrivals, consuming)
        await _settled(job.url)
    waits = sorted((arrivals.arrived[at] - arrivals.sent[at]) / 1_000 for at in range(job.warm, total))
    metrics = {"p50": waits[len(waits) // 2], "p99": waits[len(waits) * 99 // 100]}
    assert arrivals.checksum == checksum(total, 1)
    return Outcome(metrics, arrivals.count, arrivals.checksum)


async def _paced(tasks: asyncio.TaskGroup, emitting: Emitting, arrivals: _Arrivals, rate: int) -> None:
    async def emit(at: int) -> None:
        arrivals.sent[at] = time.perf_counter_ns()
        await emitting.emit(FIRST + at)

    began = time.perf_counter()
    for at in range(len(arrivals.sent)):
        early = began + at / rate - time.perf_counter()
        if early > 0:
            await asyncio.sleep(early)
        tasks.create_task(emit(at))
