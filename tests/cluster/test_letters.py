"""Moving many dead letters on a Cluster, where a script may have keys of one slot only."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError

from rapids import DeadLetterQueue, LetterFilter
from rapids._core.settings import hash_tag
from rapids._storage.client.connections import SharedPool, run
from rapids._storage.keys import default_dlq, letter_mover, letters_archived
from rapids._storage.letter_moves import Moved, MoveMany, Working, move_many, restore_many
from rapids.dead_letters import Selector
from tests.dead_letters.helpers import letter_fields
from tests.worker.helpers import DLQ as ELSEWHERE
from tests.worker.helpers import STREAM, as_text, check_keys, replay_stream

DLQ = default_dlq(STREAM)
TAG = hash_tag(DLQ) or DLQ
OPERATION = f"{DLQ}:rapids:operation:test"
WORKING = Working(OPERATION, "me")
DISCARDING = MoveMany(WORKING, {"action": "discarded"}, 3_600_000, 100, tag=TAG)
REPLAYING = MoveMany(WORKING, {"action": "replayed", "scope": "handler"}, 3_600_000, 100, scope="handler", tag=TAG)


@pytest.fixture
async def queue(client: RedisCluster) -> DeadLetterQueue:
    await client.hset(OPERATION, mapping={"state": "running", "owner": "me"})  # type: ignore[misc]
    return DeadLetterQueue(client, DLQ)


async def write(client: RedisCluster, stream: str = STREAM) -> str:
    flat = letter_fields()
    flat[flat.index(b"original_stream") + 1] = stream.encode()
    return as_text(await client.execute_command("XADD", DLQ, "*", *flat))


async def moved(client: RedisCluster, many: MoveMany, ids: list[str]) -> Moved:
    return await move_many(SharedPool(client, DLQ), DLQ, many, ids)


@pytest.mark.usefixtures("queue")
@pytest.mark.smoke
async def test_letters_of_the_own_slot_are_replayed_in_one_step(client: RedisCluster) -> None:
    ids = [await write(client) for _ in range(40)]
    assert await moved(client, REPLAYING, ids) == Moved(40, 0, ids[-1], None)
    assert [as_text(fields[b"replay_of"]) for _, fields in await client.xrange(replay_stream())] == ids


async def test_many_are_discarded_restored_and_replayed(client: RedisCluster, queue: DeadLetterQueue) -> None:
    ids = [await write(client) for _ in range(40)]
    assert (await moved(client, DISCARDING, ids)).done == 40
    archived = await client.zrange(letters_archived(DLQ), 0, -1, withscores=True)
    places = [f"{float(score):.0f}-0" for _, score in archived]
    change = {"action": "restored"}
    found = await restore_many(SharedPool(client, DLQ), DLQ, WORKING, change, places, dlq_maxlen=None)
    assert found == Moved(40, 0, places[-1], None)
    entries = [as_text(entry_id) for entry_id, _ in await client.xrange(DLQ)]
    assert (await moved(client, REPLAYING, entries)).done == 40
    actions = [[change.action for change in (await queue.get(one)).history] for one in ids]
    assert actions == [["discarded", "restored", "replayed"]] * 40


@pytest.mark.parametrize("stream", ["dv:others", "{dv}:events", "dv:events{x}", "{dv:dlq}:x"])
async def test_one_of_another_slot_must_be_replayed_by_itself(
    client: RedisCluster, queue: DeadLetterQueue, stream: str
) -> None:
    ids = [await write(client), await write(client, stream), await write(client)]
    assert await moved(client, REPLAYING, ids) == Moved(1, 0, ids[0], (ids[1], "elsewhere"))
    await queue.replay(ids[1])
    assert await moved(client, REPLAYING, ids[1:]) == Moved(1, 1, ids[2], None)
    assert [(await queue.get(one)).state for one in ids] == ["replayed"] * 3
    [(_, fields)] = await client.xrange(replay_stream(stream))
    assert as_text(fields[b"replay_of"]) == ids[1]


async def test_one_that_another_process_replays_just_now_is_left_to_it(
    client: RedisCluster, queue: DeadLetterQueue
) -> None:
    ids = [await write(client) for _ in range(3)]
    await client.set(letter_mover(DLQ, ids[1]), "another's", px=60_000)
    for many in (REPLAYING, DISCARDING):
        assert (await moved(client, many, ids[1:])) == Moved(0, 0, None, (ids[1], "busy"))
    assert (await queue.get(ids[1])).state == "dead"


async def test_an_operation_replays_letters_into_another_slot_once_though_it_breaks_off(
    client: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The letter's slot and the replay's differ: the event is sent first, and the operation counts where it moves."""
    queue = DeadLetterQueue(client, ELSEWHERE)
    flat = letter_fields()
    ids = [as_text(await client.execute_command("XADD", ELSEWHERE, "*", *flat)) for _ in range(30)]
    breaks = iter([*(False, True) * 3, *(False,) * 1_000])

    async def breaks_off(commands: Any, script: Any, calls: Any) -> Any:
        if b"Move a dead letter" in script.source and next(breaks):
            raise RedisConnectionError("gone")
        return await run(commands, script, calls)

    monkeypatch.setattr("rapids._storage.letter_moves.run", breaks_off)
    started = await queue.operations.start("replay", Selector(filter=LetterFilter()))
    ended = await queue.operations.run_until_ended(started.id)

    assert (ended.state, ended.done, ended.skipped, ended.failed) == ("completed", 30, 0, 0)
    assert [as_text(fields[b"replay_of"]) for _, fields in await client.xrange(replay_stream())] == ids
    assert [(await queue.get(one)).history[-1].operation for one in ids] == [started.id] * 30
    await check_keys(client)
