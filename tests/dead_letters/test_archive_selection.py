"""Selecting discarded letters in the archive, to be restored."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, LetterFilter
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import letters_archived
from rapids.dead_letters.operation import Selector, search_for
from rapids.dead_letters.selection import Count, Search, Span
from tests.dead_letters.helpers import write
from tests.worker.helpers import DLQ


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


def search_of(redis: Redis, selector: Selector) -> Search:
    return search_for(SharedPool(redis, DLQ), DLQ, "restore", selector)


async def selected(redis: Redis, selector: Selector, *, until: str | None = None, count: int = 100) -> list[str]:
    """The ids of the selected letters, step by step."""
    search = search_of(redis, selector)
    end = await search.newest() if until is None else until
    places = list[str]()
    rest: Span | None = Span(until=end)
    while rest:
        batch = await search.step(rest, count)
        assert len(batch.found) <= count
        places += batch.places
        rest = batch.rest
    assert await search.count(end) == Count(len(places), True)
    archived = {
        f"{score:.0f}-0": name.decode()
        for name, score in await redis.zrange(letters_archived(DLQ), 0, -1, withscores=True)
    }
    return [archived[place] for place in places]


ALL = Selector(filter=LetterFilter())


async def test_nothing_is_selected_from_an_empty_archive(redis: Redis) -> None:
    assert await search_of(redis, ALL).newest() == "0-0"
    assert await selected(redis, ALL) == []


@pytest.mark.parametrize("count", [1, 2, 7, 100])
async def test_discarded_letters_are_selected_in_the_order_in_which_they_were_archived(
    queue: DeadLetterQueue, redis: Redis, count: int
) -> None:
    ids = [await write(redis, number=number) for number in range(45)]
    order = [*ids[-2::-2], *ids[::2]]
    for letter_id in order:
        await queue.discard(letter_id)
    assert await selected(redis, ALL, count=count) == order


async def test_replayed_and_restored_letters_are_not_selected(queue: DeadLetterQueue, redis: Redis) -> None:
    replayed, restored, again, kept = [await write(redis) for _ in range(4)]
    await queue.replay(replayed)
    for letter_id in (restored, again):
        await queue.discard(letter_id)
        await queue.restore(letter_id)
    await queue.discard(again)
    everyone = (replayed, restored, again, kept)
    assert await selected(redis, ALL) == [again]
    assert await selected(redis, Selector(ids=everyone)) == [again]


async def test_letters_archived_later_are_not_selected(queue: DeadLetterQueue, redis: Redis) -> None:
    first, second = await write(redis), await write(redis)
    await queue.discard(first)
    until = await search_of(redis, ALL).newest()
    await queue.discard(second)
    assert await selected(redis, ALL, until=until) == [first]
    assert await selected(redis, Selector(ids=(first, second)), until=until) == [first]


@pytest.mark.parametrize("count", [1, 30, 100])
async def test_letters_are_selected_by_their_ids(queue: DeadLetterQueue, redis: Redis, count: int) -> None:
    ids = [await write(redis) for _ in range(60)]
    for letter_id in ids:
        await queue.discard(letter_id)
    wanted = (*ids[50:10:-1], "1-1", ids[20])
    assert await selected(redis, Selector(ids=wanted), count=count) == ids[11:51]


WANTED: list[Any] = [
    LetterFilter(handler="ship"),
    LetterFilter(error_type="KeyError", handler="ship"),
    LetterFilter(q="NEEDLE"),
    LetterFilter(event_type="dv.*", q="needle"),
]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
async def test_letters_are_selected_by_a_filter(queue: DeadLetterQueue, redis: Redis, wanted: LetterFilter) -> None:
    one = await write(redis, handler="ship", error_type="KeyError", text="a needle")
    others = [await write(redis) for _ in range(30)]
    for letter_id in (*others, one):
        await queue.discard(letter_id)
    assert await selected(redis, Selector(filter=wanted)) == [one]
    assert await selected(redis, Selector(filter=replace(wanted, group="another"))) == []


async def test_letters_are_selected_by_their_fingerprint(queue: DeadLetterQueue, redis: Redis) -> None:
    one, other = await write(redis, handler="ship"), await write(redis)
    fingerprint = (await queue.get(one)).fingerprint
    for letter_id in (one, other):
        await queue.discard(letter_id)
    assert await selected(redis, Selector(fingerprint=fingerprint)) == [one]


async def test_filters_by_time_use_the_time_of_writing(queue: DeadLetterQueue, redis: Redis) -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=UTC)
    ids = [await write(redis, at=round((moment + timedelta(hours=n)).timestamp() * 1000)) for n in range(4)]
    for letter_id in ids:
        await queue.discard(letter_id)
        await queue.restore(letter_id)
        await queue.discard(letter_id)
    wanted = LetterFilter(since=moment + timedelta(hours=1), until=moment + timedelta(hours=3))
    assert await selected(redis, Selector(filter=wanted)) == ids[1:3]
    never = LetterFilter(until=datetime(1970, 1, 1, tzinfo=UTC))
    assert await selected(redis, Selector(filter=never)) == []


async def test_a_call_ends_when_it_has_read_enough(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = [await write(redis, text="x" * 1_000_000) for _ in range(10)]
    for letter_id in ids:
        await queue.discard(letter_id)
    search = search_of(redis, Selector(filter=LetterFilter(handler="nobody")))
    batch = await search.step(Span(until=await search.newest()), 100)
    assert batch.places == ()
    assert batch.rest is not None
    assert await selected(redis, ALL) == ids
