"""What a review of the index, the archive and the operations found: each of these went wrong once."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, LetterFilter
from rapids._storage import archive, keys, letter_index
from rapids._storage.client.connections import Commands, SharedPool
from rapids.dead_letters import Selector
from tests.dead_letters.helpers import write, write_through_script
from tests.worker.helpers import DLQ, GROUP, STREAM, as_text, everywhere, replay_stream

INDEX = keys.letter_index(DLQ)
ALL = Selector(filter=LetterFilter())


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


async def test_a_restored_letter_named_twice_is_replayed_once(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    await queue.discard(letter_id)
    entry_id = (await queue.restore(letter_id)).history[-1].entry_id

    operation = await queue.operations.start("replay", Selector(ids=(letter_id, entry_id)))
    ended = await queue.operations.run_until_ended(operation.id)

    assert (ended.total, ended.done) == (1, 1)
    assert [as_text(fields[b"replay_of"]) for _, fields in await redis.xrange(replay_stream())] == [letter_id]


async def test_reading_a_server_that_is_full_leaves_the_index_as_it_is(queue: DeadLetterQueue, redis: Redis) -> None:
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


async def test_a_server_that_takes_no_writes_is_read(queue: DeadLetterQueue, redis: Redis) -> None:
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


async def lose(redis: Redis, what: str) -> None:
    names = [as_text(name) async for name in redis.scan_iter(f"{INDEX}:*")]
    [lost, *_] = [name for name in sorted(names) if name.endswith(":fingerprints") == (what == "names")]
    await redis.delete(lost)


@pytest.mark.parametrize("what", ["names", "letters"])
async def test_an_index_of_which_a_key_was_lost_is_made_anew(queue: DeadLetterQueue, redis: Redis, what: str) -> None:
    await write_through_script(redis, 3)
    await write_through_script(redis, 2, handler="ship")
    await lose(redis, what)
    for _ in range(5):
        await queue.causes()
    found = await queue.causes()
    assert (found.letters, found.stats.unindexed) == (5, 0)
    assert len((await queue.list(LetterFilter(handler="pay"))).items) == 3
    assert len((await queue.list(LetterFilter(handler="ship"))).items) == 2


@pytest.mark.parametrize(
    "last", ["18446744073709551000-5", "9007199254740993-18446744073709551615", "9007199254740993-7"]
)
async def test_letters_are_written_and_moved_behind_an_id_that_numbers_do_not_hold(
    queue: DeadLetterQueue, redis: Redis, last: str
) -> None:
    await redis.xadd(DLQ, {"from": "a stranger"}, id=last)
    [letter_id] = await write_through_script(redis)
    assert (await queue.get(letter_id)).handler == "pay"
    assert [letter.id for letter in (await queue.list(LetterFilter(handler="pay"))).items] == [letter_id]
    await queue.discard(letter_id)
    assert (await queue.get(letter_id)).state == "discarded"
    [other_id] = await write_through_script(redis)
    operation = await queue.operations.start("replay", Selector(ids=(other_id,)))
    assert (await queue.operations.run_until_ended(operation.id)).done == 1


async def test_an_operation_is_taken_whose_lease_a_clock_that_went_back_made_long(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    operation = await queue.operations.start("discard", ALL)
    seconds, _ = await redis.time()
    held = {"owner": "a-process-that-died:1", "lease_ms": (seconds + 3600) * 1000}
    await redis.hset(keys.operation(DLQ, operation.id), mapping=held)

    assert (await asyncio.wait_for(queue.operations.run_until_ended(operation.id), 30)).state == "completed"


async def test_errors_of_an_operation_name_letters_by_their_own_ids(queue: DeadLetterQueue, redis: Redis) -> None:
    spoilt = ["original_stream", STREAM, "original_group", GROUP, "handler", "pay", "original_fields", "spoilt"]
    letter_id = as_text(await redis.execute_command("XADD", DLQ, "*", *spoilt))
    await queue.discard(letter_id)
    await queue.restore(letter_id)

    operation = await queue.operations.start("replay", ALL)
    ended = await queue.operations.run_until_ended(operation.id)

    assert (ended.done, ended.failed) == (0, 1)
    assert [error.letter_id for error in ended.errors] == [letter_id]


async def test_a_restore_for_which_there_is_no_room_blames_no_letter(queue: DeadLetterQueue, redis: Redis) -> None:
    for _ in range(4):
        await queue.discard(await write(redis))
    small = DeadLetterQueue(redis, DLQ, dlq_maxlen=2)

    operation = await small.operations.start("restore", ALL)
    ended = await small.operations.run_until_ended(operation.id)

    assert (ended.state, ended.done, ended.failed) == ("failed", 2, 0)
    assert [error.letter_id for error in ended.errors] == [""]
    assert "is full with dlq_maxlen=2" in ended.errors[0].error


async def test_a_replay_that_fails_again_while_one_looks_is_not_told_as_handled(
    queue: DeadLetterQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id = await write(redis)
    replay = await queue.replay(letter_id)
    look = archive.replay_state
    again = "1800000000000-0"

    async def fails_first(commands: Commands, stream: str, group: str, entry_id: str) -> archive.ReplayState:
        await redis.hset(keys.letters_failed_again(DLQ), letter_id, again)
        await redis.xdel(replay.stream, replay.entry_id)
        return await look(commands, stream, group, entry_id)

    monkeypatch.setattr(archive, "replay_state", fails_first)
    [outcome] = (await queue.get(letter_id)).replays
    assert (outcome.outcome, outcome.letters) == ("failed_again", (again,))


async def test_a_full_server_is_not_asked_to_catch_up_again_at_once(redis: Redis) -> None:
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


@pytest.mark.parametrize("wanted", [LetterFilter(), LetterFilter(handler="pay"), LetterFilter(q="declined")])
async def test_a_page_of_large_letters_ends_before_it_has_as_many_as_asked_for(
    queue: DeadLetterQueue, redis: Redis, wanted: LetterFilter
) -> None:
    ids = [await write(redis, text="x" * 300_000) for _ in range(100)]
    found = list[str]()
    cursor: str | None = None
    while True:
        page = await queue.list(wanted, cursor=cursor, limit=500)
        assert 0 < len(page.items) < 80, "a page ends after some 16 MB"
        found += [letter.id for letter in page.items]
        if page.cursor is None:
            break
        cursor = page.cursor
    assert found == ids[::-1]


@pytest.mark.parametrize("what", ["names", "letters"])
async def test_an_index_of_which_a_key_is_something_else_is_made_anew(
    queue: DeadLetterQueue, redis: Redis, what: str
) -> None:
    await write_through_script(redis, 3)
    await write_through_script(redis, 2, handler="ship")
    names = [as_text(name) async for name in redis.scan_iter(f"{INDEX}:*")]
    [spoilt, *_] = [name for name in sorted(names) if name.endswith(":fingerprints") == (what == "names")]
    await redis.set(spoilt, "something else")
    found = await queue.causes()
    assert (found.letters, found.stats.unindexed) == (5, 0)
    assert len((await queue.list(LetterFilter(handler="ship"))).items) == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"filter": {}}, "filter must be a LetterFilter, not {}"),
        ({"filter": {"handler": "pay"}}, "filter must be a LetterFilter, not"),
        ({"ids": "1-1"}, "ids must be a tuple of strings, not '1-1'"),
        ({"ids": 5}, "ids must be a tuple of strings, not 5"),
        ({"ids": (1,)}, "each of ids must be a string, not 1"),
        ({"fingerprint": 123}, "fingerprint must be a string, not 123"),
    ],
)
def test_a_selector_refuses_what_is_of_another_type(given: dict[str, Any], told: str) -> None:
    """An empty dictionary as the filter selected every letter."""
    with pytest.raises(TypeError, match=re.escape(told)):
        Selector(**given)
