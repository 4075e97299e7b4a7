"""Which letters an operation works on, how it names them, and which process has it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, LetterFilter
from rapids._storage import keys
from rapids.dead_letters import Selector
from tests.dead_letters.helpers import write, write_through_script
from tests.worker.helpers import DLQ, GROUP, STREAM, as_text, replay_stream

ALL = Selector(filter=LetterFilter())


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


async def test_a_letter_selected_by_both_its_ids_is_replayed_once(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    await queue.discard(letter_id)
    entry_id = (await queue.restore(letter_id)).history[-1].entry_id

    operation = await queue.operations.start("replay", Selector(ids=(letter_id, entry_id)))
    ended = await queue.operations.run_until_ended(operation.id)

    assert (ended.total, ended.done) == (1, 1)
    assert [as_text(fields[b"replay_of"]) for _, fields in await redis.xrange(replay_stream())] == [letter_id]


async def test_errors_of_an_operation_name_letters_by_their_first_ids(queue: DeadLetterQueue, redis: Redis) -> None:
    broken = ["original_stream", STREAM, "original_group", GROUP, "handler", "pay", "original_fields", "spoilt"]
    letter_id = as_text(await redis.execute_command("XADD", DLQ, "*", *broken))
    await queue.discard(letter_id)
    await queue.restore(letter_id)

    operation = await queue.operations.start("replay", ALL)
    ended = await queue.operations.run_until_ended(operation.id)

    assert (ended.done, ended.failed) == (0, 1)
    assert [error.letter_id for error in ended.errors] == [letter_id]


async def test_a_restore_without_room_fails_and_names_no_letter(queue: DeadLetterQueue, redis: Redis) -> None:
    for _ in range(4):
        await queue.discard(await write(redis))
    small = DeadLetterQueue(redis, DLQ, dlq_maxlen=2)

    operation = await small.operations.start("restore", ALL)
    ended = await small.operations.run_until_ended(operation.id)

    assert (ended.state, ended.done, ended.failed) == ("failed", 2, 0)
    assert [error.letter_id for error in ended.errors] == [""]
    assert "is full with dlq_maxlen=2" in ended.errors[0].error


async def test_an_operation_is_taken_over_though_a_clock_set_back_made_its_lease_long(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    operation = await queue.operations.start("discard", ALL)
    seconds, _ = await redis.time()
    held = {"owner": "a-process-that-died:1", "lease_ms": (seconds + 3600) * 1000}
    await redis.hset(keys.operation(DLQ, operation.id), mapping=held)

    assert (await asyncio.wait_for(queue.operations.run_until_ended(operation.id), 30)).state == "completed"


@pytest.mark.parametrize(
    "last", ["18446744073709551000-5", "9007199254740993-18446744073709551615", "9007199254740993-7"]
)
async def test_letters_are_written_and_moved_after_an_id_too_large_for_a_lua_number(
    queue: DeadLetterQueue, redis: Redis, last: str
) -> None:
    await redis.xadd(DLQ, {"from": "another writer"}, id=last)
    [letter_id] = await write_through_script(redis)
    assert (await queue.get(letter_id)).handler == "pay"
    assert [letter.id for letter in (await queue.list(LetterFilter(handler="pay"))).items] == [letter_id]
    await queue.discard(letter_id)
    assert (await queue.get(letter_id)).state == "discarded"
    [other_id] = await write_through_script(redis)
    operation = await queue.operations.start("replay", Selector(ids=(other_id,)))
    assert (await queue.operations.run_until_ended(operation.id)).done == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"filter": {}}, "filter must be a LetterFilter, not {}"),
        ({"filter": {"handler": "pay"}}, "filter must be a LetterFilter, not"),
        ({"ids": "1-1"}, "ids must be a tuple of strings, not '1-1'"),
        ({"ids": 5}, "ids must be a tuple of strings, not 5"),
        ({"ids": (1,)}, "each of ids must be a string, not 1"),
        ({"fingerprint": 123}, "fingerprint must be a string, not 123"),
    ],
)
def test_a_selector_refuses_values_of_another_type(given: dict[str, Any], message: str) -> None:
    """An empty dictionary as the filter selected every letter."""
    with pytest.raises(TypeError, match=re.escape(message)):
        Selector(**given)
