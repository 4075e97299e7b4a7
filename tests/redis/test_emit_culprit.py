"""An event that the server refuses fails alone: the emits of other callers in the same write are stored, once."""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import orjson
import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from rapids.exceptions import EmitError
from tests.redis.own_server import own_server
from tests.servers.builds import Build

STREAM = "dv:culprit"
TOO_LARGE = "x" * 2_000_000


class DvSized(BaseEvent):
    number: int = 0
    text: str = ""


async def stored(redis: Redis) -> Counter[int]:
    return Counter(orjson.loads(fields[b"data"])["number"] for _, fields in await redis.xrange(STREAM))


async def refuse_large(redis: Redis, by: str) -> None:
    if by == "maxmemory":
        used = (await redis.info("memory"))["used_memory"]
        await redis.config_set("maxmemory", used + 1_500_000)
    else:
        await redis.config_set(by, 1_048_576)


@pytest.mark.parametrize("max_retries", [1, 3])
@pytest.mark.parametrize("refused_by", ["proto-max-bulk-len", "client-query-buffer-limit", "maxmemory"])
async def test_only_the_event_that_is_too_large_fails(build: Build, refused_by: str, max_retries: int) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        emitter = EventEmitter(redis, STREAM, max_retries=max_retries, retry_delay=0.001)
        await emitter.emit(DvSized(number=-1))
        await refuse_large(redis, refused_by)

        numbers = [*range(50), -2, *range(50, 100)]
        texts = {-2: TOO_LARGE}
        results = await asyncio.gather(
            *[emitter.emit(DvSized(number=number, text=texts.get(number, ""))) for number in numbers],
            return_exceptions=True,
        )

        failed = [number for number, result in zip(numbers, results, strict=True) if isinstance(result, Exception)]
        assert failed == [-2]
        assert isinstance(error := results[50], EmitError)
        assert error.stored == ()
        assert await stored(redis) == dict.fromkeys(range(-1, 100), 1)


async def test_the_rest_of_a_list_waits_for_its_large_event(build: Build) -> None:
    """Otherwise what comes after it would be stored before it, if a later try stores it."""
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        emitter = EventEmitter(redis, STREAM, max_retries=2, retry_delay=0.001)
        await emitter.emit(DvSized(number=-1))
        await refuse_large(redis, "maxmemory")

        one = asyncio.create_task(emitter.emit(DvSized(number=-3)))
        many = [DvSized(number=0), DvSized(number=1, text=TOO_LARGE), DvSized(number=2)]
        emits = await asyncio.gather(one, emitter.emit(many), emitter.emit(DvSized(number=3)), return_exceptions=True)

        assert isinstance(error := emits[1], EmitError)
        assert error.stored == (many[0].id,)
        assert error.not_stored == (many[1].id, many[2].id)
        assert await stored(redis) == dict.fromkeys((-3, -1, 0, 3), 1)


async def test_the_error_of_a_refused_event_says_why(build: Build) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        await refuse_large(redis, "maxmemory")
        with pytest.raises(EmitError, match=re.compile("OOM|memory")):
            await EventEmitter(redis, STREAM, max_retries=1).emit(DvSized(text=TOO_LARGE))
