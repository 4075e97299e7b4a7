"""Operations on a Cluster: many letters a step where streams share a slot, one by one where not; through a failover."""

from __future__ import annotations

from collections import Counter

from redis.asyncio import RedisCluster

from rapids import DeadLetterQueue, LetterFilter
from rapids._storage.keys import letter_mover
from rapids.dead_letters import Operation, Selector, default_dlq
from tests.dead_letters.helpers import write
from tests.dead_letters.test_carrying_out import replayed, write_many
from tests.dead_letters.test_operations import ended, run
from tests.servers.cluster import Cluster
from tests.support import eventually
from tests.worker.helpers import DLQ, STREAM, as_text, check_keys

ALL = Selector(filter=LetterFilter())
BESIDE = default_dlq(STREAM)


async def letters_beside(client: RedisCluster, count: int) -> list[str]:
    """Letters in the slot of their stream."""
    await write_many(client, count)
    rows = await client.xrange(DLQ)
    async with client.pipeline(transaction=False) as pipe:
        for letter_id, fields in rows:
            pipe.xadd(BESIDE, fields, id=letter_id)
        await pipe.execute()
    await client.delete(DLQ)
    return [as_text(letter_id) for letter_id, _ in rows]


async def test_beside_their_stream_letters_are_moved_together(client: RedisCluster) -> None:
    queue = DeadLetterQueue(client, BESIDE)
    ids = await letters_beside(client, 1_000)
    begun = await queue.operations.start("replay", ALL)
    result = await queue.operations.run_until_ended(begun.id)
    assert (result.state, result.done, result.failed) == ("completed", 1_000, 0)
    assert await replayed(client) == ids


async def test_elsewhere_they_are_moved_one_by_one_and_once(client: RedisCluster) -> None:
    queue = DeadLetterQueue(client, DLQ)
    ids = await write_many(client, 300)
    begun = await queue.operations.start("replay", ALL)
    async with run(queue.operations), run(DeadLetterQueue(client, DLQ).operations):
        result = await ended(queue.operations, begun.id)
    assert (result.state, result.done, result.failed) == ("completed", 300, 0)
    assert await replayed(client) == ids
    await check_keys(client)


async def test_a_letter_that_another_process_replays_just_now_is_waited_for(client: RedisCluster) -> None:
    queue = DeadLetterQueue(client, DLQ)
    ids = [await write(client) for _ in range(3)]
    await client.set(letter_mover(DLQ, ids[1]), "another", px=300)
    begun = await queue.operations.start("discard", ALL)
    result = await queue.operations.run_until_ended(begun.id)
    assert (result.done, result.skipped, result.failed) == (3, 0, 0)


async def test_a_replay_elsewhere_that_broke_off_is_not_sent_twice(client: RedisCluster) -> None:
    queue = DeadLetterQueue(client, DLQ)
    ids = await write_many(client, 200)
    begun = await queue.operations.start("replay", ALL, rate=100)

    async def some() -> bool:
        return (await queue.operations.get(begun.id)).done >= 20

    async with run(queue.operations):
        await eventually(some)
        await queue.operations.pause(begun.id)
    await queue.operations.resume(begun.id)
    assert (await queue.operations.run_until_ended(begun.id)).done == 200
    assert Counter(await replayed(client)) == Counter(ids)


async def test_it_goes_on_where_the_new_master_is(cluster: Cluster, client: RedisCluster) -> None:
    queue = DeadLetterQueue(client, BESIDE)
    ids = await letters_beside(client, 3_000)
    begun: Operation = await queue.operations.start("replay", ALL, rate=1_500)

    async def some() -> bool:
        return (await queue.operations.get(begun.id)).done >= 400

    async with run(queue.operations):
        await eventually(some)
        master = await cluster.kill_master_of(STREAM)
        await cluster.until_failed_over(STREAM, master)
        result = await ended(queue.operations, begun.id)
    # What was not replicated yet is as if it had never been, the moves and their counts alike.
    assert (result.state, result.done, result.skipped, result.failed) == ("completed", 3_000, 0, 0)
    assert await replayed(client) == ids
