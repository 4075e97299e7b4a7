"""Pages: one round trip each, and a listing that ends, whatever happens while it is read."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import inspection
from rapids._core.paging import Listing
from rapids._storage.keys import PARKED, WAITING
from rapids.inspection import Inspector, Page
from rapids.inspection.inspector import WAITING_ENTRIES, EntryPlace, TimePlace, name_after
from tests.inspection.helpers import LISTINGS, SOURCE, add, all_pages, deliver, ids, park, wait
from tests.redis.proxy import Proxy
from tests.worker.helpers import GROUP, STREAM

MANY = 5_000


# --- what a page costs ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def counted(redis_url: str) -> AsyncIterator[tuple[Proxy, Redis]]:
    """A client whose requests are counted: everything it sends at once is one."""
    proxy = Proxy(redis_url)
    await proxy.accept()
    async with Redis.from_url(proxy.url) as client:
        try:
            yield proxy, client
        finally:
            await client.connection_pool.disconnect()
            await proxy.refuse()


async def with_many(redis: Redis, state: str) -> None:
    """A group with `MANY` entries in one state."""
    names = {"waiting": WAITING, "parked": PARKED, "pending": b"worker"}
    await add(redis, *(f"{n}-0" for n in range(1, MANY + 1)))
    await deliver(redis, MANY, names[state])
    if state == "waiting":
        await redis.zadd(SOURCE.due, {f"{n}-0": n // 3 for n in range(1, MANY + 1)})
    if state == "parked":
        await redis.hset(SOURCE.parked, mapping={f"{n}-0": b"[]" for n in range(1, MANY + 1)})  # type: ignore[misc]


@pytest.mark.parametrize("state", ["pending", "waiting", "parked"])
async def test_a_page_of_very_many_is_one_round_trip(redis: Redis, redis_url: str, state: str) -> None:
    await with_many(redis, state)
    async with counted(redis_url) as (proxy, client):
        inspector = Inspector(client)
        await LISTINGS[state](inspector, limit=1)
        await inspector.group(STREAM, GROUP)
        before = proxy.requests
        assert (await inspector.group(STREAM, GROUP)).pending == MANY
        assert proxy.requests == before + 1
        pages = await all_pages(LISTINGS[state], inspector, limit=500)
        assert proxy.requests == before + 1 + len(pages)
    assert len(pages) == MANY // 500
    assert sorted(ids(*pages), key=lambda entry_id: int(entry_id[:-2])) == [f"{n}-0" for n in range(1, MANY + 1)]


@pytest.mark.standalone("counts the commands of one server")
@pytest.mark.parametrize("state", ["pending", "waiting", "parked"])
async def test_a_page_of_very_many_is_little_work(redis: Redis, state: str) -> None:
    await with_many(redis, state)
    inspector = Inspector(redis)
    place = (await LISTINGS[state](inspector, limit=500)).cursor
    await inspector.group(STREAM, GROUP)
    for look, most in (
        (LISTINGS[state](inspector, limit=10, cursor=place), 60),
        (LISTINGS["consumers"](inspector, limit=10), 10),
        (inspector.group(STREAM, GROUP), 20),
    ):
        await redis.config_resetstat()
        await look
        stats: dict[str, Any] = await redis.info("commandstats")
        assert sum(stat["calls"] for stat in stats.values()) <= most


async def test_many_consumers_are_one_round_trip_a_page(redis: Redis, redis_url: str) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    pipeline = redis.pipeline(transaction=False)
    for number in range(1_000):
        pipeline.xgroup_createconsumer(STREAM, GROUP, f"worker-{number}")
    await pipeline.execute()
    async with counted(redis_url) as (proxy, client):
        inspector = Inspector(client)
        await inspector.consumers(STREAM, GROUP, limit=1)
        before = proxy.requests
        pages = await all_pages(LISTINGS["consumers"], inspector, limit=500)
        assert proxy.requests == before + len(pages) == before + 2


@pytest.mark.parametrize("limit", [0, -1, 501, 2**70, True, 2.0, "5", None])
@pytest.mark.parametrize("listing", LISTINGS)
async def test_a_limit_out_of_range_is_refused(redis: Redis, listing: str, limit: Any) -> None:
    with pytest.raises((ValueError, TypeError), match=r"^limit must be a whole number"):
        await LISTINGS[listing](Inspector(redis), limit=limit)


@pytest.mark.parametrize("listing", ["consumers", "pending", "waiting", "parked"])
async def test_a_replays_option_that_is_no_bool_is_refused(redis: Redis, listing: str) -> None:
    with pytest.raises(TypeError, match=r"^replays must be True or False, not 'no'"):
        await getattr(Inspector(redis), listing)(STREAM, GROUP, replays="no")


# --- while others are at work ---------------------------------------------------------------------------------------


async def test_pages_while_entries_are_settled(redis: Redis) -> None:
    chance = random.Random(5)
    await add(redis, *(f"{n}-{n % 3}" for n in range(1, 301)))
    left = await deliver(redis, 300)

    async def settle(page: Page[Any]) -> None:
        chosen = {*chance.sample(left, min(len(left), 7)), page.items[-1].entry_id}
        left[:] = [entry_id for entry_id in left if entry_id not in chosen]
        await redis.xack(STREAM, GROUP, *chosen)

    pages = await all_pages(LISTINGS["pending"], Inspector(redis), limit=10, between=settle)

    seen = ids(*pages)
    assert len(seen) == len(set(seen))
    assert set(left) <= set(seen)


async def test_entries_delivered_while_pages_are_read_are_left_out(redis: Redis) -> None:
    await add(redis, *(f"{n}-0" for n in range(1, 6)))
    await deliver(redis, 5)

    async def deliver_more(page: Page[Any]) -> None:
        await add(redis, "*", "*", "*")
        await deliver(redis, 3)

    pages = await all_pages(LISTINGS["pending"], Inspector(redis), limit=2, between=deliver_more, most=10)
    assert ids(*pages) == [f"{n}-0" for n in range(1, 6)]


async def test_parked_entries_come_in_pages(redis: Redis) -> None:
    await add(redis, *(f"{n}-0" for n in range(1, 8)))
    await deliver(redis, 7)
    for n in (1, 3, 4, 5, 7):
        await park(redis, f"{n}-0")
    pages = await all_pages(LISTINGS["parked"], Inspector(redis), limit=2)
    assert [ids(page) for page in pages] == [["1-0", "3-0"], ["4-0", "5-0"], ["7-0"]]


async def test_the_last_page_may_be_full(redis: Redis) -> None:
    await add(redis, "1-0", "2-0")
    await deliver(redis, 2)
    assert [ids(page) for page in await all_pages(LISTINGS["pending"], Inspector(redis), limit=2)] == [["1-0", "2-0"]]


async def test_an_id_whose_sequence_cannot_be_higher(redis: Redis) -> None:
    odd = f"5-{2**64 - 1}"
    await add(redis, odd, "6-0", "6-1")
    await deliver(redis, 3)
    pages = await all_pages(LISTINGS["pending"], Inspector(redis), limit=1)
    assert ids(*pages) == [odd, "6-0", "6-1"]


# Due at the same time, entries are in the order of their ids as text: 10-0 is before 9-0.
TIES = ["1-0", "10-0", "10-1", "10-10", "100-0", "2-0", "9-0", "99-99"]


async def with_ties(redis: Redis) -> list[str]:
    """Entries that wait: many of them until the same time. Their ids in order."""
    others = [f"{n}-0" for n in range(200, 210)]
    await add(redis, *sorted([*TIES, *others], key=lambda entry_id: [int(part) for part in entry_id.split("-")]))
    await deliver(redis, 50)
    for entry_id in TIES:
        await wait(redis, entry_id, 1_700_000_000_000)
    for n, entry_id in enumerate(others):
        await wait(redis, entry_id, 1_699_999_999_995 + (n if n < 5 else n + 1))
    return [*others[:5], *TIES, *others[5:]]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 18, 19])
async def test_waiting_entries_come_as_they_are_due(redis: Redis, limit: int) -> None:
    in_order = await with_ties(redis)
    pages = await all_pages(LISTINGS["waiting"], Inspector(redis), limit=limit)
    assert ids(*pages) == in_order
    assert len(pages) == -(-18 // limit)
    due = [entry.due_at for page in pages for entry in page.items]
    assert due == sorted(due)


@pytest.mark.parametrize("limit", [1, 2, 3])
async def test_waiting_entries_settled_while_they_are_listed_are_left_out(redis: Redis, limit: int) -> None:
    in_order = await with_ties(redis)

    async def settle(page: Page[Any]) -> None:
        for entry in page.items:
            await redis.zrem(SOURCE.due, entry.entry_id)
            await redis.xack(STREAM, GROUP, entry.entry_id)

    pages = await all_pages(LISTINGS["waiting"], Inspector(redis), limit=limit, between=settle)
    assert ids(*pages) == in_order


async def test_a_listing_of_waiting_entries_that_fail_again_ends(redis: Redis) -> None:
    in_order = await with_ties(redis)
    later = 1_800_000_000_000

    async def fail_again(page: Page[Any]) -> None:
        for entry in page.items:
            await redis.zadd(SOURCE.due, {entry.entry_id: later})

    pages = await all_pages(LISTINGS["waiting"], Inspector(redis), limit=2, between=fail_again, most=30)
    assert ids(*pages) == in_order


async def test_due_times_that_are_no_whole_numbers_are_listed(redis: Redis) -> None:
    await add(redis, "1-0", "2-0", "3-0", "4-0")
    await deliver(redis, 4, WAITING)
    await redis.zadd(SOURCE.due, {"1-0": float("-inf"), "2-0": 0.1, "3-0": 1e300, "4-0": float("inf")})
    pages = await all_pages(LISTINGS["waiting"], Inspector(redis), limit=1, most=10)
    assert ids(*pages) == ["1-0", "2-0", "3-0", "4-0"]


# --- cursors --------------------------------------------------------------------------------------------------------

BAD = [
    "",
    "x",
    "1-0",
    "1-0_",
    "_",
    "__",
    "1-0_2-0_3-0",
    "0-0_1-0",
    "1-0_0-0",
    "a-b_1-0",
    "1-0_\u0661-0",
    "+",
    "-",
    "Lg",
    "\ud800",
    7,
    b"1-0_2-0",
]
BAD_TIMES = [
    "1_1-0",
    "x_1-0_5",
    "1_1-0_nan",
    "nan_1-0_1",
    "1_0-0_5",
    "1_x_5",
    "1.2.3_1-0_5",
    "1_1-0_",
    "(1_1-0_5",
    "1_1-0_5_6",
]


@pytest.mark.parametrize("place", [place for place in (*BAD, *BAD_TIMES) if isinstance(place, str) and place.isascii()])
@pytest.mark.parametrize("listing", ["pending", "parked", "waiting"])
async def test_a_position_that_no_page_returned_is_refused(redis: Redis, listing: str, place: str) -> None:
    with pytest.raises(ValueError, match=r"^cursor must be one from an earlier page of this list, not "):
        await LISTINGS[listing](Inspector(redis), cursor=Listing(listing).cursor(place))


@pytest.mark.parametrize("cursor", [*BAD, *BAD_TIMES])
@pytest.mark.parametrize("listing", LISTINGS)
async def test_a_cursor_that_no_page_returned_is_refused(redis: Redis, listing: str, cursor: Any) -> None:
    with pytest.raises(ValueError, match=r"^cursor must be one from an earlier page of this list, not "):
        await LISTINGS[listing](Inspector(redis), cursor=cursor)


async def test_a_cursor_of_another_listing_is_refused(redis: Redis) -> None:
    await add(redis, "1-0", "2-0", "3-0", "4-0")
    await redis.xgroup_create(STREAM, "another", "0")
    await deliver(redis, 3)
    await deliver(redis, 1, "second")
    for entry_id in ("1-0", "2-0"):
        await wait(redis, entry_id, 5_000)
    inspector = Inspector(redis)
    names = ("pending", "waiting", "consumers", "groups")
    given = {name: (await LISTINGS[name](inspector, limit=1)).cursor for name in names}
    assert None not in given.values()
    for name in names:
        for of, cursor in given.items():
            if of != name:
                with pytest.raises(ValueError, match=r"^cursor must be"):
                    await LISTINGS[name](inspector, cursor=cursor)


NAMES = Listing("names")


@pytest.mark.parametrize("name", [b"", b"a", b"\xff\xfe\x00", b"_" * 500])
def test_a_name_is_found_again(name: bytes) -> None:
    assert name_after(NAMES, NAMES.cursor(name)) == name + b"\0"


def test_an_entry_and_a_time_are_found_again() -> None:
    cursor = EntryPlace.after(NAMES, "5-1", "9-0")
    assert EntryPlace.read(NAMES, cursor) == EntryPlace("5-2", "9-0")
    assert EntryPlace.after(NAMES, "9-0", "9-0") is None
    place = TimePlace(("1e+20", "5-1"), "inf")
    assert TimePlace.read(place.cursor) == place
    assert WAITING_ENTRIES.text(place.cursor) == "1e+20_5-1_inf"


def test_without_a_cursor_a_listing_starts_at_the_beginning() -> None:
    assert EntryPlace.read(NAMES, None) == EntryPlace()
    assert TimePlace.read(None) == TimePlace()
    assert name_after(NAMES, None) == b""


# --- snapshots as values --------------------------------------------------------------------------------------------


async def test_snapshots_are_values(redis: Redis) -> None:
    await add(redis, "1-0", "2-0", "3-0")
    await deliver(redis, 2)
    await wait(redis, "1-0", 5_000)
    inspector = Inspector(redis)
    pages = [await listing(inspector) for listing in LISTINGS.values()]
    seen: list[Any] = [await inspector.stream(STREAM), await inspector.group(STREAM, GROUP), *pages]
    seen += [item for page in pages for item in page.items]
    for snapshot in seen:
        assert pickle.loads(pickle.dumps(snapshot)) == copy.deepcopy(snapshot) == snapshot
        assert hash(snapshot) == hash(copy.deepcopy(snapshot))
        assert repr(snapshot).startswith(f"{type(snapshot).__name__}(")
        first = dataclasses.fields(snapshot)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(snapshot, first, None)


def test_every_name_is_documented() -> None:
    for name in inspection.__all__:
        if isinstance(thing := getattr(inspection, name), type):
            assert vars(thing)["__doc__"]
            assert all(
                value.__doc__ for key, value in vars(thing).items() if callable(value) and not key.startswith("_")
            )
