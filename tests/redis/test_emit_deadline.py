"""How long an emit may take: redis-py's retries do not run inside ours, and everything together has a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from rapids import BaseEvent, EventEmitter
from rapids._storage.client.connections import OwnConnection, SharedPool
from rapids.exceptions import EmitError
from tests.redis.proxy import Proxy
from tests.support import SOON, eventually

STREAM = "dv:deadline"


class DvTimed(BaseEvent):
    number: int = 0


class Listener:
    """A server that counts its connections, and hangs up or says nothing."""

    def __init__(self, *, hangs_up: bool) -> None:
        self._hangs_up = hangs_up
        self._open: list[asyncio.StreamWriter] = []
        self.connections = 0
        self.port = 0

    async def serve(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._hangs_up:
            writer.transport.abort()
        else:
            self._open.append(writer)

    def close(self) -> None:
        for writer in self._open:
            writer.transport.abort()


@asynccontextmanager
async def listening(*, hangs_up: bool) -> AsyncIterator[Listener]:
    listener = Listener(hangs_up=hangs_up)
    server = await asyncio.start_server(listener.serve, "127.0.0.1", 0)
    listener.port = server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        server.close()
        listener.close()


def plain(port: int) -> Redis:
    """A client as most users make it, with the retries of redis-py."""
    return Redis(port=port)


def of_sentinel(port: int) -> Redis:
    return Sentinel([("127.0.0.1", port)]).master_for("main")


def never_waiting(port: int) -> Redis:
    """Without the pauses of redis-py, so that the test is quick when it fails."""
    return Redis(port=port, retry=Retry(NoBackoff(), 10))


@pytest.mark.parametrize("client_of", [plain, never_waiting, of_sentinel])
async def test_each_try_of_an_emit_connects_once(client_of: Callable[[int], Redis]) -> None:
    async with listening(hangs_up=True) as listener, client_of(listener.port) as client:
        with pytest.raises(EmitError) as raised:
            await EventEmitter(client, STREAM, max_retries=3, retry_delay=0.001).emit(DvTimed())

        assert raised.value.attempts == 3
        assert listener.connections == 3


@pytest.mark.parametrize("client_of", [plain, of_sentinel])
async def test_other_round_trips_and_own_connections_connect_once(client_of: Callable[[int], Redis]) -> None:
    async with listening(hangs_up=True) as listener, client_of(listener.port) as client:
        for commands in (SharedPool(client, "k"), OwnConnection(client, "k", timeout=SOON)):
            before = listener.connections
            with pytest.raises((RedisError, OSError)):
                await commands.send([("PING",)])
            assert listener.connections == before + 1


async def test_the_clients_own_commands_keep_their_retries(proxy: Proxy) -> None:
    async with Redis.from_url(proxy.url, retry=Retry(NoBackoff(), 7)) as client:
        emitter = EventEmitter(client, STREAM)
        await emitter.emit(DvTimed())
        await emitter.drain()
        await emitter.ping()

        connection = await client.connection_pool.get_connection()
        assert proxy.connections == 1, "the pool lent the connection that Rapids used"
        assert connection.retry.get_retries() == 7
        await client.connection_pool.release(connection)

        await proxy.refuse()
        with pytest.raises(EmitError):
            await EventEmitter(client, STREAM, max_retries=1).emit(DvTimed())
        for _ in range(2):  # also the connection that did not work
            assert client.connection_pool.get_available_connection().retry.get_retries() == 7


async def ended(emitting: asyncio.Task[Any]) -> EmitError:
    async with asyncio.timeout(SOON):
        with pytest.raises(EmitError) as raised:
            await emitting
    return raised.value


async def test_an_emit_to_a_silent_server_ends_at_its_deadline_and_says_so() -> None:
    async with listening(hangs_up=False) as listener, Redis(port=listener.port, socket_timeout=None) as client:
        emitter = EventEmitter(client, STREAM, timeout=0.2)
        first, second = asyncio.create_task(emitter.emit(DvTimed())), asyncio.create_task(emitter.emit(DvTimed()))

        for error in (await ended(first), await ended(second)):
            assert error.not_stored == (error.event_id,)
            assert error.unknown == ()
            assert "timeout of 0.2 s" in str(error) or "in time" in str(error)
        async with asyncio.timeout(SOON):
            await emitter.drain()


async def test_an_emit_that_waits_for_its_answer_is_unknown_and_one_behind_it_is_never_sent(
    proxy: Proxy, redis: Redis
) -> None:
    async with Redis.from_url(proxy.url, socket_timeout=None) as client:
        emitter = EventEmitter(client, STREAM, timeout=0.3)
        await emitter.emit(DvTimed(number=0))
        proxy.swallows, proxy.words = True, (b"XADD",)
        under_way = asyncio.create_task(emitter.emit(DvTimed(number=1)))
        await eventually(lambda: proxy.requests_with_words)
        behind = asyncio.create_task(emitter.emit([DvTimed(number=2), DvTimed(number=3)]))

        sent, unsent = await ended(under_way), await ended(behind)
        proxy.swallows = False

        assert (sent.unknown, sent.not_stored) == ((sent.event_id,), ())
        assert len(unsent.not_stored) == 2
        assert unsent.unknown == ()
        await emitter.emit(DvTimed(number=4))
        assert b'"number":2' not in b"".join([fields[b"data"] for _, fields in await redis.xrange(STREAM)])


async def test_the_deadline_covers_all_chunks_of_a_list(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapids.emitter.CHUNK", 1)
    async with Redis.from_url(proxy.url, socket_timeout=None) as client:
        events = [DvTimed(number=number) for number in range(3)]
        emitting = asyncio.create_task(EventEmitter(client, STREAM, timeout=0.3).emit(events))
        proxy.rewrite_reply_to(b"XADD", lambda answer: (setattr(proxy, "swallows", True), answer)[1])

        error = await ended(emitting)

        assert (error.stored, error.unknown, error.not_stored) == tuple((event.id,) for event in events)


async def test_a_caller_that_waits_for_room_has_the_same_deadline(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._emit.group_commit.MAX_QUEUE", 1)
    async with Redis.from_url(proxy.url, socket_timeout=None) as client:
        emitter = EventEmitter(client, STREAM, timeout=0.3)
        await emitter.emit(DvTimed())
        proxy.swallows = True
        emits = [asyncio.create_task(emitter.emit(DvTimed(number=number))) for number in range(4)]

        errors = [await ended(emitting) for emitting in emits]

        assert [len(error.unknown) for error in errors] == [1, 0, 0, 0]
        assert emitter.counters.total("emit_failed", outcome="not_stored") == 3


async def test_no_try_begins_after_the_deadline() -> None:
    async with listening(hangs_up=True) as listener, plain(listener.port) as client:
        emitting = EventEmitter(client, STREAM, timeout=SOON, retry_delay=SOON * 2).emit(DvTimed())
        error = await ended(asyncio.ensure_future(emitting))
        assert error.attempts == 1
        assert listener.connections == 1


async def test_an_emit_waits_for_replicas_no_longer_than_its_deadline(proxy: Proxy) -> None:
    async with Redis.from_url(proxy.url, socket_timeout=None) as client:
        emitter = EventEmitter(client, STREAM, timeout=0.3, replicas=1, max_retries=1_000, retry_delay=0.01)
        error = await ended(asyncio.ensure_future(emitter.emit(DvTimed())))
        assert error.not_stored == ()
