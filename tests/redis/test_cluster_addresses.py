"""A Cluster whose nodes come back under other addresses, behind the name that the client was given."""

from __future__ import annotations

from contextlib import aclosing, suppress

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import RedisClusterException, RedisError

from rapids._storage.client.connections import SharedPool, call
from tests.redis.proxy import proxy_to
from tests.servers.builds import NEWEST
from tests.servers.cluster import Cluster
from tests.support import PATIENCE, eventually
from tests.worker.helpers import STREAM, DvOrder, make_emitter, make_router, running

pytestmark = pytest.mark.slow


def one_node() -> Cluster:
    return Cluster(NEWEST, masters=1, replicas=0)


@pytest.mark.parametrize("loser", ["rapids", "the user's command"])
async def test_a_cluster_is_found_again_behind_its_name(loser: str) -> None:
    seen: list[int] = []
    async with (
        one_node() as before,
        one_node() as after,
        proxy_to(before.nodes[0].url) as name,
        aclosing(RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", name.port)])) as client,
    ):
        router = make_router(None)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)

        emitter = make_emitter(client, max_retries=1_000, retry_delay=0.01, timeout=PATIENCE)

        async def is_found() -> bool:
            with suppress(RedisError):
                await emitter.ping()
                return True
            return False

        async with running(router, redis=client):
            await emitter.emit(DvOrder(number=1))
            await eventually(lambda: seen == [1])
            assert [node.port for node in client.get_nodes()] != [name.port]

            before.nodes[0].kill()
            await name.cut()
            if loser != "rapids":
                with pytest.raises((RedisError, RedisClusterException)):
                    await client.get("a key")  # redis-py closes the client, and forgets the node
            name.lead_to(after.nodes[0].url)

            await eventually(is_found)  # the answer to an emit that is under way could not be looked up elsewhere
            await emitter.emit(DvOrder(number=2))
            await eventually(lambda: seen == [1, 2])
            assert await call(SharedPool(client, STREAM), "PING") == b"PONG"
