"""Names of servers are looked up while handlers fill the thread pool in which an event loop looks names up."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import pytest
import uvloop
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import ConnectionError as RedisConnectionError

from rapids._storage.client.connections import Client, OwnConnection, SharedPool, call
from tests.redis.proxy import Proxy, proxy_to
from tests.servers.builds import NEWEST, WITH_TLS
from tests.servers.cluster import Cluster
from tests.servers.sentinel import SERVICE, SentinelFleet
from tests.servers.standalone import Standalone
from tests.support import PATIENCE, SOON, eventually, full_thread_pool
from tests.worker.helpers import STREAM, DvOrder, make_emitter, make_router, running

NAME = "redis.rapids.test"


class Names:
    """How names are looked up during a test: `NAME` leads to this machine, by an address where nobody is first."""

    def __init__(self) -> None:
        self.real = socket.getaddrinfo
        self.threads: list[str] = []
        """The threads of the lookups."""
        self.may_answer = threading.Event()
        self.may_answer.set()

    def look_up(self, host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
        if host not in (NAME, "localhost"):
            return self.real(host, port, *arguments, **options)
        self.threads.append(threading.current_thread().name)
        assert self.may_answer.wait(PATIENCE)
        return [found for one in ("::1", "127.0.0.1") for found in self.real(one, port, *arguments, **options)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    monkeypatch.setattr(socket, "getaddrinfo", names.look_up)
    return names


async def test_a_router_comes_back_by_name_while_handlers_fill_the_threads(proxy: Proxy, names: Names) -> None:
    seen: list[int] = []
    async with Redis(host=NAME, port=proxy.port) as client:
        router, emitter = make_router(None), make_emitter(client, timeout=PATIENCE)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)

        async with running(router, redis=client):
            await emitter.emit(DvOrder(number=1))
            await eventually(lambda: seen == [1])

            async with full_thread_pool():
                await proxy.cut()
                await emitter.emit(DvOrder(number=2))
                await eventually(lambda: seen == [1, 2])
                await emitter.ping()


@asynccontextmanager
async def over_tls() -> AsyncIterator[Client]:
    async with (
        Standalone(WITH_TLS, tls=True) as server,
        Redis.from_url(server.url.replace("127.0.0.1", "localhost")) as client,
    ):
        yield client


@asynccontextmanager
async def of_sentinel() -> AsyncIterator[Client]:
    async with SentinelFleet(NEWEST, replicas=0, sentinels=1) as fleet:
        sentinel = Sentinel([(NAME, fleet.sentinels[0].port)])
        async with sentinel.master_for(SERVICE) as client:
            yield client
        await sentinel.sentinels[0].aclose()


@asynccontextmanager
async def of_a_cluster() -> AsyncIterator[Client]:
    async with (
        Cluster(NEWEST, masters=1, replicas=0) as cluster,
        aclosing(RedisCluster(startup_nodes=[ClusterNode(NAME, cluster.nodes[0].port)])) as client,
    ):
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("client_of", [over_tls, of_sentinel, of_a_cluster])
async def test_every_kind_of_client_connects_by_name_while_handlers_fill_the_threads(
    client_of: Callable[[], AbstractAsyncContextManager[Client]], names: Names
) -> None:
    async with client_of() as client:
        own = OwnConnection(client, STREAM, timeout=SOON)
        async with full_thread_pool():
            assert await call(SharedPool(client, STREAM), "PING") == b"PONG"
            assert await call(own, "PING") == b"PONG"
        assert names.threads
        await own.close()


async def test_a_name_that_does_not_exist_is_named_in_the_error() -> None:
    async with Redis(host="missing.invalid") as client:
        with pytest.raises(RedisConnectionError, match=r"missing\.invalid"):
            await call(SharedPool(client, STREAM), "PING")


async def test_connections_that_look_up_the_same_name_share_a_lookup(proxy: Proxy, names: Names) -> None:
    names.may_answer.clear()
    async with Redis(host=NAME, port=proxy.port) as client:
        connections = [OwnConnection(client, STREAM, timeout=SOON) for _ in range(20)]
        asked = [asyncio.create_task(call(connection, "PING")) for connection in connections]
        await eventually(lambda: names.threads)
        for _ in range(100):
            await asyncio.sleep(0)
        asked[0].cancel()
        await asyncio.wait(asked[:1])
        names.may_answer.set()

        assert await asyncio.gather(*asked[1:]) == [b"PONG"] * 19
        assert len(names.threads) == 1
        for connection in connections:
            await connection.close()


async def test_other_lookups_of_the_application_stay_as_they_are(proxy: Proxy, names: Names) -> None:
    async with Redis(host=NAME, port=proxy.port) as client:
        await call(SharedPool(client, STREAM), "PING")
        await asyncio.get_running_loop().getaddrinfo(NAME, proxy.port)
        rapids, others = names.threads
        assert others.startswith("asyncio")
        assert not rapids.startswith("asyncio")


async def connect_by_name(url: str) -> bytes:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    async with proxy_to(url) as proxy, Redis(host="localhost", port=proxy.port) as client, full_thread_pool():
        return await call(SharedPool(client, STREAM), "PING")


def test_uvloop_has_threads_of_its_own_for_names(redis_url: str) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(connect_by_name(redis_url)) == b"PONG"
