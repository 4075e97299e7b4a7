"""Counters of entries that a router loses or releases: at a stop, after a crash, to other consumers, by trimming."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids._core.counter_state import Counts
from rapids._core.outages import Outages
from rapids._core.settings import RouterSettings
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._worker.acks import Acks
from rapids._worker.context import WorkerContext
from rapids._worker.failure_log import FailureLog
from rapids._worker.inflight import Inflight
from rapids._worker.server_clock import ServerClock
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    make_router,
    pending,
    running,
)
from tests.worker.test_counters import emit, in_hand, totals, until_acked

ROOT = Path(__file__).parent.parent.parent


# --- stopping, crashes and other consumers --------------------------------------------------------------------------


async def test_releases_at_a_stop_are_counted_for_begun_and_unbegun_entries(redis: Redis) -> None:
    router, begun = make_router(redis, shutdown_timeout=0.05, batch_size=10), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        begun.set()
        await asyncio.sleep(60)

    async with running(router):
        await emit(redis, *(DvOrder() for _ in range(7)))
        await begun.wait()
        await eventually(lambda: router.counters.total("delivered") == 7)
    assert totals(router.counters) == {"delivered": 7, "handed_back": 7}


async def test_a_handler_stopped_before_a_quick_retry_has_not_failed(redis: Redis) -> None:
    router, failed = make_router(redis, default_retries=1, default_backoff=lambda _: 60.0), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        failed.set()
        raise ValueError

    async with running(router):
        await emit(redis, DvOrder())
        await failed.wait()
    assert totals(router.counters) == {"delivered": 1, "handed_back": 1}


@pytest.mark.slow
async def test_a_delivery_after_a_crash_is_one_more(redis: Redis, redis_address: str) -> None:
    await emit(redis, *(DvOrder(number=number) for number in range(30)))
    worker = subprocess.Popen([sys.executable, "tests/worker/killed_worker.py", redis_address], cwd=ROOT)
    await eventually(lambda: redis.llen("done"))
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    left = len(await pending(redis))
    last = as_text((await redis.xinfo_groups(STREAM))[0]["last-delivered-id"])
    unread = len(await redis.xrange(STREAM, min=f"({last}"))
    assert left > 0

    router = make_router(redis, claim_min_idle_ms=300)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    async with running(router):
        await until_acked(redis, router)
    counted = left + unread
    assert totals(router.counters) == {"delivered": counted, "acked": counted, "handled": counted}


@pytest.mark.parametrize("ends", ["done", "failed", "dead"])
@pytest.mark.parametrize("renewed", [True, False])
async def test_an_entry_that_another_consumer_took_is_only_a_lost_lease(redis: Redis, ends: str, renewed: bool) -> None:
    taken, go_on = asyncio.Event(), asyncio.Event()
    idle = 1_000 if renewed else 60_000  # whether the renewal finds out first, or the settlement
    router = make_router(redis, claim_min_idle_ms=idle, max_deliveries=1 if ends == "dead" else 5)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        taken.set()
        await go_on.wait()
        if ends != "done":
            raise ValueError

    async with running(router):
        [entry_id] = await emit(redis, DvOrder())
        await taken.wait()
        await redis.execute_command("XCLAIM", STREAM, GROUP, "another", 0, entry_id, "IDLE", 0)
        if renewed:
            await eventually(lambda: router.counters.total("lease_lost") == 1)
            await redis.xack(STREAM, GROUP, entry_id)  # or it would soon be this router's again
        go_on.set()
        await eventually(lambda: in_hand(router.counters) == 0)

    was_acked = ends == "done" and not renewed  # what is done is done, whosever it is by now
    assert totals(router.counters) == {
        "delivered": 1,
        **({"acked": 1} if was_acked else {"lease_lost": 1}),
        **({"handled": 1} if ends == "done" else {"failed": 1}),
    }


async def test_an_entry_that_another_consumer_settled_is_a_lost_lease(redis: Redis) -> None:
    taken, go_on = asyncio.Event(), asyncio.Event()
    router = make_router(redis, claim_min_idle_ms=60_000, block_ms=60_000)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        taken.set()
        await go_on.wait()
        raise ValueError

    async with running(router):
        [entry_id] = await emit(redis, DvOrder())
        await taken.wait()
        await redis.execute_command("XCLAIM", STREAM, GROUP, "another", 0, entry_id)
        await redis.xack(STREAM, GROUP, entry_id)
        go_on.set()
        await asyncio.sleep(0)
    assert in_hand(router.counters) == 0


async def test_an_exclusive_consumer_that_is_replaced_loses_its_entries(redis: Redis) -> None:
    router, taken, go_on = make_router(redis, exclusive=True), asyncio.Event(), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        taken.set()
        await go_on.wait()

    async with running(router):
        await emit(redis, *(DvOrder() for _ in range(5)))
        await taken.wait()
        await eventually(lambda: router.counters.total("delivered") == 5)
        await redis.set(f"{{{STREAM}}}:rapids:exclusive:{GROUP}", "another")
        await eventually(lambda: router.counters.total("lease_lost") == 5)
        go_on.set()
    assert totals(router.counters) == {"delivered": 5, "lease_lost": 5, "handled": 1}


@pytest.fixture
def context() -> WorkerContext:
    """One that never asks Redis anything."""
    source, counts = Source(STREAM, GROUP), Counts(STREAM, GROUP)
    nothing: Any = None
    outages = Outages(logging.getLogger("rapids.worker"), {}, counts)
    sources = (source, source.replays())
    clock = ServerClock({}, lease_seconds=60)
    return WorkerContext(
        nothing, nothing, sources, RouterSettings(), nothing, outages, {}, counts, FailureLog({}), clock
    )


def test_an_entry_lost_before_its_acknowledgement_is_not_counted_as_acked(context: WorkerContext) -> None:
    inflight, source = Inflight(context.sources, context.counts, lease_seconds=60), context.sources[0]
    acks = Acks(context, inflight)
    entries = [RawEntry(source, b"1-%d" % number, [b"event_type", b"dv.order"]) for number in range(3)]
    held = inflight.add_new(source, entries, since=0.0)
    for one in held:
        acks.put(one)
    inflight.lose(held[0])
    acks.answered(acks.take(), [3])
    assert totals(context.counts.counters()) == {"delivered": 3, "lease_lost": 1, "acked": 2}


def test_a_second_delivery_of_a_held_entry_is_not_counted(context: WorkerContext) -> None:
    inflight, source = Inflight(context.sources, context.counts, lease_seconds=60), context.sources[0]
    entries = [RawEntry(source, b"1-%d" % number, [b"event_type", b"dv.order"]) for number in range(3)]
    inflight.add_new(source, entries[:2], since=0.0)
    inflight.add_new(source, entries, since=0.0)
    assert in_hand(context.counts.counters()) == len(inflight) == 3


# --- lost -----------------------------------------------------------------------------------------------------------


async def test_abandoned_entries_that_were_trimmed_are_lost_pending(redis: Redis) -> None:
    ids = await emit(redis, *(DvOrder() for _ in range(5)))
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=5)
    await redis.xdel(STREAM, *ids[:3])
    router = make_router(redis, claim_min_idle_ms=50)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    async with running(router):
        await until_acked(redis, router)
    counters = router.counters
    assert totals(counters) == {"delivered": 2, "acked": 2, "handled": 2, "lost": 3, "gaps": counters.total("gaps")}
    assert counters.total("lost", when="pending") == 3
    assert 1 <= counters.total("gaps") <= 3


async def test_an_entry_trimmed_while_it_is_handled_is_lost_when_it_had_to_come_again(redis: Redis) -> None:
    router = make_router(redis, dlq_stream=None)  # else it is a dead letter

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        raise ValueError

    async with running(router):
        await emit(redis, DvOrder())
        await eventually(lambda: router.counters.total("lost") == 1)
    assert totals(router.counters) == {"delivered": 1, "failed": 1, "lost": 1, "gaps": 1}
    assert router.counters.total("lost", when="held") == 1


async def test_an_entry_that_waits_and_is_trimmed_is_lost_pending(redis: Redis) -> None:
    router, failed = make_router(redis, redelivery_backoff=lambda _: 0.2), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        failed.set()
        raise ValueError

    async with running(router):
        [entry_id] = await emit(redis, DvOrder())
        await eventually(lambda: router.counters.total("kept") == 1)
        await redis.xdel(STREAM, entry_id)
        await eventually(lambda: router.counters.total("lost") == 1)
    assert totals(router.counters) == {"delivered": 1, "failed": 1, "kept": 1, "retried": 1, "lost": 1, "gaps": 1}
    assert router.counters.total("lost", when="pending") == 1
