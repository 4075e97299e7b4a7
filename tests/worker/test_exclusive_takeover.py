"""exclusive=True: another consumer becomes the active one, whatever the last one held, waited for, or was given."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventRouter, NonRetryableError
from rapids._core.outcomes import Ledger
from rapids._storage import groups, settlement
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import PARKED, Source
from rapids._storage.settlement import SettleCall
from rapids.backoff import constant
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    blocked,
    calls,
    consumers,
    letters,
    make_emitter,
    make_router,
    pending,
    running,
    settled,
    until_settled,
)

SOURCE = Source(STREAM, GROUP)


class EtTask(BaseEvent):
    number: int = 0
    key: str = "one"


async def emit(redis: Redis, *numbers: int, key: str = "one") -> list[str]:
    return await make_emitter(redis).emit([EtTask(number=number, key=key) for number in numbers])


class Runs:
    """What routers of one group ran, in order."""

    def __init__(self, redis: Redis, act: Callable[[EtTask], Any] = lambda event: None) -> None:
        self.redis = redis
        self.numbers: list[int] = []
        self._act = act

    def router(self, name: str, **options: Any) -> EventRouter:
        defaults: dict[str, Any] = {"exclusive": True, "consumer": name, "order_by": "key", "concurrency": 4}
        router = make_router(self.redis, **(defaults | options))

        @router.on(EtTask)
        async def handle(event: EtTask) -> None:
            self.numbers.append(event.number)
            done = self._act(event)
            if done is not None:
                await done

        return router


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which no two consumers are alive at once, so that a slow machine changes nothing."""
    monkeypatch.setattr("rapids._worker.exclusivity.TTL_MS", 600)
    monkeypatch.setattr("rapids._worker.exclusivity.STANDBY_PAUSE", 0.05)


async def left_behind(redis: Redis, *numbers: int, key: str = "one") -> list[bytes]:
    """Entries that are pending for a consumer that is gone."""
    ids = [entry_id.encode() for entry_id in await emit(redis, *numbers, key=key)]
    await groups.create(SharedPool(redis, STREAM), SOURCE, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    return ids


async def keep(redis: Redis, entry_id: bytes, seconds: float) -> None:
    """Let an entry of the gone consumer wait for its next delivery."""
    call = SettleCall(SOURCE, entry_id, "keep", Ledger(recorded=1).dump(), delay_ms=round(seconds * 1000))
    assert await settlement.settle(SharedPool(redis, STREAM), "dead", [call], dlq=DLQ, dlq_maxlen=None) == [b"kept"]


# --- what waits -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_later_entries_of_a_key_wait_for_one_that_is_to_be_delivered_again(
    redis: Redis, concurrency: int
) -> None:
    """Those that another consumer left, and new ones. Entries of other keys do not wait, also not to be read."""
    first, _ = await left_behind(redis, 1, 2)
    await keep(redis, first, 3_600)
    await emit(redis, 3)
    await emit(redis, 4, key="two")
    runs = Runs(redis)
    async with running(runs.router("new", concurrency=concurrency)):
        await eventually(lambda: runs.numbers)
        await redis.zadd(SOURCE.due, {first: 1})
        await until_settled(redis)
    assert runs.numbers == [4, 1, 2, 3]


async def test_what_was_released_waits_for_what_is_due_later(redis: Redis) -> None:
    """A consumer that stops releases what is in its lanes, due at once, behind an entry that waits for longer."""
    first, second, third = await left_behind(redis, 1, 2, 3)
    await keep(redis, first, 1.0)
    for entry_id in (third, second):
        await keep(redis, entry_id, 0.0)
    await emit(redis, 4)
    runs = Runs(redis)
    async with running(runs.router("new")):
        await until_settled(redis)
    assert runs.numbers == [1, 2, 3, 4]


async def test_an_earlier_entry_that_was_abandoned_does_not_wait_for_a_later_one(redis: Redis) -> None:
    """It was running, and those after it were released when the group was paused."""
    _, second = await left_behind(redis, 1, 2)
    await keep(redis, second, 0.5)
    runs = Runs(redis)
    async with running(runs.router("new")):
        await until_settled(redis)
    assert runs.numbers == [1, 2]


