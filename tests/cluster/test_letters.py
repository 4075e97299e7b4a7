"""Moving many dead letters on a Cluster, where a script may have keys of one slot only."""

from __future__ import annotations

from typing import get_args

import pytest
from redis.asyncio import RedisCluster

from rapids import DeadLetterQueue, LetterFilter
from rapids._core.checks import hash_tag
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import default_dlq, letters_archived
from rapids._storage.letter_moves import Bounds, LetterMoves, Moved
from rapids._storage.operation_records import Claim
from rapids.dead_letters import Scope, Selector
from rapids.exceptions import DeserializationError
from tests.dead_letters.helpers import letter_fields
from tests.worker.helpers import DLQ, STREAM, as_text, replay_stream

TAG = hash_tag(DLQ) or DLQ
CLAIM = Claim(DLQ, "replay", "test", "me")
OPERATION = CLAIM.key


@pytest.fixture
async def queue(client: RedisCluster) -> DeadLetterQueue:
    await client.hset(OPERATION, mapping={"state": "running", "owner": "me"})  # type: ignore[misc]
    return DeadLetterQueue(client, DLQ)


async def write(client: RedisCluster, stream: str = STREAM) -> str:
    flat = letter_fields()
    flat[flat.index(b"original_stream") + 1] = stream.encode()
    return as_text(await client.execute_command("XADD", DLQ, "*", *flat))


def moves_of(client: RedisCluster) -> LetterMoves:
    return LetterMoves(SharedPool(client, DLQ), DLQ, Bounds(3_600_000, 100), tag=TAG)


async def discarded(client: RedisCluster, ids: list[str]) -> Moved:
    return await moves_of(client).move_many(ids, CLAIM, {"action": "discarded"})


async def replayed(client: RedisCluster, ids: list[str]) -> Moved:
    change = {"action": "replayed", "scope": "handler"}
    return await moves_of(client).move_many(ids, CLAIM, change, scope="handler")


@pytest.mark.usefixtures("queue")
@pytest.mark.smoke
async def test_letters_of_the_own_slot_are_replayed_in_one_step(client: RedisCluster) -> None:
    ids = [await write(client) for _ in range(40)]
    assert await replayed(client, ids) == Moved(40, 0, ids[-1], None)
    assert [as_text(fields[b"replay_of"]) for _, fields in await client.xrange(replay_stream())] == ids


async def test_many_are_discarded_restored_and_replayed(client: RedisCluster, queue: DeadLetterQueue) -> None:
    ids = [await write(client) for _ in range(40)]
    assert (await discarded(client, ids)).done == 40
    archived = await client.zrange(letters_archived(DLQ), 0, -1, withscores=True)
    places = [f"{float(score):.0f}-0" for _, score in archived]
    found = await moves_of(client).restore_many(places, CLAIM, {"action": "restored"})
    assert found == Moved(40, 0, places[-1], None)
    entries = [as_text(entry_id) for entry_id, _ in await client.xrange(DLQ)]
    assert (await replayed(client, entries)).done == 40
    actions = [[change.action for change in (await queue.get(one)).history] for one in ids]
    assert actions == [["discarded", "restored", "replayed"]] * 40


OTHERS = ["dv:others", "{dv}:events", "dv:events{x}", "{dv:dlq}:x"]
"""Streams in another slot."""


@pytest.mark.parametrize("stream", OTHERS)
async def test_a_letter_of_another_slot_is_not_replayed_and_the_error_names_the_right_stream(
    client: RedisCluster, queue: DeadLetterQueue, stream: str
) -> None:
    ids = [await write(client), await write(client, stream), await write(client)]
    assert await replayed(client, ids) == Moved(1, 0, ids[0], (ids[1], "another slot"))
    for scope in get_args(Scope):
        with pytest.raises(DeserializationError, match="another slot of the Cluster") as refused:
            await queue.replay(ids[1], scope=scope)
        assert repr(default_dlq(stream)) in str(refused.value)
    assert [(await queue.get(one)).state for one in ids] == ["replayed", "dead", "dead"]
    assert await client.exists(stream, replay_stream(stream)) == 0
    assert (await queue.discard(ids[1])).state == "discarded"
    assert (await queue.restore(ids[1])).state == "dead"


async def test_an_operation_replays_the_others_and_reports_that_letter(
    client: RedisCluster, queue: DeadLetterQueue
) -> None:
    ids = [await write(client, stream) for stream in (STREAM, "dv:others", STREAM)]
    started = await queue.operations.start("replay", Selector(filter=LetterFilter()))
    ended = await queue.operations.run_until_ended(started.id)
    assert (ended.state, ended.done, ended.skipped, ended.failed) == ("completed", 2, 0, 1)
    (error,) = ended.errors
    assert error.letter_id == ids[1]
    assert "another slot of the Cluster" in error.error
