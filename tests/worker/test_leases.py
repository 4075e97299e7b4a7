"""Leases: what a living process holds is its own, what a process lost while it was suspended is not."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    check_keys,
    consumers,
    letters,
    make_router,
    pending,
    running,
    until_settled,
)

Start = Callable[[str], subprocess.Popen[bytes]]


class OuLeased(BaseEvent):
    number: int = 0


async def emit(redis: Redis, *numbers: int) -> list[str]:
    return await EventEmitter(redis, STREAM).emit([OuLeased(number=number) for number in numbers])


# --- in one process -------------------------------------------------------------------------------------------------


async def test_a_handler_of_five_times_the_lease_runs_once(redis: Redis) -> None:
    seen: list[int] = []
    routers = [make_router(redis, claim_min_idle_ms=500, batch_size=3) for _ in range(2)]
    for router in routers:

        @router.on(OuLeased)
        async def handle(event: OuLeased) -> None:
            seen.append(event.number)
            if event.number == 0:
                await asyncio.sleep(2.5)

    async with running(*routers):
        await emit(redis, *range(6))
        await until_settled(redis)
    assert sorted(seen) == list(range(6))


async def test_a_blocked_event_loop_is_logged_with_its_time(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router, seen = make_router(redis, claim_min_idle_ms=300), []

    @router.on(OuLeased)
    async def handle(event: OuLeased) -> None:
        seen.append(event.number)
        if event.number == 0:
            time.sleep(0.6)  # as a blocking call in a handler does
        await asyncio.sleep(0.05)

    def logged() -> list[logging.LogRecord]:
        found = [record for record in caplog.records if "stood still" in record.getMessage()]
        return [record for record in found if vars(record)["standstill_seconds"] >= 0.4]

    async with running(router):
        await emit(redis, 0, 1)
        await until_settled(redis)
        await eventually(logged)
    assert seen == [0, 1]
    record = logged()[0]
    assert record.levelno == logging.WARNING
    assert {"stream", "group", "consumer"} <= vars(record).keys()


async def test_an_event_loop_that_runs_is_not_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router = make_router(redis, claim_min_idle_ms=1_500)

    @router.on(OuLeased)
    async def handle(event: OuLeased) -> None:
        await asyncio.sleep(2)  # longer than a lease lasts

    async with running(router):
        await emit(redis, 0)
        await until_settled(redis)
    assert "stood still" not in caplog.text


@pytest.mark.parametrize("ends", ["done", "failed", "dead"])
async def test_a_lease_lost_while_the_handler_runs_leaves_it_only_done_to_write(redis: Redis, ends: str) -> None:
    taken, go_on, seen = asyncio.Event(), asyncio.Event(), []
    router = make_router(redis, claim_min_idle_ms=10_000, max_deliveries=1 if ends == "dead" else 5)

    @router.on(OuLeased, name="first")
    async def first(event: OuLeased) -> None:
        seen.append("first")

    @router.on(OuLeased, name="second")
    async def second(event: OuLeased) -> None:
        taken.set()
        await go_on.wait()
        seen.append("second")
        if ends != "done":
            raise ValueError

    async with running(router):
        [entry_id] = await emit(redis, 0)
        await taken.wait()
        await redis.xclaim(STREAM, GROUP, "another", 0, [entry_id])
        go_on.set()
        await eventually(lambda: len(seen) == 2)
        await asyncio.wait_for(router.stop(), 30)

    left = {row["consumer"] for row in await pending(redis)}
    assert left == (set() if ends == "done" else {b"another"})
    assert await letters(redis) == []
    if ends != "done":  # the other repeats only what had not finished
        assert b'"done":["first"]' in (await redis.hgetall(f"{{{STREAM}}}:rapids:ledger:{GROUP}"))[entry_id.encode()]
    await check_keys(redis, settled=ends == "done")


# --- in processes of their own --------------------------------------------------------------------------------------

WORKER = """
import asyncio, os, signal, sys
from rapids import BaseEvent, current_delivery
from tests.servers.client import connect
from tests.worker.helpers import make_router