async def test_all_that_wait_are_known_before_anything_begins(redis: Redis) -> None:
    """More than are fetched in one round trip, one of each key."""
    keys = [f"key {number}" for number in range(50)]
    emitter = make_emitter(redis)
    ids = await emitter.emit([EtTask(number=0, key=key) for key in keys])
    await groups.create(SharedPool(redis, STREAM), SOURCE, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    for entry_id in ids:
        await keep(redis, entry_id.encode(), 1.0)
    await emitter.emit([EtTask(number=1, key=key) for key in keys])
    ran: dict[str, list[int]] = {key: [] for key in keys}
    runs = Runs(redis, lambda event: ran[event.key].append(event.number))
    async with running(runs.router("new")):
        await until_settled(redis)
    assert set(map(tuple, ran.values())) == {(0, 1)}


async def test_new_entries_wait_while_not_all_that_was_left_is_known(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If more is left than is looked for in a turn, and what was found waits for an entry that is due later."""
    monkeypatch.setattr("rapids._storage.groups.PAGE", 1)
    monkeypatch.setattr("rapids._worker.reclaimer.MOST_FOUND", 1)
    first, _ = await left_behind(redis, 1, 2)
    await keep(redis, first, 1.0)
    await emit(redis, 3, key="two")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    await emit(redis, 4, key="two")
    runs = Runs(redis)
    async with running(runs.router("new")):
        await until_settled(redis)
    assert [number for number in runs.numbers if number > 2] == [3, 4]
    assert [number for number in runs.numbers if number <= 2] == [1, 2]


async def test_a_waiting_entry_that_somebody_settled_blocks_its_key_for_a_short_time_only(redis: Redis) -> None:
    [first] = await left_behind(redis, 1)
    await keep(redis, first, 0.1)
    await redis.xack(STREAM, GROUP, first)
    await emit(redis, 2)
    runs = Runs(redis)
    async with running(runs.router("new")):
        await until_settled(redis)
    assert runs.numbers == [2]


async def test_without_order_by_nothing_waits_for_an_entry_to_be_delivered_again(redis: Redis) -> None:
    """Like in one consumer: it comes back later, after others."""
    [first] = await left_behind(redis, 1)
    await keep(redis, first, 3_600)
    await emit(redis, 2)
    runs = Runs(redis)
    async with running(runs.router("new", order_by=None, concurrency=1)):
        await eventually(lambda: runs.numbers)
        await redis.zadd(SOURCE.due, {first: 1})
        await until_settled(redis)
    assert runs.numbers == [2, 1]


async def test_with_retry_blocks_key_false_a_key_does_not_wait(redis: Redis) -> None:
    [first] = await left_behind(redis, 1)
    await keep(redis, first, 3_600)
    await emit(redis, 2)
    runs = Runs(redis)
    async with running(runs.router("new", retry_blocks_key=False)):
        await eventually(lambda: runs.numbers)
        await redis.zadd(SOURCE.due, {first: 1})
        await until_settled(redis)
    assert runs.numbers == [2, 1]


@pytest.mark.usefixtures("soon")
async def test_a_parked_entry_stays_parked_and_its_key_goes_on(redis: Redis) -> None:
    """As it did at the consumer that parked it."""

    def give_up(event: EtTask) -> None:
        if event.number == 1:
            raise NonRetryableError("no")

    runs = Runs(redis, give_up)
    async with running(runs.router("old", dlq_stream=None)):
        await emit(redis, 1, 2)
        await eventually(lambda: 2 in runs.numbers)
    async with running(runs.router("new", dlq_stream=None)):
        await emit(redis, 3)
        await eventually(lambda: 3 in runs.numbers)
        await eventually(lambda: _only_parked(redis))
    assert runs.numbers == [1, 2, 3]


async def _only_parked(redis: Redis) -> bool:
    return [row["consumer"] for row in await pending(redis)] == [PARKED]


@pytest.mark.usefixtures("soon")
async def test_a_key_waits_for_an_entry_that_failed_at_a_consumer_that_stopped(redis: Redis) -> None:
    failed = list[int]()

    def fail_once(event: EtTask) -> None:
        if event.number == 1 and not failed:
            failed.append(1)
            raise ValueError

    runs, options = Runs(redis, fail_once), {"redelivery_backoff": constant(2.0)}
    async with running(runs.router("old", **options)):
        await emit(redis, 1, 2, 3)
        await eventually(lambda: redis.zcard(SOURCE.due))
    await emit(redis, 4)
    async with running(runs.router("new", **options)):
        await until_settled(redis)
    assert runs.numbers == [1, 1, 2, 3, 4]


# --- what a term ends -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("soon")
async def test_who_lost_the_group_writes_only_what_is_done(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """No letter and no wait: the active one runs the entry, and decides."""
    go_on, tries = asyncio.Event(), list[int]()

    async def act(event: EtTask) -> None:
        tries.append(event.number)
        await go_on.wait()
        if tries.count(event.number) == 1 and event.number == 1:
            raise NonRetryableError("no")

    runs = Runs(redis, act)
    async with running(runs.router("one")):
        await emit(redis, 1)
        await emit(redis, 2, key="two")
        await eventually(lambda: len(tries) == 2)
        await redis.set(SOURCE.exclusive, "another", px=60_000)
        go_on.set()
        await eventually(lambda: _held(redis, "one", 1))
        await eventually(lambda: "recorded only the finished handlers" in caplog.text)
        assert await redis.exists(DLQ, SOURCE.due) == 0
        await redis.delete(SOURCE.exclusive, SOURCE.term)  # the other one is gone, and has done nothing
        await until_settled(redis)
    assert (runs.numbers, await letters(redis)) == ([1, 2, 1], [])


async def _held(redis: Redis, consumer: str, count: int) -> bool:
    return (await consumers(redis)).get(consumer) == count


@pytest.mark.usefixtures("soon")
async def test_who_becomes_active_again_begins_a_new_term(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Another one was active while it stood still, and is gone again: what it held belonged to its earlier term."""
    caplog.set_level(logging.INFO, "rapids")
    go_on = asyncio.Event()
    runs = Runs(redis, lambda event: go_on.wait())
    router = runs.router("one", batch_size=2)
    async with running(router):
        await emit(redis, *range(4))
        await eventually(lambda: runs.numbers)
        await eventually(lambda: router.counters.total("delivered") == 4)
        async with redis.pipeline(transaction=True) as at_once:
            at_once.set(SOURCE.term, "another")
            at_once.delete(SOURCE.exclusive)
            await at_once.execute()
        # At once, or in its first seconds only when it has watched the server's clock for as long as a term lasts.
        await eventually(lambda: caplog.text.count("is now the active one") == 2)
        go_on.set()
        await until_settled(redis)
    assert list(dict.fromkeys(runs.numbers)) == [0, 1, 2, 3]
    assert len(runs.numbers) <= 5, "only what ran by then may run twice"


@pytest.mark.usefixtures("soon")
async def test_a_lapse_without_another_active_consumer_ends_nothing(redis: Redis) -> None:
    """After an outage, or if the event loop stood still. No delivery is spent, and nothing runs twice."""
    go_on = asyncio.Event()
    runs = Runs(redis, lambda event: go_on.wait())
    router = runs.router("one", batch_size=2)
    async with running(router):
        await emit(redis, *range(4))
        await eventually(lambda: router.counters.total("delivered") == 4)
        before = await redis.get(SOURCE.term)
        for _ in range(20):
            await redis.delete(SOURCE.exclusive)
            await asyncio.sleep(0)
        await eventually(lambda: redis.exists(SOURCE.exclusive))
        go_on.set()
        await until_settled(redis)
        assert await redis.get(SOURCE.term) == before
    assert runs.numbers == [0, 1, 2, 3]
    assert router.counters.total("lease_lost") == 0


# --- reading --------------------------------------------------------------------------------------------------------


async def test_a_read_that_waits_takes_nothing_and_costs_no_more(redis: Redis) -> None:
    runs = Runs(redis)
    async with running(runs.router("one", block_ms=60_000)):
        await emit(redis, 0)
        await until_settled(redis)
        await eventually(lambda: _blocked(redis, 1))
        before = await calls(redis)
        for number in range(1, 21):
            await emit(redis, number)
            await eventually(lambda: settled(redis), interval=0.002)
        await eventually(lambda: _blocked(redis, 1))
        spent = await calls(redis) - before
        assert spent["xread"] <= 21, "it waits once for each entry"
        assert spent["xreadgroup"] <= 25, "it takes once for each entry, and seldom to find where the group is"
        before = await calls(redis)
        await eventually(lambda: _turns(redis, before["xpending"] + before["hmget"], 2))
        spent = await calls(redis) - before
        assert spent["xread"] + spent["xreadgroup"] == 0


async def _turns(redis: Redis, before: int, turns: int) -> bool:
    done = await calls(redis)
    return done["xpending"] + done["hmget"] >= before + turns


async def test_a_group_that_was_set_back_is_read_again(redis: Redis) -> None:
    runs = Runs(redis)
    async with running(runs.router("one", block_ms=100)):
        await emit(redis, 0, 1)
        await until_settled(redis)
        await eventually(lambda: _blocked(redis, 1))
        await redis.xgroup_setid(STREAM, GROUP, "0")
        await eventually(lambda: runs.numbers == [0, 1, 0, 1])


@pytest.mark.parametrize("lost", [STREAM, SOURCE.replays().stream])
async def test_a_stream_that_is_deleted_while_a_read_waits_is_created_again(redis: Redis, lost: str) -> None:
    runs = Runs(redis)
    async with running(runs.router("one", block_ms=60_000)):
        await emit(redis, 0)
        await until_settled(redis)
        await eventually(lambda: _blocked(redis, 1))
        await redis.delete(lost)
        await eventually(lambda: redis.exists(lost))
        await emit(redis, 1)
        await until_settled(redis)
    assert runs.numbers == [0, 1]


async def test_two_active_consumers_after_one_another_read_on(redis: Redis) -> None:
    """The second one knows from where: it was on standby while the first one read."""
    runs = Runs(redis)
    first, second = runs.router("first", block_ms=60_000), runs.router("second", block_ms=60_000)
    async with running(second):
        async with running(first):
            await emit(redis, *range(5))
            await until_settled(redis)
        await eventually(lambda: _blocked(redis, 1))
        await emit(redis, 5)
        await until_settled(redis)
        before = (await calls(redis))["xread"]
        await eventually(lambda: _blocked(redis, 1))
        assert (await calls(redis))["xread"] - before <= 2, "it waits, and does not read in a circle"
    assert runs.numbers == list(range(6))


# --- in processes of their own --------------------------------------------------------------------------------------

WORKER = """
import asyncio, sys
from rapids import BaseEvent
from rapids.backoff import constant
from tests.servers.client import connect
from tests.worker.helpers import make_router

class EtTask(BaseEvent):
    number: int = 0
    key: str = "one"

async def main(url, name):
    redis = connect(url)
    router = make_router(redis, exclusive=True, consumer=name, claim_min_idle_ms=60_000, block_ms=20_000, concurrency=4,
                         order_by="key", redelivery_backoff=constant(8.0), batch_size=20)

    @router.on(EtTask)
    async def handle(event):
        await redis.rpush("ran:" + event.key, event.number)
        await redis.rpush("by:" + name, event.number)
        if await redis.getdel(f"fails:{event.number}"):
            raise ValueError

    await router.start()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def worker(redis_address: str, tmp_path: Path) -> Iterator[Any]:
    script, started = tmp_path / "worker.py", list[subprocess.Popen[bytes]]()
    script.write_text(WORKER)

    def begin(name: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        started.append(subprocess.Popen([sys.executable, str(script), redis_address, name], env=environment))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


async def ran(redis: Redis, key: str = "one") -> list[int]:
    return [int(number) for number in await redis.lrange(f"ran:{key}", 0, -1)]


@pytest.mark.parametrize("blow", [signal.SIGSTOP, signal.SIGKILL])
@pytest.mark.slow
async def test_a_blocked_read_of_the_last_active_process_is_given_nothing(
    redis: Redis, worker: Any, blow: signal.Signals
) -> None:
    """The server gave the next entry to the frozen process, and the one after it ran first."""
    first = worker("first")
    await emit(redis, 0)
    await eventually(lambda: redis.llen("by:first"))
    await until_settled(redis)
    await eventually(lambda: _blocked(redis, 1))
    os.kill(first.pid, blow)
    worker("second")
    left = 1 if blow is signal.SIGSTOP else 0
    await eventually(lambda: _blocked(redis, left + 1))
    for number in (1, 2, 3):
        await emit(redis, number)
    await eventually(lambda: _count(redis, "by:second", 3))
    os.kill(first.pid, signal.SIGCONT)
    await until_settled(redis)
    assert await ran(redis) == [0, 1, 2, 3]
    assert await redis.llen("by:first") == 1


@pytest.mark.slow
async def test_a_key_waits_for_its_entry_that_a_dead_process_was_to_deliver_again(redis: Redis, worker: Any) -> None:
    """What the process had in hand ran before it."""
    await redis.set("fails:1", 1)
    first = worker("first")
    await emit(redis, 1, 2, 3)
    await eventually(lambda: redis.zcard(SOURCE.due))
    first.kill()
    worker("second")
    await emit(redis, 4)
    await until_settled(redis)
    assert await ran(redis) == [1, 1, 2, 3, 4]


async def _blocked(redis: Redis, count: int) -> bool:
    return await blocked(redis) >= count


async def _count(redis: Redis, key: str, least: int) -> bool:
    return await redis.llen(key) >= least
