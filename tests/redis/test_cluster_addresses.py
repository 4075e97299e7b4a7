"""A Cluster whose nodes come back under other addresses, behind the name that the client was given."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode

from tests.redis.own_server import OwnServer, own_server
from tests.redis.proxy import proxy_to
from tests.servers.builds import Build
from tests.support import PATIENCE, eventually, free_port
from tests.worker.helpers import DvOrder, make_emitter, make_router, running

SLOTS = 16_384
BUS = 10_000
"""The distance between a node's port and its port for other nodes."""


def port_of_a_node() -> int:
    while (port := free_port()) + BUS > 65_535:
        pass
    return port


@asynccontextmanager
async def one_node_cluster(build: Build) -> AsyncIterator[tuple[OwnServer, str]]:
    """A Cluster of one node, and its address."""
    port = port_of_a_node()
    async with own_server(build, "--port", str(port), "--cluster-enabled", "yes") as server:
        async with Redis.from_url(server.url) as admin:
            await admin.execute_command("CLUSTER", "ADDSLOTS", *range(SLOTS))
            await eventually(lambda: _is_whole(admin))
        yield server, f"redis://127.0.0.1:{port}"


async def _is_whole(admin: Redis) -> bool:
    return b"cluster_state:ok" in (await admin.execute_command("CLUSTER", "INFO"))


async def test_a_cluster_is_found_again_behind_its_name(build: Build) -> None:
    seen: list[int] = []
    async with one_node_cluster(build) as (before, old), one_node_cluster(build) as (_, new), proxy_to(old) as name:
        host, port = name.url.removeprefix("redis://").split(":")
        client = RedisCluster(startup_nodes=[ClusterNode(host, int(port))])
        async with aclosing(client):
            router = make_router(None)

            @router.on(DvOrder)
            async def handle(event: DvOrder) -> None:
                seen.append(event.number)

            emitter = make_emitter(client, max_retries=1_000, retry_delay=0.01, timeout=PATIENCE)
            async with running(router, redis=client):
                await emitter.emit(DvOrder(number=1))
                await eventually(lambda: seen == [1])

                await before.kill()
                await name.cut()
                name.lead_to(new)

                await emitter.emit(DvOrder(number=2))
                await eventually(lambda: seen == [1, 2])
