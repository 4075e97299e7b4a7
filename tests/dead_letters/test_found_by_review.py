"""What a review of the index, the archive and the operations found: each of these went wrong once."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, LetterFilter
from rapids.dead_letters import Selector
from rapids.storage.keys import letter_index
from tests.dead_letters.helpers import write
from tests.worker.helpers import DLQ, as_text, replay_stream

INDEX = letter_index(DLQ)
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
