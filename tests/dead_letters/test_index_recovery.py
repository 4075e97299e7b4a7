"""The index of dead letters: it is rebuilt when a key is lost, and reads need no write."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, LetterFilter
from rapids._storage import keys, letter_index
from rapids._storage.client.connections import SharedPool
from rapids.dead_letters.selection import Search, Span
from tests.dead_letters.helpers import write, write_through_script
from tests.worker.helpers import DLQ, as_text, everywhere

INDEX = keys.letter_index(DLQ)


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


async def test_reading_a_server_that_is_full_does_not_change_the_index(queue: DeadLetterQueue, redis: Redis) -> None:
    await write_through_script(redis, 3)
    await write(redis, handler="ship")  # which the index has yet to catch up with
    epoch = await redis.hget(INDEX, "epoch")
    await redis.config_set("maxmemory", 1, **everywhere(redis))
    try:
        page = await queue.list(LetterFilter(handler="ship"))
        found = await queue.causes(LetterFilter(handler="pay"))
    finally:
        await redis.config_set("maxmemory", 0, **everywhere(redis))
    assert [letter.handler for letter in page.items] == ["ship"]
    assert (found.letters, found.stats.unindexed) == (3, 1)
    assert await redis.hget(INDEX, "epoch") == epoch


async def test_letters_are_read_on_a_server_that_takes_no_writes(queue: DeadLetterQueue, redis: Redis) -> None:
    await write_through_script(redis, 3)
    await write(redis, handler="ship")
    await redis.config_set("min-replicas-to-write", 3, **everywhere(redis))
    try:
        page = await queue.list(LetterFilter(handler="ship"))
        found = await queue.causes(LetterFilter(handler="pay"))
    finally:
        await redis.config_set("min-replicas-to-write", 0, **everywhere(redis))
    assert [letter.handler for letter in page.items] == ["ship"]
    assert found.letters == 3


async def test_a_full_server_is_not_asked_at_once_to_index_again(redis: Redis) -> None:
    await write(redis)
    commands = SharedPool(redis, DLQ)
    await redis.config_set("maxmemory", 1, **everywhere(redis))
    try:
        can_wait = await letter_index.catch_up(commands, DLQ)
    finally:
        await redis.config_set("maxmemory", 0, **everywhere(redis))
    assert can_wait
    assert await redis.hget(INDEX, "to") is None
    assert await letter_index.catch_up(commands, DLQ)
    assert await redis.hget(INDEX, "to") is not None


async def lose(redis: Redis, what: str) -> None:
    names = [as_text(name) async for name in redis.scan_iter(f"{INDEX}:*")]
    [lost, *_] = [name for name in sorted(names) if name.endswith(":fingerprints") == (what == "names")]
    await redis.delete(lost)


@pytest.mark.parametrize("what", ["names", "letters"])
async def test_an_index_that_lost_a_key_is_rebuilt(queue: DeadLetterQueue, redis: Redis, what: str) -> None:
    await write_through_script(redis, 3)
    await write_through_script(redis, 2, handler="ship")
    await lose(redis, what)
    for _ in range(5):
        await queue.causes()
    found = await queue.causes()
    assert (found.letters, found.stats.unindexed) == (5, 0)
    assert len((await queue.list(LetterFilter(handler="pay"))).items) == 3
    assert len((await queue.list(LetterFilter(handler="ship"))).items) == 2


@pytest.mark.parametrize("what", ["names", "letters"])
async def test_an_index_with_a_key_of_another_type_is_rebuilt(queue: DeadLetterQueue, redis: Redis, what: str) -> None:
    await write_through_script(redis, 3)
    await write_through_script(redis, 2, handler="ship")
    names = [as_text(name) async for name in redis.scan_iter(f"{INDEX}:*")]
    [broken, *_] = [name for name in sorted(names) if name.endswith(":fingerprints") == (what == "names")]
    await redis.set(broken, "something else")
    found = await queue.causes()
    assert (found.letters, found.stats.unindexed) == (5, 0)
    assert len((await queue.list(LetterFilter(handler="ship"))).items) == 2


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_search_continues_where_it_was_when_the_index_is_rebuilt(
    queue: DeadLetterQueue, redis: Redis, newest_first: bool
) -> None:
    ids = list[str]()
    for _ in range(20):
        ids += await write_through_script(redis)
        await write_through_script(redis, handler="ship")
    search = Search(SharedPool(redis, DLQ), DLQ, LetterFilter(handler="pay"), newest_first=newest_first)
    found = list[str]()
    rest: Span | None = Span()
    while rest:
        batch = await search.step(rest, 3)
        found += batch.places
        rest = batch.rest
        if len(found) in (3, 9):
            await queue.reindex()
    assert found == (ids[::-1] if newest_first else ids)
