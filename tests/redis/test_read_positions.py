"""Samples of a stream and a group of it."""

from __future__ import annotations

from redis.asyncio import Redis

from rapids._storage import read_positions
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from rapids._storage.read_positions import Sample
from tests.worker.helpers import GROUP, STREAM

SOURCE = Source(STREAM, GROUP)


async def sample(redis: Redis) -> Sample | None:
    *_, reply = await SharedPool(redis, SOURCE.stream).send(
        read_positions.commands(SOURCE, batch_size=2, with_script=True)
    )
    return read_positions.sample_in(reply)


async def test_a_missing_stream_has_no_sample(redis: Redis) -> None:
    assert await sample(redis) is None
    await redis.xgroup_create(STREAM, "another", "0", mkstream=True)
    assert await sample(redis) is None


async def test_an_empty_stream(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    seen = await sample(redis)
    assert seen is not None
    assert (seen.length, seen.first, seen.last, seen.next, seen.later) == (0, None, None, None, None)
    assert (seen.last_assigned, seen.delivered, seen.is_trimmed) == ("0-0", "0-0", False)


async def test_a_stream_that_is_half_read(redis: Redis) -> None:
    for number in range(1, 7):
        await redis.xadd(STREAM, {"a": "b"}, id=f"{number}-1")
    await redis.xgroup_create(STREAM, "another", "4-1")
    await redis.xgroup_create(STREAM, GROUP, "0")
    fresh = await sample(redis)
    assert fresh is not None
    assert (fresh.next, fresh.later, fresh.read) == ("1-1", "3-1", None), "what a new group has read is not counted"

    await redis.xreadgroup(GROUP, "worker", {STREAM: ">"}, count=2)
    await redis.xdel(STREAM, "6-1")
    await redis.set(SOURCE.trimming, "1")
    seen = await sample(redis)
    assert seen is not None
    assert (seen.length, seen.first, seen.last, seen.last_assigned) == (5, "1-1", "5-1", "6-1")
    assert (seen.delivered, seen.next, seen.is_trimmed) == ("2-1", "3-1", True)
    counts = seen.added is not None
    assert (seen.added, seen.read, seen.later) == ((6, 2, None) if counts else (None, None, "5-1"))


async def test_a_stream_that_is_read_to_its_end(redis: Redis) -> None:
    await redis.xadd(STREAM, {"a": "b"}, id="1-1")
    await redis.xgroup_create(STREAM, GROUP, "$")
    seen = await sample(redis)
    assert seen is not None
    assert (seen.first, seen.last, seen.next, seen.later) == ("1-1", "1-1", None, None)
