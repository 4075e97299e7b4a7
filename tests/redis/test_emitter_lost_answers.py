"""The emitter when an answer is lost, late or impossible: nothing is stored twice or reported wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import orjson
import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from rapids._emit import write
from rapids._storage import appends
from rapids._storage.client.connections import ServerClient, SharedPool
from rapids.exceptions import EmitError
from tests.redis.own_server import own_server
from tests.redis.proxy import Proxy, proxy_to
from tests.servers.builds import Build
from tests.support import PATIENCE, eventually, free_port

STREAM = "ou:ambiguous"


class OuSent(BaseEvent):
    number: int = 0


@pytest.fixture
async def through(proxy: Proxy) -> AsyncIterator[Redis]:
    async with Redis.from_url(proxy.url, socket_timeout=0.3) as client:
        yield client


async def numbers(redis: Redis, stream: str = STREAM) -> list[int]:
    return [orjson.loads(fields[b"data"])["number"] for _, fields in await redis.xrange(stream)]


async def ids(redis: Redis) -> list[str]:
    return [entry_id.decode() for entry_id, _ in await redis.xrange(STREAM)]


def events(*numbers: int) -> list[OuSent]:
    return [OuSent(number=number) for number in numbers]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_lost_answer_stores_nothing_twice(proxy: Proxy, through: Redis, redis: Redis, begun: bool) -> None:
    emitter = EventEmitter(through, STREAM, retry_delay=0.001)
    if begun:
        await emitter.emit(OuSent(number=-1))
    for number in range(5):
        proxy.lose_reply_to(b"XADD")
        entry_id = await emitter.emit(OuSent(number=number))
        assert entry_id == (await ids(redis))[-1]
    assert await numbers(redis) == [*([-1] if begun else []), *range(5)]


async def test_a_lost_answer_to_a_list_stores_none_of_it_twice(proxy: Proxy, through: Redis, redis: Redis) -> None:
    emitter, twice = EventEmitter(through, STREAM, retry_delay=0.001), OuSent(number=7)
    proxy.lose_reply_to(b"XADD")
    given = await emitter.emit([*events(*range(100)), twice, twice])
    assert await numbers(redis) == [*range(100), 7, 7]
    assert given == await ids(redis)


async def test_a_first_attempt_that_arrives_after_the_retry_is_not_carried_out(
    proxy: Proxy, through: Redis, redis: Redis
) -> None:
    """It is on its way all the time: only that its connection is killed keeps it from being stored as well."""
    emitter = EventEmitter(through, STREAM, max_retries=10, retry_delay=0.01)
    await emitter.emit(OuSent(number=0))
    proxy.hold_up(b"XADD")

    entry_id = await asyncio.wait_for(emitter.emit(OuSent(number=1)), 30)
    assert proxy.holds
    proxy.let_through()

    await emitter.emit(OuSent(number=2))
    assert await numbers(redis) == [0, 1, 2]
    assert (await ids(redis))[1] == entry_id


async def test_entries_that_others_stored_are_not_mistaken_for_it(proxy: Proxy, through: Redis, redis: Redis) -> None:
    emitter, other = EventEmitter(through, STREAM, retry_delay=0.01), EventEmitter(redis, STREAM)
    await emitter.emit(OuSent(number=0))
    proxy.hold_up(b"XADD")
    emitting = asyncio.create_task(emitter.emit(OuSent(number=1)))
    await eventually(lambda: proxy.holds)
    await other.emit(events(*range(10, 400)))
    await asyncio.wait_for(emitting, 30)
    proxy.let_through()
    await emitter.emit(OuSent(number=2))
    assert sorted(await numbers(redis)) == [0, 1, 2, *range(10, 400)]


async def test_more_entries_than_can_be_looked_at_make_it_unknown(
    proxy: Proxy, through: Redis, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(appends.find_events.__kwdefaults__, "most", 200)
    emitter, event = EventEmitter(through, STREAM, retry_delay=0.01), OuSent(number=1)
    await emitter.emit(OuSent(number=0))
    proxy.hold_up(b"XADD")
    emitting = asyncio.create_task(emitter.emit(event))
    await eventually(lambda: proxy.holds)
    await EventEmitter(redis, STREAM).emit(events(*range(10, 400)))
    with pytest.raises(EmitError) as caught:
        await asyncio.wait_for(emitting, 30)
    assert (caught.value.stored, caught.value.not_stored, caught.value.unknown) == ((), (), (event.id,))


async def test_an_answer_that_hides_the_others_stores_nothing_twice(proxy: Proxy, through: Redis, redis: Redis) -> None:
    """redis-py takes LOADING for a broken connection, and drops the answers that came with it."""

    def second_is_loading(reply: bytes) -> bytes:
        first, _, third = (b"$" + each for each in reply.split(b"$")[1:])
        return first + b"-LOADING Redis is loading the dataset in memory\r\n" + third

    emitter = EventEmitter(through, STREAM, retry_delay=0.001)
    await emitter.emit(OuSent(number=0))
    proxy.rewrite_reply_to(b"XADD", second_is_loading)
    given = await emitter.emit(events(1, 2, 3))
    assert await numbers(redis) == [0, 1, 2, 3]
    assert given == (await ids(redis))[1:]


@pytest.mark.parametrize("trimmed", [False, True])
async def test_an_entry_that_was_trimmed_before_the_look_is_unknown(
    proxy: Proxy, through: Redis, redis: Redis, trimmed: bool
) -> None:
    """Not among the entries that came since: but it may have been, and been trimmed away."""
    emitter, event = EventEmitter(through, STREAM, retry_delay=0.01), OuSent(number=1)
    await emitter.emit(OuSent(number=0))
    proxy.hold_up(b"XADD")
    emitting = asyncio.create_task(emitter.emit(event))
    await eventually(lambda: proxy.holds)
    await EventEmitter(redis, STREAM).emit(events(2, 3, 4))
    if not trimmed:
        await asyncio.wait_for(emitting, 30)
        return
    await redis.xtrim(STREAM, maxlen=2, approximate=False)
    with pytest.raises(EmitError, match="trimmed") as caught:
        await asyncio.wait_for(emitting, 30)
    assert (caught.value.stored, caught.value.not_stored, caught.value.unknown) == ((), (), (event.id,))


async def test_a_connection_is_killed_only_on_the_run_of_the_server_that_numbered_it(
    redis: Redis, redis_url: str
) -> None:
    """A server that was started again counts from one: the number belongs to another client by then."""
    commands = SharedPool(redis, STREAM)
    async with Redis.from_url(redis_url, single_connection_client=True) as other:
        number = await other.client_id()
        await appends.kill_client(commands, ServerClient(number, b"an earlier run"))
        assert number in {int(client["id"]) for client in await redis.client_list()}

        run_id = (await redis.info("server"))["run_id"].encode()
        await appends.kill_client(commands, ServerClient(number, run_id))
        assert number not in {int(client["id"]) for client in await redis.client_list()}


async def test_replies_that_get_lost_for_good_make_it_unknown(proxy: Proxy, through: Redis, redis: Redis) -> None:
    emitter, lost = EventEmitter(through, STREAM, max_retries=2, retry_delay=0.001), events(1, 2)
    await emitter.emit(OuSent(number=0))
    proxy.swallows = True
    with pytest.raises(EmitError) as caught:
        await emitter.emit(lost)
    error = caught.value
    assert (error.stored, error.not_stored, set(error.unknown)) == ((), (), {event.id for event in lost})
    assert await numbers(redis) == [0, 1, 2]


async def test_replies_that_get_lost_before_anything_was_sent_make_it_not_stored(proxy: Proxy, through: Redis) -> None:
    proxy.swallows = True
    event = OuSent()
    with pytest.raises(EmitError) as caught:
        await EventEmitter(through, STREAM, max_retries=2, retry_delay=0.001).emit(event)
    assert (caught.value.stored, caught.value.not_stored, caught.value.unknown) == ((), (event.id,), ())


async def test_a_paused_server_is_waited_for_and_stores_once(redis: Redis, redis_url: str) -> None:
    """Longer than the time-out of every attempt but the last ones."""
    async with Redis.from_url(redis_url, socket_timeout=0.1) as hasty:
        emitter = EventEmitter(hasty, STREAM, max_retries=50, retry_delay=0.01, timeout=PATIENCE)
        await emitter.emit(OuSent(number=0))
        await redis.execute_command("CLIENT", "PAUSE", 700, "ALL")
        await asyncio.wait_for(emitter.emit(events(1, 2)), 30)
    assert await numbers(redis) == [0, 1, 2]


async def test_connections_killed_all_the_time_store_nothing_twice(redis: Redis, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        emitter = EventEmitter(client, STREAM, max_retries=200, retry_delay=0.001, timeout=PATIENCE)
        emitting = asyncio.gather(*(_one_by_one(emitter, range(first, 1_000, 10)) for first in range(10)))
        seen = kills = 0
        while not emitting.done():
            if (stored := await redis.xlen(STREAM)) > seen:  # however slow the machine is, it gets on between two kills
                await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                seen, kills = stored, kills + 1
            await asyncio.sleep(0.01)
        await emitting
    assert kills
    assert sorted(await numbers(redis)) == list(range(1_000))


async def _one_by_one(emitter: EventEmitter, numbers: range) -> None:
    for number in numbers:
        await emitter.emit(OuSent(number=number))


# --- replicas -------------------------------------------------------------------------------------------------------


@pytest.mark.standalone("there is no replica")
async def test_without_a_replica_an_event_is_reported_as_stored(redis: Redis) -> None:
    event = OuSent(number=1)
    with pytest.raises(EmitError, match="0 of 1 replicas") as caught:
        await EventEmitter(redis, STREAM, replicas=1, max_retries=3).emit(event)
    assert (caught.value.stored, caught.value.not_stored, caught.value.unknown) == ((event.id,), (), ())
    assert await numbers(redis) == [1]


@pytest.mark.parametrize("attempts", [2, 3])
async def test_an_event_stored_without_confirmation_by_a_replica_is_not_done(
    proxy: Proxy, through: Redis, attempts: int
) -> None:
    """Its answer is lost; it is found to be stored; then the replicas cannot be asked for."""
    event = OuSent(number=1)
    through.connection_pool.connection_kwargs["socket_timeout"] = 5  # the server waits a second for the replicas
    proxy.lose_reply_to(b"XADD")
    proxy.rewrite_reply_to(b"XSETID", lambda _: b"-NOREPLICAS LOADING\r\n")  # that of WAIT comes later
    emitter = EventEmitter(through, STREAM, replicas=1, max_retries=attempts, retry_delay=0.001)
    with pytest.raises(EmitError, match="LOADING" if attempts == 2 else "0 of 1 replicas") as caught:
        await emitter.emit(event)
    assert (caught.value.stored, caught.value.not_stored, caught.value.unknown) == ((event.id,), (), ())


@pytest.fixture
async def replicated(build: Build) -> AsyncIterator[tuple[Redis, Redis]]:
    """A server and its replica."""
    port = str(free_port())
    async with (
        own_server(build, "--port", port, "--repl-diskless-sync-delay", "0") as master,
        own_server(build) as copy,
        Redis.from_url(master.url) as redis,
        Redis.from_url(copy.url) as replica,
    ):
        await replica.replicaof("127.0.0.1", port)
        await eventually(lambda: _is_up(replica))
        yield redis, replica


async def _is_up(replica: Redis) -> bool:
    return (await replica.info("replication"))["master_link_status"] == "up"


async def test_a_replica_has_it_when_emit_returns(replicated: tuple[Redis, Redis]) -> None:
    redis, replica = replicated
    emitter = EventEmitter(redis, STREAM, replicas=1)
    await emitter.emit(events(*range(50)))
    assert await numbers(replica) == list(range(50))
    with pytest.raises(EmitError, match="1 of 2 replicas") as caught:
        await EventEmitter(redis, STREAM, replicas=2).emit(events(50, 51))
    assert len(caught.value.stored) == 2


async def test_a_lost_answer_does_not_skip_the_wait_for_replicas(replicated: tuple[Redis, Redis]) -> None:
    """Looked up and found, it is stored: whether replicas have it is another question, and still to be answered."""
    redis, replica = replicated
    path = redis.connection_pool.connection_kwargs["path"]
    async with proxy_to(f"unix://{path}") as proxy, Redis.from_url(proxy.url) as through:
        emitter = EventEmitter(through, STREAM, replicas=1, retry_delay=0.001)
        await emitter.emit(OuSent(number=0))
        proxy.lose_reply_to(b"XADD")
        await emitter.emit(OuSent(number=1))
        assert await numbers(replica) == [0, 1]

        await replica.replicaof("NO", "ONE")
        proxy.lose_reply_to(b"XADD")
        with pytest.raises(EmitError, match="0 of 1 replicas") as caught:
            await emitter.emit(OuSent(number=2))
        assert len(caught.value.stored) == 1
    assert await numbers(redis) == [0, 1, 2]


async def test_trimmed_older_entries_do_not_matter(
    proxy: Proxy, through: Redis, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last entry before the write is trimmed, but an older one is left: so none is missing since then."""
    monkeypatch.setattr(write, "CLOCK_LEAP", 0.0)
    emitter, event = EventEmitter(through, STREAM, retry_delay=0.01), OuSent(number=1)
    await emitter.emit(OuSent(number=0))
    await EventEmitter(redis, STREAM).emit(OuSent(number=2))
    await asyncio.sleep(0.01)  # the server reports the age of an entry in milliseconds
    proxy.hold_up(b"XADD")
    emitting = asyncio.create_task(emitter.emit(event))
    await eventually(lambda: proxy.holds)
    await redis.xtrim(STREAM, maxlen=1, approximate=False)
    assert await asyncio.wait_for(emitting, 30)
    assert await numbers(redis) == [2, 1]
