"""The emitter on a connection that breaks, through a proxy that breaks it."""

from __future__ import annotations

import asyncio
import time

import orjson
import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from rapids.exceptions import EmitError
from tests.redis.proxy import Proxy
from tests.support import PATIENCE, SOON
from tests.worker.helpers import everywhere

STREAM = "dv:through-proxy"


class DvProxied(BaseEvent):
    number: int = 0


async def numbers(redis: Redis) -> list[int]:
    return [orjson.loads(fields[b"data"])["number"] for _, fields in await redis.xrange(STREAM)]


async def test_a_refused_connection_is_retried_with_growing_delays(
    proxy: Proxy, through: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    really_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        if seconds:
            pauses.append(seconds)
        await really_sleep(0)

    await proxy.refuse()
    monkeypatch.setattr("rapids._emit.write.asyncio.sleep", sleep)
    with pytest.raises(EmitError):
        await EventEmitter(through, STREAM, max_retries=5, retry_delay=0.1).emit(DvProxied())
    monkeypatch.undo()

    assert len(pauses) == 4
    for pause, longest in zip(pauses, [0.1, 0.2, 0.4, 0.8], strict=True):
        assert 0.75 * longest <= pause <= longest


async def test_the_error_after_the_last_attempt_describes_the_attempts(proxy: Proxy, through: Redis) -> None:
    await proxy.refuse()
    events = [DvProxied(), DvProxied()]

    with pytest.raises(EmitError) as caught:
        await EventEmitter(through, STREAM, max_retries=2, retry_delay=0.001).emit(events)

    error = caught.value
    assert (error.event_type, error.event_id, error.stream) == ("dv.proxied", events[0].id, STREAM)
    assert error.attempts == 2
    assert isinstance(error.cause, ConnectionError | OSError | Exception)
    assert error.stored == ()
    assert error.not_stored == tuple(event.id for event in events)


async def test_max_retries_counts_all_attempts(proxy: Proxy, through: Redis) -> None:
    await proxy.refuse()
    with pytest.raises(EmitError) as caught:
        await EventEmitter(through, STREAM, max_retries=1, retry_delay=60).emit(DvProxied())
    assert caught.value.attempts == 1


async def test_an_emit_survives_an_outage_shorter_than_its_retries(proxy: Proxy, through: Redis, redis: Redis) -> None:
    await proxy.refuse()
    emitting = asyncio.create_task(
        EventEmitter(through, STREAM, max_retries=50, retry_delay=0.01, timeout=PATIENCE).emit(DvProxied())
    )
    await asyncio.sleep(0.05)
    assert not emitting.done()

    await proxy.accept()

    entry_id = await asyncio.wait_for(emitting, 30)
    assert [stored.decode() for stored, _ in await redis.xrange(STREAM)] == [entry_id]


async def test_a_connection_that_was_closed_while_idle_is_opened_again(
    proxy: Proxy, through: Redis, redis: Redis
) -> None:
    emitter = EventEmitter(through, STREAM, retry_delay=0.001)
    for number in range(5):
        await emitter.emit(DvProxied(number=number))
        await proxy.cut()
    assert sorted(set(await numbers(redis))) == list(range(5))


async def test_a_lost_answer_never_loses_the_event(proxy: Proxy, through: Redis, redis: Redis) -> None:
    emitter = EventEmitter(through, STREAM, retry_delay=0.001)
    await emitter.emit(DvProxied(number=0))
    proxy.lose_reply_to(b"XADD")

    await emitter.emit(DvProxied(number=1))

    assert set(await numbers(redis)) == {0, 1}  # whether 1 is there twice is for the next issue to settle


async def test_an_event_whose_answer_was_lost_is_not_reported_as_missing(
    proxy: Proxy, through: Redis, redis: Redis
) -> None:
    """It was sent, and may be stored: `not_stored` would be a lie."""
    emitter = EventEmitter(through, STREAM, max_retries=1)
    await emitter.emit(DvProxied(number=0))
    proxy.lose_reply_to(b"XADD")
    event = DvProxied(number=1)

    with pytest.raises(EmitError) as caught:
        await emitter.emit(event)

    assert await numbers(redis) == [0, 1]
    assert (caught.value.not_stored, caught.value.unknown) == ((), (event.id,))
    assert "unknown whether stored" in str(caught.value)


async def test_the_chunks_before_the_failed_one_are_stored(proxy: Proxy, through: Redis, redis: Redis) -> None:
    events = [DvProxied(number=number) for number in range(2_000)]
    proxy.lose_reply_to(b'{"number":1500}')

    with pytest.raises(EmitError) as caught:
        await EventEmitter(through, STREAM, max_retries=1, maxlen=None).emit(events)

    error = caught.value
    assert error.stored == tuple(event.id for event in events[:1_000])
    assert set(error.stored) | set(error.not_stored) | set(error.unknown) == {event.id for event in events}
    assert len(error.stored) + len(error.not_stored) + len(error.unknown) == 2_000
    assert error.event_id == events[1_000].id


@pytest.mark.standalone("who is the master is not for one server to say")
async def test_temporary_errors_of_the_server_are_retried(redis: Redis) -> None:
    """A replica refuses writes until it is made a master again; so it goes after a failover."""
    await redis.replicaof("127.0.0.1", "1")
    try:
        emitting = asyncio.create_task(
            EventEmitter(redis, STREAM, max_retries=100, retry_delay=0.01, timeout=PATIENCE).emit(DvProxied())
        )
        await asyncio.sleep(0.05)
        assert not emitting.done()
    finally:
        await redis.replicaof("NO", "ONE")
    await asyncio.wait_for(emitting, 30)
    assert await redis.xlen(STREAM) == 1


async def test_a_full_server_is_retried(redis: Redis) -> None:
    await redis.config_set("maxmemory", "1", **everywhere(redis))
    try:
        with pytest.raises(EmitError, match="maxmemory") as caught:
            await EventEmitter(redis, STREAM, max_retries=2, retry_delay=0.001).emit(DvProxied())
        assert caught.value.attempts == 2
    finally:
        await redis.config_set("maxmemory", "0", **everywhere(redis))
    await EventEmitter(redis, STREAM).emit(DvProxied())


async def test_an_answer_that_takes_too_long_is_an_outage(proxy: Proxy, redis: Redis) -> None:
    async with Redis.from_url(proxy.url, socket_timeout=0.1) as hasty:
        emitter = EventEmitter(hasty, STREAM, max_retries=50, retry_delay=0.01, timeout=PATIENCE)
        await emitter.emit(DvProxied(number=0))
        proxy.delay = 0.5
        started = time.monotonic()
        emitting = asyncio.create_task(emitter.emit(DvProxied(number=1)))
        await asyncio.sleep(0.2)
        proxy.delay = 0
        await asyncio.wait_for(emitting, 30)
        assert time.monotonic() - started < SOON
    assert set(await numbers(redis)) == {0, 1}
