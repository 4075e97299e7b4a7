"""Streams and groups: how long, how far, and what of it is unsettled."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.inspection import Inspector
from tests.inspection.helpers import LISTINGS, REPLAYS, SOURCE, add, all_pages, deliver, park, wait
from tests.worker.helpers import GROUP, STREAM, make_router, running

EVERYTHING = LISTINGS | {
    "stream": lambda inspector, _group=GROUP: inspector.stream(STREAM),
    "group": lambda inspector, group=GROUP: inspector.group(STREAM, group),
}
OF_A_GROUP = sorted(EVERYTHING.keys() - {"stream", "groups"})


# --- what is not there ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", EVERYTHING)
async def test_a_stream_that_is_not_there_is_named(redis: Redis, what: str) -> None:
    with pytest.raises(StreamNotFoundError, match=f"there is no stream '{STREAM}'") as raised:
        await EVERYTHING[what](Inspector(redis))
    assert raised.value.stream == STREAM
    assert await redis.keys("*") == []


@pytest.mark.parametrize("what", OF_A_GROUP)
async def test_a_group_that_is_not_there_is_named(redis: Redis, what: str) -> None:
    await add(redis, "1-1")
    with pytest.raises(GroupNotFoundError, match=f"stream '{STREAM}' has no group 'nobody'") as raised:
        await EVERYTHING[what](Inspector(redis), "nobody")
    assert (raised.value.stream, raised.value.group) == (STREAM, "nobody")


@pytest.mark.parametrize("what", EVERYTHING)
async def test_a_key_that_is_no_stream_is_an_error_of_redis(redis: Redis, what: str) -> None:
    await redis.set(STREAM, "text")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await EVERYTHING[what](Inspector(redis))


@pytest.mark.parametrize("what", EVERYTHING)
async def test_an_outage_is_an_error_of_redis(what: str) -> None:
    async with Redis(port=1, retry=Retry(NoBackoff(), 0)) as nobody:
        with pytest.raises(RedisConnectionError):
            await EVERYTHING[what](Inspector(nobody))


@pytest.mark.standalone("compares all keys of one server")
@pytest.mark.parametrize("what", EVERYTHING)
async def test_looking_changes_nothing(redis: Redis, what: str) -> None:
    await add(redis, "1-1", "1-2", "1-3")
    await deliver(redis, 2)
    await park(redis, "1-1")
    before = {key: await redis.dump(key) for key in await redis.keys("*")}
    await EVERYTHING[what](Inspector(redis))
    assert {key: await redis.dump(key) for key in await redis.keys("*")} == before


@pytest.mark.parametrize("what", EVERYTHING)
async def test_any_setting_of_the_users_client_works(redis: Redis, redis_url: str, what: str) -> None:
    await add(redis, "1-1", "1-2", "1-3")
    await deliver(redis, 3)
    await park(redis, "1-1")
    await wait(redis, "1-2", 5_000)
    seen = []
    for options in ({}, {"protocol": 2}, {"protocol": 3}, {"decode_responses": True, "protocol": 3}):
        async with Redis.from_url(redis_url, **options) as client:
            await redis.script_flush()
            seen.append(type(await EVERYTHING[what](Inspector(client))))
    assert len(set(seen)) == 1


def test_a_client_of_another_kind_is_refused() -> None:
    with pytest.raises(TypeError, match=r"redis must be a redis\.asyncio\.Redis or RedisCluster client"):
        Inspector("redis://localhost")  # type: ignore[arg-type]


@pytest.mark.parametrize(("stream", "group"), [("", GROUP), ("a{}b", GROUP), (STREAM, ""), (STREAM, 3)])
async def test_a_name_that_cannot_be_one_is_refused(redis: Redis, stream: Any, group: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^(stream|group) must"):
        await Inspector(redis).group(stream, group)


# --- streams --------------------------------------------------------------------------------------------------------


async def counts_entries(redis: Redis) -> bool:
    """Whether the server is one that counts what was added and read: from Redis 7.0 on."""
    return "entries-added" in await redis.xinfo_stream(STREAM)


async def test_a_stream_is_described(redis: Redis) -> None:
    ids = await add(redis, "1700000000000-0", "1700000001500-0", "*")
    await redis.xtrim(STREAM, maxlen=2, approximate=False)
    await redis.xgroup_create(STREAM, "one", "0")
    await redis.xgroup_create(STREAM, "two", "0")

    seen = await Inspector(redis).stream(STREAM)

    assert (seen.stream, seen.length, seen.groups) == (STREAM, 2, 2)
    assert (seen.first_id, seen.last_id) == ("1700000001500-0", ids[-1])
    assert seen.first_at == datetime(2023, 11, 14, 22, 13, 21, 500_000, tzinfo=UTC)
    assert seen.last_at is not None
    assert abs((seen.at - seen.last_at).total_seconds()) < 60
    assert seen.entries_added == (3 if await counts_entries(redis) else None)
    assert seen.memory is not None
    assert seen.memory == await redis.memory_usage(STREAM)


async def test_an_empty_stream_is_described(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    seen = await Inspector(redis).stream(STREAM)
    assert (seen.length, seen.first_id, seen.first_at, seen.last_id, seen.last_at) == (0, None, None, None, None)


async def test_an_id_with_an_impossible_time_has_no_time(redis: Redis) -> None:
    [last] = await add(redis, f"{2**64 - 1}-5")
    await redis.xgroup_create(STREAM, GROUP, "0")
    stream, group = await Inspector(redis).stream(STREAM), await Inspector(redis).group(STREAM, GROUP)
    assert (stream.last_id, stream.last_at) == (last, None)
    assert (group.oldest_unsettled_id, group.oldest_unsettled_ms) == (last, 0)


async def test_the_highest_possible_id_is_accepted(redis: Redis) -> None:
    highest = f"{2**64 - 1}-{2**64 - 1}"
    await add(redis, "1-1", highest)
    await deliver(redis, 2)
    group = await Inspector(redis).group(STREAM, GROUP)
    page = await Inspector(redis).pending(STREAM, GROUP, limit=2)
    assert (group.last_delivered_id, group.lag, group.pending) == (highest, 0, 2)
    assert ([entry.entry_id for entry in page.items], page.cursor) == (["1-1", highest], None)


async def test_memory_is_left_out_where_asking_is_not_allowed(redis: Redis, redis_url: str) -> None:
    await add(redis, "1-1")
    await redis.acl_setuser("watcher", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-memory"])
    try:
        async with Redis.from_url(redis_url, username="watcher", password="secret") as watcher:
            seen = await Inspector(watcher).stream(STREAM)
        assert (seen.length, seen.memory) == (1, None)
    finally:
        await redis.acl_deluser("watcher")


# --- how far a group is ---------------------------------------------------------------------------------------------


async def lag(redis: Redis) -> tuple[int, bool]:
    seen = await Inspector(redis).group(STREAM, GROUP)
    return seen.lag, seen.lag_exact


async def test_a_group_without_deliveries_is_described(redis: Redis) -> None:
    await add(redis, "1700000000000-0", "1700000000000-1")
    await redis.xgroup_create(STREAM, GROUP, "0")
    seen = await Inspector(redis).group(STREAM, GROUP)
    assert (seen.stream, seen.group, seen.last_delivered_id, seen.last_delivered_at) == (STREAM, GROUP, "0-0", None)
    assert (seen.lag, seen.lag_exact, seen.pending, seen.consumers) == (2, True, 0, 0)


async def test_a_group_in_the_middle_of_its_stream_is_described(redis: Redis) -> None:
    await add(redis, *(f"170000000000{n}-0" for n in range(5)))
    await deliver(redis, 3)
    seen = await Inspector(redis).group(STREAM, GROUP)
    assert (seen.last_delivered_id, seen.last_delivered_at) == (
        "1700000000002-0",
        datetime(2023, 11, 14, 22, 13, 20, 2_000, tzinfo=UTC),
    )
    assert seen.entries_read == (3 if await counts_entries(redis) else None)
    assert (seen.lag, seen.lag_exact) == (2, True)


async def test_the_lag_of_a_group_that_is_up_to_date(redis: Redis) -> None:
    ids = await add(redis, "1-1", "1-2", "1-3")
    await deliver(redis, 3)
    await redis.xdel(STREAM, ids[1])
    assert await lag(redis) == (0, True)


async def test_the_lag_is_what_is_left_where_unread_entries_were_trimmed_away(redis: Redis) -> None:
    await add(redis, *(f"{n}-0" for n in range(1, 11)))
    await deliver(redis, 2)
    await redis.xtrim(STREAM, maxlen=5, approximate=False)
    assert await lag(redis) == (5, True)


async def test_a_small_lag_is_counted_where_the_server_does_not_know_it(redis: Redis) -> None:
    await add(redis, *(f"{n}-0" for n in range(1, 113)))
    await deliver(redis, 10)
    await redis.xdel(STREAM, "20-0", "30-0")  # from here on even newer servers do not know
    assert await lag(redis) == (100, True)


async def test_a_large_lag_is_estimated_where_the_server_does_not_know_it(redis: Redis) -> None:
    await add(redis, *(f"{n}-0" for n in range(1, 1_003)))
    await deliver(redis, 251)
    await redis.xdel(STREAM, "500-0", "600-0")
    behind, exact = await lag(redis)
    assert not exact
    assert 740 <= behind <= 760


async def test_a_lag_is_never_less_than_what_was_counted_nor_more_than_there_is(redis: Redis) -> None:
    """Times in ids may say little: here nearly all entries came at once, in the end."""
    await add(redis, "1-0", "2-0", *(f"1000000-{n}" for n in range(200)), "1000000-500")
    await redis.xgroup_create(STREAM, GROUP, "1000000-10")
    await redis.xdel(STREAM, "1000000-50")
    assert await lag(redis) == (101, False)
    await redis.xgroup_setid(STREAM, GROUP, "1-0")
    assert await lag(redis) == (202, False)


async def test_a_wrong_count_of_read_entries_makes_no_impossible_lag(redis: Redis) -> None:
    await add(redis, *(f"{n}-0" for n in range(1, 6)))
    await redis.xgroup_create(STREAM, GROUP, "2-0")
    if await counts_entries(redis):
        for read, expected in ((1_000, 0), (-1, 3), (0, 5)):
            await redis.execute_command("XGROUP", "SETID", STREAM, GROUP, "2-0", "ENTRIESREAD", read)
            assert await lag(redis) == (expected, True)


# --- what is unsettled ----------------------------------------------------------------------------------------------


async def test_held_waiting_and_parked_entries_are_counted(redis: Redis) -> None:
    await add(redis, *(f"{n}-0" for n in range(1, 11)))
    await deliver(redis, 4)
    await deliver(redis, 3, "another")
    await wait(redis, "2-0", 9_000)
    await wait(redis, "3-0", 9_000)
    await park(redis, "5-0")

    seen = await Inspector(redis).group(STREAM, GROUP)

    assert (seen.pending, seen.held, seen.waiting, seen.parked, seen.lag) == (7, 4, 2, 1, 3)
    assert (seen.consumers, seen.consumers_alive) == (2, 0)


async def oldest(redis: Redis) -> str | None:
    return (await Inspector(redis).group(STREAM, GROUP)).oldest_unsettled_id


async def test_the_oldest_unsettled_entry(redis: Redis) -> None:
    await add(redis, "7-0", "8-0", "9-0", "10-0", "11-0")
    await redis.xgroup_create(STREAM, GROUP, "7-0")
    assert await oldest(redis) == "8-0"  # was not delivered yet
    await deliver(redis, 3)
    assert await oldest(redis) == "8-0"  # is held
    await wait(redis, "8-0", 9_000)
    assert await oldest(redis) == "8-0"
    await park(redis, "8-0")
    assert await oldest(redis) == "9-0"  # held by one of several; 10 is more than 9
    await redis.xclaim(STREAM, GROUP, "another", 0, ["10-0"], justid=True)
    assert await oldest(redis) == "9-0"
    await redis.xclaim(STREAM, GROUP, "another", 0, ["9-0"], justid=True)
    await redis.xclaim(STREAM, GROUP, "yet another", 0, ["10-0"], justid=True)
    assert await oldest(redis) == "9-0"
    await redis.xack(STREAM, GROUP, "9-0", "10-0")
    assert await oldest(redis) == "11-0"  # but for the parked one, everything delivered is settled
    await deliver(redis, 1)
    await redis.xack(STREAM, GROUP, "11-0")
    assert await oldest(redis) is None
    assert (await Inspector(redis).group(STREAM, GROUP)).oldest_unsettled_ms is None


async def test_the_oldest_unsettled_entry_of_a_group_that_was_set_back(redis: Redis) -> None:
    await add(redis, "1-0", "2-0", "3-0")
    await deliver(redis, 3)
    await redis.xack(STREAM, GROUP, "1-0", "2-0")
    await redis.xgroup_setid(STREAM, GROUP, "1-0")
    assert await oldest(redis) == "2-0"


async def test_the_age_of_the_oldest_unsettled_entry_is_in_milliseconds(redis: Redis) -> None:
    await add(redis, "1700000000000-7")
    await redis.xgroup_create(STREAM, GROUP, "0")
    seen = await Inspector(redis).group(STREAM, GROUP)
    assert seen.oldest_unsettled_ms == round(seen.at.timestamp() * 1000) - 1_700_000_000_000


async def test_replays_are_counted_and_can_be_looked_at(redis: Redis) -> None:
    await add(redis, "1-0")
    await redis.xgroup_create(STREAM, GROUP, "0")
    await add(redis, "5-0", "6-0", "7-0", stream=REPLAYS.stream)
    await deliver(redis, 2, source=REPLAYS)
    await wait(redis, "5-0", 9_000, ["pay"], source=REPLAYS)
    await park(redis, "6-0", b'[{"handler":"pay","reason":"non_retryable","error":"no"}]', source=REPLAYS)
    await redis.set(SOURCE.consumer("worker"), "held")
    inspector = Inspector(redis)

    seen = await inspector.group(STREAM, GROUP)
    replays = await inspector.group(STREAM, GROUP, replays=True)

    assert (seen.pending, seen.waiting, seen.parked, seen.lag, seen.replays) == (0, 0, 0, 1, 3)
    assert (replays.pending, replays.waiting, replays.parked, replays.lag, replays.replays) == (2, 1, 1, 1, 0)
    assert (replays.stream, replays.group) == (REPLAYS.stream, GROUP)
    assert (replays.consumers, replays.consumers_alive) == (1, 1)  # a name is held once, for the stream
    [waiting] = (await inspector.waiting(STREAM, GROUP, replays=True)).items
    [parked] = (await inspector.parked(STREAM, GROUP, replays=True)).items
    assert (waiting.entry_id, waiting.handlers) == ("5-0", ("pay",))
    assert (parked.entry_id, parked.failures[0].error) == ("6-0", "no")
    assert [e.state for e in (await inspector.pending(STREAM, GROUP, replays=True)).items] == ["waiting", "parked"]
    assert [c.alive for c in (await inspector.consumers(STREAM, GROUP, replays=True)).items] == [True]


async def test_live_consumers_are_counted(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await redis.xgroup_createconsumer(STREAM, GROUP, "dead")
    async with running(make_router(redis, consumer="one"), make_router(redis, consumer="two")):
        seen = await Inspector(redis).group(STREAM, GROUP)
    assert (seen.consumers, seen.consumers_alive) == (3, 2)


# --- many groups ----------------------------------------------------------------------------------------------------


async def test_groups_come_in_pages_by_name(redis: Redis) -> None:
    names = ["Zed", "a", "ab", "a-b", b"\x80\xff", "é", b"\x00", "b", "x" * 300]
    await add(redis, "1-0", "2-0")
    for name in names:
        await redis.xgroup_create(STREAM, name, "1-0")  # type: ignore[arg-type]
    raw = sorted(name if isinstance(name, bytes) else name.encode() for name in names)

    for limit in (1, 2, 3, 9, 500):
        pages = await all_pages(LISTINGS["groups"], Inspector(redis), limit=limit)
        seen = [group for page in pages for group in page.items]
        assert [group.group for group in seen] == [name.decode(errors="backslashreplace") for name in raw]
        assert len(pages) == -(-len(names) // limit)
        assert {(group.stream, group.lag, group.last_delivered_id) for group in seen} == {(STREAM, 1, "1-0")}


async def test_a_group_deleted_while_groups_are_listed_is_left_out(redis: Redis) -> None:
    await add(redis, "1-0")
    for name in "abcdef":
        await redis.xgroup_create(STREAM, name, "0")

    async def remove(page: Any) -> None:
        await redis.xgroup_destroy(STREAM, page.items[-1].group)

    pages = await all_pages(LISTINGS["groups"], Inspector(redis), limit=2, between=remove)
    assert [group.group for page in pages for group in page.items] == list("abcdef")


async def test_a_page_of_groups_with_very_many_consumers_is_short(redis: Redis) -> None:
    await add(redis, "1-0")
    pipeline = redis.pipeline(transaction=False)
    for name in "abcd":
        await redis.xgroup_create(STREAM, name, "0")
        for number in range(1_200):
            pipeline.xgroup_createconsumer(STREAM, name, f"worker-{number}")
    await pipeline.execute()
    pages = await all_pages(LISTINGS["groups"], Inspector(redis))
    assert [[group.group for group in page.items] for page in pages] == [["a", "b"], ["c", "d"]]
    assert {group.consumers for page in pages for group in page.items} == {1_200}
