"""Everything a server or network can do to a running router and to an emitter: each is survived, with two log lines."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from rapids import BaseEvent, EventEmitter
from rapids.exceptions import EmitError, RedisUnavailableError
from tests.redis.own_server import OwnServer, own_server
from tests.redis.proxy import Proxy, proxy_to
from tests.servers.builds import Build
from tests.support import PATIENCE, eventually
from tests.worker.helpers import STREAM, check_keys, letters, make_idle_router, make_router, running, until_settled

Outage: TypeAlias = Callable[["Site"], AbstractAsyncContextManager[None]]


class OuSeen(BaseEvent):
    number: int = 0


class Site:
    """A server of its own, a proxy before it, a client that goes through the proxy, and one that does not."""

    def __init__(self, server: OwnServer, direct: Redis, proxy: Proxy, client: Redis) -> None:
        self.server, self.direct, self.proxy, self.client = server, direct, proxy, client


@pytest.fixture
async def site(build: Build, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    tried = request.getfixturevalue("outage") if "outage" in request.fixturenames else None
    # A busy machine may be slow: a short time-out only where nothing else shows the outage.
    timeout = 1.0 if tried in (swallowed, paused) else PATIENCE
    monkeypatch.setattr("rapids._worker.worker.ANSWER_TIMEOUT", timeout)
    async with (
        own_server(build) as server,
        proxy_to(server.url) as proxy,
        Redis.from_url(server.url) as direct,
        Redis.from_url(proxy.url, socket_timeout=timeout) as client,
    ):
        yield Site(server, direct, proxy, client)


# --- the outages ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def refused(site: Site) -> AsyncGenerator[None]:
    await site.proxy.refuse()
    yield
    await site.proxy.accept()


@asynccontextmanager
async def swallowed(site: Site) -> AsyncGenerator[None]:
    """Connections stay, and no answer comes: a time-out."""
    site.proxy.swallows = True
    yield
    site.proxy.swallows = False
    await site.proxy.cut()


@asynccontextmanager
async def paused(site: Site) -> AsyncGenerator[None]:
    """For longer than every time-out there is."""
    await site.direct.execute_command("CLIENT", "PAUSE", 5_000, "ALL")
    yield
    await site.direct.ping()


@asynccontextmanager
async def restarted(site: Site) -> AsyncGenerator[None]:
    await site.server.kill()
    yield
    await site.server.start()


@asynccontextmanager
async def loading(site: Site) -> AsyncGenerator[None]:
    """A server that answers, and says that it is not ready yet."""
    async with site.direct.pipeline(transaction=False) as filling:
        for number in range(1_000):
            filling.set(f"filler:{number}", "x" * 200)
        await filling.execute()
    await site.direct.bgrewriteaof()  # into a form during whose loading the server answers
    await eventually(lambda: _rewritten(site.direct))
    await site.server.kill()
    slowly = ("--key-load-delay", "1200", "--loading-process-events-interval-bytes", "1024")
    await site.server.launch(*slowly)
    await eventually(lambda: _is(site, "loading"))
    yield
    await eventually(lambda: _is(site, "ready"))
    await site.direct.delete(*(f"filler:{number}" for number in range(1_000)))


async def _rewritten(redis: Redis) -> bool:
    state = await redis.info("persistence")
    return not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]


async def _is(site: Site, wanted: str) -> bool:
    async with Redis.from_url(site.server.url, retry=Retry(NoBackoff(), 0)) as redis:
        try:
            await redis.ping()
        except BusyLoadingError:
            return wanted == "loading"
        except RedisError:
            return False
        return wanted == "ready"


@asynccontextmanager
async def readonly(site: Site) -> AsyncGenerator[None]:
    """The master of before is a replica: that is what a connection made before a failover leads to."""
    await site.direct.replicaof("127.0.0.1", "1")
    yield
    await site.direct.replicaof("NO", "ONE")


@asynccontextmanager
async def misconf(site: Site) -> AsyncGenerator[None]:
    """It could not save, and takes no writes until it can."""
    dump = (await site.direct.config_get("dbfilename"))["dbfilename"]
    await site.direct.config_set("save", "3600 1000000")
    site.server.folder.joinpath(dump).mkdir()
    await site.direct.bgsave()
    await eventually(lambda: _saved(site.direct, "err"))
    yield
    site.server.folder.joinpath(dump).rmdir()
    await site.direct.bgsave()
    await eventually(lambda: _saved(site.direct, "ok"))


async def _saved(redis: Redis, how: str) -> bool:
    state = await redis.info("persistence")
    return state["rdb_last_bgsave_status"] == how and not state["rdb_bgsave_in_progress"]


@asynccontextmanager
async def noreplicas(site: Site) -> AsyncGenerator[None]:
    await site.direct.config_set("min-replicas-to-write", 1)
    yield
    await site.direct.config_set("min-replicas-to-write", 0)


@asynccontextmanager
async def oom(site: Site) -> AsyncGenerator[None]:
    await site.direct.config_set("maxmemory", 1)
    yield
    await site.direct.config_set("maxmemory", 0)


LOADING = pytest.param(loading, marks=pytest.mark.since("7.0", "has no setting to answer often while it loads"))
FOR_ALL = [refused, swallowed, paused, restarted, LOADING, readonly, misconf, noreplicas]
OUTAGES = [*FOR_ALL, oom]


# --- the router -----------------------------------------------------------------------------------------------------


class OutageLog:
    """What the log says of outages."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def lines(self) -> list[str]:
        ours = [record for record in self._caplog.records if record.name.startswith("rapids")]
        warnings = [record.getMessage() for record in ours if record.levelno >= logging.WARNING]
        return [line.split(":")[0].split(" after ")[0] for line in warnings]

    def begun(self) -> bool:
        return "Redis unavailable, retrying" in self.lines()


