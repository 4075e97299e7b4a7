"""Operations on a Cluster, also through a failover."""

from __future__ import annotations

from redis.asyncio import RedisCluster

from rapids import DeadLetterQueue, NonRetryableError
from rapids.dead_letters import Canary, Operation
from tests.dead_letters.operation_runs import ALL, ended, replayed, run, write_many
from tests.servers.cluster import Cluster
from tests.support import eventually
from tests.worker.helpers import DLQ, STREAM, DvOrder, make_router, running


async def test_letters_are_moved_together(client: RedisCluster) -> None:
    queue = DeadLetterQueue(client, DLQ)
    ids = await write_many(client, 1_000)
    begun = await queue.operations.start("replay", ALL)
    result = await queue.operations.run_until_ended(begun.id)
    assert (result.state, result.done, result.failed) == ("completed", 1_000, 0)
    assert await replayed(client) == ids


async def test_a_canary_knows_the_outcomes_of_its_steps(client: RedisCluster) -> None:
    queue, router = DeadLetterQueue(client, DLQ), make_router(client)

    @router.on(DvOrder, name="pay")
    async def pay(event: DvOrder) -> None:
        if event.number == 7:
            raise NonRetryableError("no")

    ids = await write_many(client, 40)
    async with running(router):
        begun = await queue.operations.start("replay", ALL, canary=Canary(share=0.0))
        stopped = await queue.operations.run_until_ended(begun.id)
        [failed] = await queue.failed_again(stopped)
        await queue.operations.resume(begun.id)
        ended = await queue.operations.run_until_ended(begun.id)
    assert (stopped.is_stopped, failed.failure.letter_id) == (True, ids[7])
    assert (ended.state, ended.done) == ("completed", 40)


async def test_an_operation_continues_on_the_new_master_after_a_failover(
    cluster: Cluster, client: RedisCluster
) -> None:
    queue = DeadLetterQueue(client, DLQ)
    ids = await write_many(client, 3_000)
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
