"""Pending entries: who has them, when they are due, why they are parked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.outcomes import Ledger
from rapids._storage.keys import WAITING
from rapids.exceptions import NonRetryableError, RetryAfter
from rapids.inspection import HandlerAttempts, Inspector, ParkedFailure, PendingEntry
from tests.inspection.helpers import LISTINGS, SOURCE, add, all_pages, deliver, ids, park, wait
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, DvPayment, make_emitter, make_router, running


async def pending(redis: Redis, **options: Any) -> dict[str, PendingEntry]:
    page = await Inspector(redis).pending(STREAM, GROUP, **options)
    return {entry.entry_id: entry for entry in page.items}


async def waiting(redis: Redis, **options: Any) -> dict[str, PendingEntry]:
    page = await Inspector(redis).waiting(STREAM, GROUP, **options)
    return {entry.entry_id: entry for entry in page.items}


def timeless(entry: PendingEntry) -> PendingEntry:
    """The entry as it is at any time."""
    return replace(entry, idle_ms=0)


# --- as a router leaves them ----------------------------------------------------------------------------------------


async def test_entries_that_are_held_waiting_or_parked_are_listed(redis: Redis) -> None:
    router = make_router(redis, consumer="worker", concurrency=5, dlq_stream=None)
    go_on = asyncio.Event()

    @router.on(DvOrder)
    async def book(event: DvOrder) -> None:
        await go_on.wait()

    @router.on(DvPayment)
    async def log(event: DvPayment) -> None: ...

    @router.on(DvPayment)
    async def charge(event: DvPayment) -> None:
        raise RetryAfter(3_600) if event.number == 1 else NonRetryableError("no such order")

    inspector = Inspector(redis)
    async with running(router):
        held, kept, gave_up = await make_emitter(redis).emit([DvOrder(), DvPayment(number=1), DvPayment(number=2)])
        await eventually(lambda: _counts(inspector, 3, 1, 1, 1))
        seen = await pending(redis)
        [waits], [parked] = (await waiting(redis)).values(), (await inspector.parked(STREAM, GROUP)).items
        go_on.set()

    assert list(seen) == [held, kept, gave_up]
    assert timeless(seen[held]) == PendingEntry(held, _appended(held), "held", "worker", True, 0, 1)
    assert waits.due_at is not None
    assert timedelta(minutes=59) < waits.due_at - datetime.now(UTC) < timedelta(minutes=61)
    assert timeless(seen[kept]) == timeless(waits)
    assert timeless(waits) == PendingEntry(
        *(kept, _appended(kept), "waiting", None, False, 0, 1),
        due_at=waits.due_at,
        handlers=("charge",),
        attempts=(HandlerAttempts("charge", (_failed(waits, "rapids.exceptions.RetryAfter", LATER),)),),
    )
    assert timeless(seen[gave_up]) == timeless(parked)
    why = ParkedFailure("charge", "non_retryable", "no such order")
    assert timeless(parked) == PendingEntry(
        *(gave_up, _appended(gave_up), "parked", None, False, 0, 1),
        failures=(why,),
        attempts=(
            HandlerAttempts("charge", (_failed(parked, "rapids.exceptions.NonRetryableError", "no such order"),)),
        ),
    )


LATER = "asked to be retried after 3600 s"


def _failed(entry: PendingEntry, error_type: str, error: str) -> Attempt:
    at = entry.attempts[0].attempts[0].at
    assert at is not None
    assert timedelta() <= datetime.now(UTC) - at < timedelta(minutes=1)
    return Attempt(1, 1, at, "worker", error_type, error)


def _appended(entry_id: str) -> datetime:
    return datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)


async def _counts(inspector: Inspector, *expected: int) -> bool:
    seen = await inspector.group(STREAM, GROUP)
    return (seen.pending, seen.held, seen.waiting, seen.parked) == expected


async def test_a_released_entry_waits_and_is_due(redis: Redis) -> None:
    router = make_router(redis, shutdown_timeout=0)

    @router.on(DvOrder)
    async def book(event: DvOrder) -> None:
        await asyncio.Event().wait()

    async with running(router):
        entry_ids = await make_emitter(redis).emit([DvOrder() for _ in range(5)])
        await eventually(lambda: _counts(Inspector(redis), 5, 5, 0, 0))
    seen = await waiting(redis)
    assert sorted(seen) == entry_ids
    assert {entry.due_at is not None and entry.due_at < datetime.now(UTC) for entry in seen.values()} == {True}


# --- held entries ---------------------------------------------------------------------------------------------------


async def test_an_entry_shows_whether_its_consumer_is_alive(redis: Redis) -> None:
    await add(redis, "1-0", "2-0", "3-0")
    await deliver(redis, 2, "living")
    await deliver(redis, 1, "dead")
    await redis.set(SOURCE.consumer("living"), "token")
    seen = await pending(redis)
    assert {entry_id: (entry.consumer, entry.consumer_alive) for entry_id, entry in seen.items()} == {
        "1-0": ("living", True),
        "2-0": ("living", True),
        "3-0": ("dead", False),
    }


async def test_an_entry_shows_its_idle_time_and_deliveries(redis: Redis) -> None:
    await add(redis, "1-0", "2-0")
    await deliver(redis, 2)
    await redis.execute_command("XCLAIM", STREAM, GROUP, "worker", 0, "1-0", "IDLE", 90_000, "RETRYCOUNT", 7)
    seen = await pending(redis)
    assert seen["1-0"].deliveries == 7
    assert seen["1-0"].idle_ms is not None
    assert 90_000 <= seen["1-0"].idle_ms < 150_000
    assert seen["2-0"].deliveries == 1


async def test_the_entries_of_one_consumer(redis: Redis) -> None:
    await add(redis, *(f"{n}-0" for n in range(1, 7)))
    await deliver(redis, 4, "one")
    await deliver(redis, 2, "two")
    await wait(redis, "2-0", 9_000)
    assert list(await pending(redis, consumer="one")) == ["1-0", "3-0", "4-0"]
    assert list(await pending(redis, consumer="two")) == ["5-0", "6-0"]
    assert list(await pending(redis, consumer="nobody")) == []
    pages = await all_pages(LISTINGS["pending"], Inspector(redis), consumer="one", limit=2)
    assert [len(page.items) for page in pages] == [2, 1]
    with pytest.raises(ValueError, match=r"^consumer must be"):
        await pending(redis, consumer="")


async def test_a_consumer_s_name_may_be_any_bytes(redis: Redis) -> None:
    await add(redis, "1-0", "2-0")
    await deliver(redis, 1, b"\xff<script>\x00")
    await deliver(redis, 1, "é\n")
    assert [entry.consumer for entry in (await pending(redis)).values()] == ["\\xff<script>\x00", "é\n"]


async def test_a_held_entry_that_waited_shows_its_unfinished_handlers(redis: Redis) -> None:
    await add(redis, "1-0")
    await deliver(redis, 1)
    await wait(redis, "1-0", 5_000, ["ship", "book"])
    await redis.xclaim(STREAM, GROUP, "worker", 0, ["1-0"])  # type: ignore[list-item]
    seen = (await pending(redis))["1-0"]
    assert (seen.state, seen.handlers, seen.due_at) == ("held", ("book", "ship"), None)


async def test_the_attempts_of_a_held_entry_that_waited(redis: Redis) -> None:
    await add(redis, "1-0")
    await deliver(redis, 1)
    log = AttemptLog.of(*(Attempt(number, 1, None, "worker", "E", "e") for number in range(1, 31)))
    await redis.hset(SOURCE.ledger, "1-0", Ledger(recorded=1, attempts=(("book", log),)).dump())  # type: ignore[misc]
    seen = (await pending(redis))["1-0"]
    assert (seen.state, seen.attempts) == ("held", (HandlerAttempts("book", log.kept, 10),))


# --- what others wrote there ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"7", b'{"n":1}', b'{"n":"x","done":[],"dead":[],"gave_up":[]}', b"\xff", b"[" * 9_999]
)
async def test_an_unreadable_ledger_is_ignored(redis: Redis, raw: bytes) -> None:
    await add(redis, "1-0")
    await deliver(redis, 1)
    await wait(redis, "1-0", 5_000)
    await redis.hset(SOURCE.ledger, "1-0", raw)  # type: ignore[misc]
    for seen in ((await pending(redis))["1-0"], (await waiting(redis))["1-0"]):
        assert seen.attempts == ()
        assert (seen.state, seen.handlers, seen.due_at) == ("waiting", (), datetime(1970, 1, 1, 0, 0, 5, tzinfo=UTC))


@pytest.mark.parametrize("raw", [b"", b"{", b"{}", b"7", b"[7]", b"\xff", b"[" * 9_999])
async def test_a_parked_entry_without_any_record_is_listed(redis: Redis, raw: bytes) -> None:
    await add(redis, "1-0")
    await deliver(redis, 1)
    await park(redis, "1-0", raw)
    [seen] = (await Inspector(redis).parked(STREAM, GROUP)).items
    assert (seen.state, seen.failures) == ("parked", ())


async def test_a_parked_entry_with_an_incomplete_record_is_listed(redis: Redis) -> None:
    await add(redis, "1-0", "2-0")
    await deliver(redis, 2)
    await park(redis, "1-0", b'[{"handler":"a"},{"error":7,"x":1}]')
    await park(redis, "2-0")
    await redis.delete(SOURCE.parked)
    await redis.hset(SOURCE.parked, "1-0", b'[{"handler":"a"},{"error":7,"x":1}]')  # type: ignore[misc]
    one, two = (await Inspector(redis).parked(STREAM, GROUP)).items
    assert one.failures == (ParkedFailure("a", "", ""), ParkedFailure("", "", "7"))
    assert two.failures == ()


@pytest.mark.parametrize("score", ["inf", "-inf", "1e300", "1e17"])
async def test_an_unreadable_due_time_is_left_out(redis: Redis, score: str) -> None:
    await add(redis, "1-0")
    await deliver(redis, 1)
    await wait(redis, "1-0", 5_000)
    await redis.zadd(SOURCE.due, {"1-0": float(score)})
    for seen in ((await pending(redis))["1-0"], (await waiting(redis))["1-0"]):
        assert (seen.state, seen.due_at) == ("waiting", None)


async def test_a_waiting_entry_without_a_due_time_is_listed(redis: Redis) -> None:
    await add(redis, "1-0")
    await deliver(redis, 1, WAITING)
    seen = (await pending(redis))["1-0"]
    assert (seen.state, seen.due_at) == ("waiting", None)
    assert await waiting(redis) == {}


async def test_a_due_entry_that_a_consumer_holds_does_not_wait(redis: Redis) -> None:
    await add(redis, "1-0", "2-0", "3-0")
    await deliver(redis, 3)
    await redis.zadd(SOURCE.due, {"1-0": 1, "2-0": 2})
    await wait(redis, "3-0", 3)
    assert list(await waiting(redis)) == ["3-0"]
    pages = await all_pages(LISTINGS["waiting"], Inspector(redis), limit=1)
    assert [ids(page) for page in pages] == [[], [], ["3-0"]]


async def test_a_waiting_entry_whose_group_was_lost(redis: Redis) -> None:
    await add(redis, "1-0")
    await deliver(redis, 1)
    await wait(redis, "1-0", 5_000, ["ship"])
    await redis.xgroup_destroy(STREAM, GROUP)
    await redis.xgroup_create(STREAM, GROUP, "$")
    seen = (await waiting(redis))["1-0"]
    assert (seen.state, seen.idle_ms, seen.deliveries, seen.handlers) == ("waiting", None, 1, ("ship",))
    assert (await Inspector(redis).group(STREAM, GROUP)).waiting == 1
