"""What servers newer than the test matrix answer, in rows made by hand: entries that nobody holds after an XNACK.

Redis 8.8 keeps such an entry pending without a consumer and with an idle time of -1; with FATAL, its delivery count is
2^63 - 1 (https://redis.io/docs/latest/commands/xnack/). Here a consumer without a name stands for nobody.
"""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from rapids._storage import groups, streams
from rapids._storage.client.connections import SharedPool
from rapids._storage.groups import PendingCounts, claim
from rapids._storage.inspection_queries import PendingRow
from rapids._storage.keys import Source
from rapids.inspection import GroupReader, Inspector, WatchedGroup
from rapids.inspection.snapshots import pending
from rapids.tracker import Tracker
from tests.inspection.helpers import deliver, park
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, emit_orders, letters, make_router, running

NOBODY = ""
FATAL = 2**63 - 1
SOURCE = Source(STREAM, GROUP)


async def released(redis: Redis, *numbers: int, fatal: bool = False) -> list[str]:
    """Entries that were delivered, and then released by XNACK with FAIL, or with FATAL."""
    ids = await emit_orders(redis, *numbers)
    assert await deliver(redis, len(ids), NOBODY) == ids
    if fatal:
        await redis.xclaim(STREAM, GROUP, NOBODY, 0, ids, retrycount=FATAL, justid=True)  # type: ignore[arg-type]
    return ids


async def parked(redis: Redis, *numbers: int) -> list[str]:
    ids = await emit_orders(redis, *numbers)
    for entry_id in await deliver(redis, len(ids), "gone"):
        await park(redis, entry_id)
    return ids


def test_a_released_entry_is_shown_without_a_consumer() -> None:
    shown = pending(PendingRow(b"1-0", b"", -1, 3, None, None, None, 0))
    assert (shown.state, shown.consumer, shown.consumer_alive, shown.idle_ms) == ("held", None, False, None)
    assert shown.deliveries == 3


def test_what_no_consumer_has_is_counted_as_released() -> None:
    rows = [[b"worker", b"2"], [b"rapids:parked", b"3"], [b"rapids:waiting", b"1"]]
    assert PendingCounts.of([8, b"1-0", b"8-0", rows]) == PendingCounts({b"worker": 2}, 2)
    assert PendingCounts.of([2, b"1-0", b"2-0", None]) == PendingCounts({}, 2)
    assert PendingCounts.of([0, None, None, None]) == PendingCounts({}, 0)


async def test_a_released_entry_is_taken_at_once(redis: Redis) -> None:
    [entry_id] = await released(redis, 0)
    claimed = await claim(
        SharedPool(redis, STREAM), SOURCE, "worker", ids=[entry_id.encode()], min_idle_ms=3_600_000, due=0
    )
    assert claimed is not None
    assert [entry.entry_id.decode() for entry in claimed.entries] == [entry_id]
    assert claimed.entries[0].deliveries == 2


@pytest.mark.parametrize("exclusive", [False, True])
async def test_a_router_runs_what_was_released_and_buries_what_is_fatal(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, exclusive: bool
) -> None:
    monkeypatch.setattr(groups, "RELEASED_PAGE", 3)  # it takes several looks to find all
    await parked(redis, *range(100, 108))
    await released(redis, 1, 2)
    [fatal] = await released(redis, 3, fatal=True)
    await parked(redis, *range(108, 112))
    await released(redis, 4)
    await emit_orders(redis, 5)
    router, handled = make_router(redis, claim_min_idle_ms=3_600_000, exclusive=exclusive), list[int]()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        handled.append(event.number)

    async with running(router):
        await eventually(lambda: len(handled) == 4)
        await eventually(lambda: _only_parked(redis, 12))
    assert handled == [1, 2, 4, 5] if exclusive else sorted(handled) == [1, 2, 4, 5]
    [letter] = await letters(redis)
    assert (letter[b"original_msg_id"].decode(), letter[b"reason"]) == (fatal, b"max_deliveries_exceeded")
    assert letter[b"error"] == b"its delivery count was set to the highest one, as XNACK does with FATAL"


async def _only_parked(redis: Redis, count: int) -> bool:
    rows = await redis.xpending_range(STREAM, GROUP, "-", "+", 100)
    return len(rows) == count and {row["consumer"] for row in rows} == {b"rapids:parked"}


async def test_what_was_released_is_seen_by_all_who_look(redis: Redis) -> None:
    tracker = Tracker(redis, [(STREAM, GROUP)])
    await tracker.begin()
    await parked(redis, 0, 1)
    first, *_ = await released(redis, 2)
    await released(redis, 3, fatal=True)
    inspector = Inspector(redis)

    [group] = (await inspector.groups(STREAM)).items
    assert (group.pending, group.held, group.parked, group.lag) == (4, 2, 2, 0)
    assert group.oldest_unsettled_id == first
    rows = (await inspector.pending(STREAM, GROUP)).items
    assert [(row.state, row.consumer, row.deliveries) for row in rows[2:]] == [
        ("held", None, 1),
        ("held", None, 1_000_000_000),
    ]
    [read] = (await GroupReader(redis, [WatchedGroup(STREAM, GROUP)]).read()).groups
    assert read.held == 2
    assert [one.state for one in (await tracker.look()).unsettled] == ["held", "held"]


async def test_the_trimming_is_held_back_by_nobodys_entry(redis: Redis) -> None:
    [entry_id, _] = await emit_orders(redis, 0, 1)
    await deliver(redis, 1, NOBODY)
    trim = await streams.trim(SharedPool(redis, STREAM), SOURCE, least_age_ms=0, most=100)
    assert trim is not None
    assert trim.unsettled is not None
    assert (trim.unsettled.entry_id, trim.unsettled.consumer) == (entry_id, "")
