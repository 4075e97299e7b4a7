"""What a process holds, when the reclaimer or a recreated group asks for it."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids._core.counter_state import Counts
from rapids._core.outages import Outages
from rapids._core.settings import RouterSettings
from rapids._storage import scripts
from rapids._storage.client.commands import Arrivals
from rapids._storage.client.connections import SharedPool
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._worker.acks import Acks
from rapids._worker.context import WorkerContext
from rapids._worker.failure_log import FailureLog
from rapids._worker.gate import Gate
from rapids._worker.identity import Identity
from rapids._worker.inflight import HeldEntry, Inflight, State
from rapids._worker.intake import Abandoned, Intake
from rapids._worker.leases import Leases
from rapids._worker.pause_state import PauseState
from rapids._worker.reclaimer import Reclaimer
from rapids._worker.server_clock import ServerClock
from rapids._worker.unarrived import Unarrived
from tests.redis.proxy import proxy_to
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, make_emitter, make_router, pending, running


async def context_of(redis: Redis, source: Source, gate: Gate, *further: Source) -> WorkerContext:
    """This process as the consumer `me`, without a worker around it."""
    commands, counts = SharedPool(redis, STREAM), Counts(STREAM, GROUP, ())
    clock = ServerClock({}, lease_seconds=60)
    identity = Identity(commands, source, gate, clock, counts)
    await identity.acquire("me")

    settings = RouterSettings(stream=STREAM, group=GROUP, consumer="me")
    connection: Any = commands
    outages = Outages(logging.getLogger("rapids.worker"), {}, counts)
    return WorkerContext(
        connection,
        connection,
        [source, *further],
        settings,
        identity,
        outages,
        {},
        counts,
        FailureLog({}),
        clock,
    )


async def held_by_me(redis: Redis, source: Source, count: int) -> list[RawEntry]:
    await make_emitter(redis).emit([DvOrder(number=number) for number in range(count)])
    await redis.xgroup_create(STREAM, GROUP, "0")
    [(_, rows)] = await redis.xreadgroup(GROUP, "me", {STREAM: ">"}, count=count)
    return [RawEntry(source, entry_id, ()) for entry_id, _ in rows]


async def test_entries_that_are_being_settled_are_not_registered_with_a_recreated_group(redis: Redis) -> None:
    """Its settlement may be written by now, or its acknowledgement: it would be pending for good."""
    source = Source(STREAM, GROUP)
    entries = await held_by_me(redis, source, 3)
    gate = Gate(lease_seconds=60)
    context = await context_of(redis, source, gate)
    inflight = Inflight([source], context.counts, lease_seconds=60)
    unarrived = Unarrived(context, gate, inflight, Intake(gate, 10), Arrivals(5.0))
    leases = Leases(context, gate, inflight, unarrived)
    _, settling, acknowledged = inflight.add_new(source, entries, since=time.monotonic())
    settling.enter(State.SETTLING)
    Acks(context, inflight).put(acknowledged)
    await redis.xgroup_destroy(STREAM, GROUP)
    await redis.xgroup_create(STREAM, GROUP, "$")

    await leases.repair(ResponseError("NOGROUP No such consumer group"))

    assert [row["message_id"] for row in await pending(redis)] == [entries[0].entry_id]


async def test_an_entry_that_is_held_is_not_claimed_as_abandoned(redis: Redis) -> None:
    """It was found abandoned before this process came to hold it. Claimed again, it would run twice."""
    source = Source(STREAM, GROUP)
    [entry] = await held_by_me(redis, source, 1)
    gate, nothing = Gate(lease_seconds=60), cast(Any, None)
    context = await context_of(redis, source, gate)
    inflight = Inflight([source], context.counts, lease_seconds=60)
    intake = Intake(gate, 10)
    unarrived = Unarrived(context, gate, inflight, intake, Arrivals(5.0))
    leases = Leases(context, gate, inflight, unarrived)
    paused = PauseState(context, intake, nothing, nothing)
    reclaimer = Reclaimer(context, gate, inflight, intake, leases, paused, unarrived, nothing, nothing)
    abandoned = Abandoned(source, entry.entry_id, 0, 1)
    [held] = inflight.add_new(source, [entry], since=time.monotonic())

    assert await reclaimer.claim(abandoned) is None
    assert [row["times_delivered"] for row in await pending(redis)] == [1]

    inflight.drop(held)
    claimed = await reclaimer.claim(abandoned)
    assert claimed is not None
    assert (claimed.entry.entry_id, claimed.entry.deliveries) == (entry.entry_id, 2)


async def test_entries_that_never_arrived_run_although_the_next_stream_could_not_be_asked(redis: Redis) -> None:
    """One that is held and not queued would have its lease renewed, and never run: not even on another consumer."""
    source, replays = Source(STREAM, GROUP), Source("replays", GROUP)
    gate = Gate(lease_seconds=60)
    context = await context_of(redis, source, gate, replays)
    inflight, intake = Inflight([source, replays], context.counts, lease_seconds=60), Intake(gate, 10)
    unarrived = Unarrived(context, gate, inflight, intake, Arrivals(5.0))
    entries = await held_by_me(redis, source, 3)

    unarrived.expect()
    with pytest.raises(ResponseError, match=r"NOGROUP|no such key"):
        await unarrived.take()  # as if the connection was cut between the first stream and the second
    queued = [cast(HeldEntry, intake.pop()).entry.entry_id for _ in range(3)]
    assert queued == [entry.entry_id for entry in entries]
    assert inflight.ids(source) == queued
    assert unarrived.is_expected, "the second stream is still to be asked"


async def test_no_acknowledgement_overtakes_the_registration_of_its_entry(redis: Redis, redis_url: str) -> None:
    """While held entries are registered with a recreated group, reads carry no acknowledgements."""
    register = scripts.load("register")
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, begun, go_on = (
            make_router(through, claim_min_idle_ms=3_000, batch_size=1),
            asyncio.Event(),
            asyncio.Event(),
        )
        seen: list[int] = []

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)
            if event.number == 0:
                begun.set()
                await go_on.wait()

        async with running(router):
            entry_id = await make_emitter(redis).emit(DvOrder(number=0))
            await begun.wait()
            proxy.hold_up(register.source.splitlines()[0])
            pipeline = redis.pipeline(transaction=True)  # before the router can see it gone
            pipeline.xgroup_destroy(STREAM, GROUP)
            pipeline.xgroup_create(STREAM, GROUP, entry_id)
            await pipeline.execute()
            await eventually(lambda: proxy.holds)
            await make_emitter(redis).emit([DvOrder(number=number) for number in range(1, 10)])
            await eventually(lambda: is_waiting_for_room(redis))
            go_on.set()
            await eventually(lambda: len(seen) == 10)
            proxy.let_through()
    assert seen == list(range(10))
    assert await pending(redis) == []


async def is_waiting_for_room(redis: Redis) -> bool:
    """Whether the reader has taken two batches: with the first entry that is finished it reads on, at once."""
    return len(await pending(redis)) == 2