class OuLeased(BaseEvent):
    number: int = 0

async def main(url, mode):
    redis = connect(url)
    router = make_router(redis, claim_min_idle_ms=400, consumer=mode, max_deliveries=3, batch_size=10)

    @router.on(OuLeased)
    async def handle(event):
        await redis.rpush("ran:" + mode, event.number)
        if mode == "toxic" and event.number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        await asyncio.sleep(0.15 if mode == "stopped" else 0)

    await router.start()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def start_worker(redis_address: str, tmp_path: Path) -> Iterator[Start]:
    script, started = tmp_path / "worker.py", list[subprocess.Popen[bytes]]()
    script.write_text(WORKER)

    def start(mode: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        started.append(subprocess.Popen([sys.executable, str(script), redis_address, mode], env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


async def ran(redis: Redis, mode: str) -> list[int]:
    return [int(number) for number in await redis.lrange(f"ran:{mode}", 0, -1)]


async def test_a_suspended_process_takes_no_entry_back_after_it_continues(redis: Redis, start_worker: Start) -> None:
    worker = start_worker("stopped")
    await emit(redis, *range(10))
    await eventually(lambda: ran(redis, "stopped"))
    os.kill(worker.pid, signal.SIGSTOP)
    before, seen, under_way, go_on = await ran(redis, "stopped"), [], asyncio.Event(), asyncio.Event()
    router = make_router(redis, claim_min_idle_ms=400, consumer="other")

    @router.on(OuLeased)
    async def handle(event: OuLeased) -> None:
        seen.append(event.number)
        if event.number == 9:
            under_way.set()
            await go_on.wait()  # holds it while the stopped one goes on

    async with running(router):
        await asyncio.wait_for(under_way.wait(), 30)
        os.kill(worker.pid, signal.SIGCONT)
        await eventually(lambda: _runs_new_ones(redis), interval=0.1)
        go_on.set()
        await until_settled(redis)
    after = [number for number in await ran(redis, "stopped") if number < 100]
    assert set(before) | set(seen) | set(after) >= set(range(10))
    assert after == before, "it ran what another had claimed"
    assert len([number for number in seen if number < 100]) == len({number for number in seen if number < 100})
    assert len(set(seen) & set(before)) <= 1  # what it was at when it was stopped


async def _runs_new_ones(redis: Redis) -> bool:
    await emit(redis, 100)
    return 100 in await ran(redis, "stopped")


async def test_only_the_toxic_entry_becomes_a_dead_letter(redis: Redis, start_worker: Start) -> None:
    ids = await emit(redis, *range(10))
    deaths = 0
    worker = start_worker("toxic")
    while not await letters(redis) or not await _all_settled(redis):
        if worker.poll() is not None:
            assert worker.returncode == -signal.SIGKILL
            deaths += 1
            assert deaths <= 3
            worker = start_worker("toxic")
        await asyncio.sleep(0.02)

    [letter] = await letters(redis, DLQ)
    assert letter[b"reason"] == b"max_deliveries_exceeded"
    assert letter[b"original_msg_id"] == ids[4].encode()
    assert letter[b"deliveries"] == b"4"
    done = await ran(redis, "toxic")
    assert done.count(4) == deaths == 3
    assert set(done) == set(range(10))
    # Repeated is at most what ran in the milliseconds before the first death, whose acknowledgements waited for a read
    # to go along with. Before each later run of the toxic one everything was settled.
    assert all(done.count(number) <= (2 if number < 4 else 1) for number in range(10) if number != 4)
    await redis.delete("ran:toxic")
    await check_keys(redis)


async def _all_settled(redis: Redis) -> bool:
    return sum((await consumers(redis)).values()) == 0
