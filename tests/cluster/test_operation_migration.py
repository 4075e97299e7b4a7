"""An operation whose slot is on the move: its scripts reach for keys that the node has given away, or never had."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import RedisCluster

from rapids import DeadLetterQueue, LetterFilter
from rapids._storage import keys
from rapids.dead_letters import Selector
from tests.dead_letters.helpers import letter_fields
from tests.servers.cluster import Cluster
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, as_text

LETTERS = keys.default_dlq(STREAM)
ALL = Selector(filter=LetterFilter())


async def test_a_replay_continues_after_its_slot_moved(
    cluster: Cluster, client: RedisCluster, caplog: pytest.LogCaptureFixture
) -> None:
    queue = DeadLetterQueue(client, LETTERS)
    ids = [as_text(await client.execute_command("XADD", LETTERS, "*", *letter_fields())) for _ in range(30)]
    await queue.discard(ids[0])
    await queue.restore(ids[0])  # so that nearly all keys are there: where some are not, the node answers TRYAGAIN
    await queue.discard(ids[1])
    await client.hset(keys.letters_failed_again(LETTERS), "another", "letter")

    operation = await queue.operations.start("replay", ALL, rate=100)
    migration = await cluster.migration(LETTERS)
    await migration.begin()
    carried_out = asyncio.create_task(queue.operations.run_until_ended(operation.id))
    await eventually(lambda: "Redis unavailable, retrying" in caplog.text)
    while await migration.move_keys(1):
        pass
    await migration.finish()
    ended = await asyncio.wait_for(carried_out, 30)

    assert (ended.state, ended.done, ended.errors) == ("completed", 29, ())
    replays = await client.xrange(keys.replay_stream(STREAM, GROUP))
    assert sorted(as_text(fields[b"replay_of"]) for _, fields in replays) == sorted({*ids} - {ids[1]})
