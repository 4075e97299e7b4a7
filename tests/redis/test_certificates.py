"""Certificates that are replaced on disk, as by a service that renews them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from rapids._storage.client.connections import Client, SharedPool, call
from tests.servers.builds import WITH_TLS
from tests.servers.certificates import make_certificates
from tests.servers.node import KEEPS_ITS_DATA
from tests.servers.site import HOST
from tests.servers.standalone import Standalone
from tests.support import PATIENCE, eventually
from tests.worker.helpers import STREAM, DvOrder, make_emitter, make_router, running

pytestmark = pytest.mark.slow

AT_ONCE = 5


@asynccontextmanager
async def one_server() -> AsyncGenerator[tuple[Standalone, Any]]:
    async with (
        Standalone(WITH_TLS, tls=True, settings=KEEPS_ITS_DATA) as server,
        Redis.from_url(server.url) as client,
    ):
        yield server, client


@asynccontextmanager
async def a_cluster() -> AsyncGenerator[tuple[Standalone, Any]]:
    """Of one node."""
    settings = KEEPS_ITS_DATA | {"cluster-enabled": "yes", "tls-cluster": "yes"}
    async with Standalone(WITH_TLS, tls=True, settings=settings) as server:
        assert server.certificates is not None
        node = server.node
        await node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)

        async def is_whole() -> bool:
            return b"cluster_state:ok" in await node.ask("CLUSTER", "INFO")

        await eventually(is_whole)
        trusted = str(server.certificates.authority)
        async with aclosing(RedisCluster(host=HOST, port=node.port, ssl=True, ssl_ca_certs=trusted)) as client:
            yield server, client


Kind = Callable[[], AbstractAsyncContextManager[tuple[Standalone, Any]]]
KINDS: list[Kind] = [one_server, a_cluster]


def folder_of(server: Standalone) -> Path:
    assert server.certificates is not None
    return server.certificates.authority.parent


async def ping(client: Client) -> None:
    """Over several connections of the pool."""
    answers = await asyncio.gather(*(call(SharedPool(client, STREAM), "PING") for _ in range(AT_ONCE)))
    assert answers == [b"PONG"] * AT_ONCE


@pytest.mark.parametrize("kind", KINDS)
async def test_everything_trusts_an_authority_that_was_replaced_while_it_runs(kind: Kind) -> None:
    seen: list[int] = []
    async with kind() as (server, client):
        router = make_router(None)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)

        emitter = make_emitter(client, max_retries=1_000, retry_delay=0.01, timeout=PATIENCE)
        async with running(router, redis=client):
            await emitter.emit(DvOrder(number=1))
            await ping(client)
            await eventually(lambda: seen == [1])

            make_certificates(folder_of(server))
            await server.node.restart()

            await emitter.emit(DvOrder(number=2))
            await eventually(lambda: seen == [1, 2])
            await ping(client)


async def test_a_cluster_that_the_users_own_command_lost_is_found_with_the_new_authority() -> None:
    async with a_cluster() as (server, client):
        emitter = make_emitter(client, max_retries=1_000, retry_delay=0.01, timeout=PATIENCE)
        await ping(client)
        make_certificates(folder_of(server))
        await server.node.restart()
        with pytest.raises((RedisError, RedisClusterException)):
            await client.get("a key")  # redis-py begins again, with the certificates that it knows
        await emitter.emit(DvOrder())
        await ping(client)


@pytest.mark.parametrize("kind", KINDS)
async def test_an_authority_that_was_wrong_is_read_again(kind: Kind) -> None:
    async with kind() as (server, client):
        authority = server.certificates.authority if server.certificates else Path()
        right = authority.read_bytes()
        (other := folder_of(server) / "other").mkdir()
        authority.write_bytes(make_certificates(other).authority.read_bytes())
        with pytest.raises((RedisError, OSError), match="certificate verify failed"):
            await ping(client)

        authority.write_bytes(right)
        await ping(client)
