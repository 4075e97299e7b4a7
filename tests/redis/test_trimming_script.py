"""The trimming script by itself: it removes what all groups have settled, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest
from redis.asyncio import Redis

from rapids._storage import streams
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from rapids._storage.streams import Trim
from tests.worker.helpers import GROUP, STREAM, as_text, everywhere

SOURCE = Source(STREAM, GROUP)
MARK = "{dv:events}:rapids:trimming"


@pytest.fixture(autouse=True)
async def whole_nodes_are_single_entries(redis: Redis) -> AsyncIterator[None]:
    """So that what is trimmed in whole nodes is trimmed to the entry."""
    before = await redis.config_get("stream-node-max-entries")
    await redis.config_set("stream-node-max-entries", 1, **everywhere(redis))
    yield
    await redis.config_set("stream-node-max-entries", before["stream-node-max-entries"], **everywhere(redis))


async def add(redis: Redis, *ids: str) -> None:
    for entry_id in ids:
        await redis.xadd(STREAM, {"a": "b"}, id=entry_id)


async def group(
    redis: Redis, name: str = GROUP, *, reads: int = 0, settles: Sequence[str] = (), start: str = "0"
) -> None:
    """A group that has read so many entries, and settled these of them."""
    await redis.xgroup_create(STREAM, name, start, mkstream=True)
    if reads:
        await redis.xreadgroup(name, "worker", {STREAM: ">"}, count=reads)
    if settles:
        await redis.xack(STREAM, name, *settles)


async def left(redis: Redis) -> list[str]:
    return [as_text(entry_id) for entry_id, _ in await redis.xrange(STREAM)]


async def trim(redis: Redis, *, least_age_ms: int = 60_000, most: int = 1_000) -> Trim:
    return await streams.trim(SharedPool(redis, SOURCE.stream), SOURCE, least_age_ms=least_age_ms, most=most)


IDS = ("1-1", "2-1", "3-1", "4-1", "5-1")


async def test_entries_that_all_groups_settled_are_removed_except_the_last_one_read(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=5, settles=IDS)
    await group(redis, "another", reads=4, settles=IDS[:4])
    done = await trim(redis)
    assert (done.removed, done.left) == (3, 2)
    assert await left(redis) == ["4-1", "5-1"]


async def test_a_stream_all_of_which_is_settled_keeps_one_entry(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=5, settles=IDS)
    assert await trim(redis) == Trim(4, 1, None)
    assert await trim(redis) == Trim(0, 1, None)


async def test_a_pending_entry_and_all_after_it_stay(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=5, settles=["1-1", "3-1", "5-1"])
    await redis.xclaim(STREAM, GROUP, "rapids:parked", 0, ["2-1"])
    done = await trim(redis)
    assert await left(redis) == ["2-1", "3-1", "4-1", "5-1"]
    assert done.unsettled is not None
    assert (done.unsettled.group, done.unsettled.entry_id, done.unsettled.consumer) == (GROUP, "2-1", "rapids:parked")
    assert done.unsettled.age > 1e9, "since 1970, as its id says"


async def test_a_pending_entry_that_is_the_last_one_read_is_reported(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=2, settles=["1-1"])
    done = await trim(redis)
    assert done.unsettled is not None
    assert (done.unsettled.entry_id, done.unsettled.consumer) == ("2-1", "worker")


async def test_entries_that_a_group_has_not_read_stay(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=5, settles=IDS)
    await group(redis, "slow", reads=2, settles=IDS[:2])
    done = await trim(redis)
    assert await left(redis) == ["2-1", "3-1", "4-1", "5-1"]
    assert done.unsettled is not None
    assert (done.unsettled.group, done.unsettled.entry_id, done.unsettled.consumer) == ("slow", "3-1", None)


async def test_a_group_that_was_set_back_is_given_everything_again(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=5, settles=IDS[:4])  # 5-1 is pending
    await redis.xgroup_setid(STREAM, GROUP, "2-1")
    done = await trim(redis)
    assert await left(redis) == ["2-1", "3-1", "4-1", "5-1"]
    assert done.unsettled is not None
    assert done.unsettled.entry_id == "3-1"


async def test_a_group_that_has_read_nothing_holds_all(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=5, settles=IDS)
    await group(redis, "new")
    assert (await trim(redis)).removed == 0
    assert await left(redis) == list(IDS)


async def test_a_group_that_begins_later_holds_what_comes_after_its_begin(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=5, settles=IDS)
    await group(redis, "later", start="4-1")
    assert (await trim(redis)).removed == 3
    assert await left(redis) == ["4-1", "5-1"]


async def test_without_a_group_nothing_is_removed(redis: Redis) -> None:
    await add(redis, *IDS)
    assert await trim(redis) == Trim(0, 5, None)


async def test_while_its_own_group_is_lost_nothing_is_removed(redis: Redis) -> None:
    """It is recreated at its old position, and consumers register what they hold."""
    await add(redis, *IDS)
    await group(redis, "another", reads=5, settles=IDS)
    assert await trim(redis) == Trim(0, 5, None)
    await group(redis, reads=2, settles=IDS[:2])
    assert (await trim(redis)).removed == 1


async def test_a_missing_stream_is_not_created(redis: Redis) -> None:
    assert await trim(redis) == Trim(0, 0, None)
    assert await redis.keys("*") == []


async def test_young_entries_and_one_older_entry_stay(redis: Redis) -> None:
    young = [as_text(await redis.xadd(STREAM, {"a": "b"})) for _ in range(3)]
    await group(redis, reads=3, settles=young)
    assert (await trim(redis)).removed == 0, "none of them is old enough"
    await redis.delete(STREAM)
    await add(redis, *IDS)
    young = [as_text(await redis.xadd(STREAM, {"a": "b"})) for _ in range(3)]
    await group(redis, reads=8, settles=[*IDS, *young])
    await trim(redis)
    assert await left(redis) == ["5-1", *young]


async def test_one_call_removes_no_more_than_its_limit(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=5, settles=IDS)
    assert [(await trim(redis, most=3)).removed for _ in range(3)] == [3, 1, 0]


@pytest.mark.parametrize(
    "ids",
    [
        ("9-1", "10-1", "11-1", "100-1"),
        ("1-9", "1-10", "1-11", "1-100"),
        tuple(f"7-{2**64 - 4 + n}" for n in range(4)),  # which no number of Lua's can tell from another
        ("3-9", "4-1", "5-1", "6-1"),
    ],
)
async def test_ids_are_compared_as_whole_numbers(redis: Redis, ids: Sequence[str]) -> None:
    await add(redis, *ids)
    await group(redis, "a", reads=3, settles=ids[:3])
    await group(redis, reads=2, settles=ids[:2])
    await group(redis, "b", reads=4, settles=ids[:3])
    done = await trim(redis)
    assert await left(redis) == list(ids[1:])
    assert done.unsettled is not None
    assert (done.unsettled.group, done.unsettled.entry_id) == (GROUP, ids[2])


async def test_a_trimmed_stream_is_reported_for_some_time(redis: Redis) -> None:
    await add(redis, *IDS)
    await group(redis, reads=1, settles=IDS[:1])
    await trim(redis)
    assert not await redis.exists(MARK), "there was nothing to remove"
    await redis.xreadgroup(GROUP, "worker", {STREAM: ">"}, noack=True)
    await trim(redis)
    assert 0 < await redis.pttl(MARK) <= streams.MARK_MS