@pytest.mark.parametrize("outage", OUTAGES)
async def test_a_running_router_survives_each_outage(
    site: Site, outage: Outage, caplog: pytest.LogCaptureFixture
) -> None:
    router, seen, log = make_router(site.client, block_ms=100, claim_min_idle_ms=3_000), list[int](), OutageLog(caplog)
    go_on = asyncio.Event()

    @router.on(OuSeen)
    async def handle(event: OuSeen) -> None:
        seen.append(event.number)
        if event.number == 1:
            await go_on.wait()
        if event.number == 2 and seen.count(2) < 2:
            raise ValueError

    emitter = EventEmitter(site.direct, STREAM, max_retries=500, retry_delay=0.02, timeout=PATIENCE)
    async with running(router):
        await emitter.emit([OuSeen(number=number) for number in range(5)])
        await eventually(lambda: seen == [0, 1])
        async with outage(site):
            if outage is oom:  # neither reads nor acknowledgements need memory: what fails does
                go_on.set()
            await eventually(log.begun)
        go_on.set()
        await emitter.emit([OuSeen(number=number) for number in range(5, 10)])
        await eventually(lambda: set(seen) == set(range(10)))
        await until_settled(site.direct)
        await eventually(lambda: "Redis is back" in log.lines())
    assert log.lines().count("Redis unavailable, retrying") == 1, log.lines()
    assert log.lines().count("Redis is back") == 1, log.lines()
    assert sorted(seen) == sorted([*range(10), 2])
    assert await letters(site.direct) == []
    await check_keys(site.direct)


async def test_readonly_drops_the_connection_so_that_the_name_is_asked_again(site: Site) -> None:
    """A connection kept would always lead to the old master."""
    seen = list[int]()
    router = make_router(site.client, block_ms=100)

    @router.on(OuSeen)
    async def handle(event: OuSeen) -> None:
        seen.append(event.number)

    emitter = EventEmitter(site.client, STREAM, max_retries=500, retry_delay=0.02, timeout=PATIENCE)
    async with running(router):
        await emitter.emit(OuSeen(number=1))
        await eventually(lambda: seen == [1])
        before = site.proxy.connections
        async with readonly(site):
            emitting = asyncio.create_task(emitter.emit(OuSeen(number=2)))
            await eventually(lambda: site.proxy.connections >= before + 2)  # the reader's, and the emitter's
        await emitting
        await eventually(lambda: seen == [1, 2])


@pytest.mark.parametrize("outage", [refused, swallowed, LOADING])
async def test_a_router_does_not_start_during_an_outage_and_says_why(site: Site, outage: Outage) -> None:
    async with outage(site):
        with pytest.raises(RedisUnavailableError):
            await asyncio.wait_for(make_idle_router(site.client).start(), 30)


# --- the emitter ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_emitter_survives_each_outage_and_stores_once(site: Site, outage: Outage) -> None:
    emitter = EventEmitter(site.client, STREAM, max_retries=500, retry_delay=0.02, timeout=PATIENCE)
    await emitter.emit(OuSeen(number=0))
    async with outage(site):
        emitting = asyncio.create_task(emitter.emit([OuSeen(number=1), OuSeen(number=2)]))
        await asyncio.wait([emitting], timeout=0.2)
        assert not emitting.done()
    ids = await asyncio.wait_for(emitting, 30)
    stored = [(entry_id.decode(), fields[b"data"]) for entry_id, fields in await site.direct.xrange(STREAM)]
    assert [data for _, data in stored] == [b'{"number":0}', b'{"number":1}', b'{"number":2}']
    assert ids == [entry_id for entry_id, _ in stored[1:]]


@pytest.mark.parametrize("outage", OUTAGES)
async def test_an_emitter_that_stops_retrying_reports_the_state_of_the_events(site: Site, outage: Outage) -> None:
    emitter = EventEmitter(site.client, STREAM, max_retries=2, retry_delay=0.001)
    await emitter.emit(OuSeen(number=0))
    event = OuSeen(number=1)
    async with outage(site):
        with pytest.raises(EmitError) as caught:
            await emitter.emit(event)
    error = caught.value
    assert error.attempts == 2
    assert len(error.stored) + len(error.not_stored) + len(error.unknown) == 1
    is_there = any(fields[b"id"] == event.id.encode() for _, fields in await site.direct.xrange(STREAM))
    assert event.id in (error.stored if is_there else error.not_stored) or error.unknown
    if outage not in (refused, swallowed, paused, restarted, loading):  # in those the connection died under the command
        assert error.not_stored == (event.id,)
