"""The Cluster does what the tests of Rapids ask of it."""

from __future__ import annotations

import pytest
from redis.exceptions import AskError, MovedError

from tests.servers.cluster import Cluster
from tests.support import eventually

pytestmark = pytest.mark.slow

KEY = "{orders}:kept"


async def test_the_client_follows_a_failover() -> None:
    async with Cluster() as cluster, cluster.client() as client:
        assert len(await cluster.masters()) == 3
        await client.set(KEY, "1")
        master = await cluster.master_of(KEY)
        await eventually(lambda: client.wait(1, 100, target_nodes=client.get_node_from_key(KEY)))

        old, new = await cluster.failover(KEY)
        assert old is master
        assert await client.get(KEY) == b"1"

        assert await cluster.kill_master_of(KEY) is new
        assert await cluster.until_failed_over(KEY, new) is old
        assert await client.get(KEY) == b"1"

        await new.restart()
        await cluster.until_whole()
        assert new in await cluster.replicas_of(KEY)

        await cluster.flush()
        assert await client.keys(target_nodes="primaries") == []


async def test_a_slot_moves_while_the_cluster_works() -> None:
    async with Cluster(replicas=0) as cluster, cluster.client() as client:
        for number in range(25):
            await client.set(f"{{orders}}:{number}", number)
        migration = await cluster.migration(KEY)

        await migration.begin()
        await migration.move("{orders}:7")
        with pytest.raises(AskError):
            await migration.source.ask("GET", "{orders}:7")
        with pytest.raises(MovedError):
            await migration.target.ask("GET", "{orders}:7")
        assert await client.get("{orders}:7") == b"7"
        assert await migration.move_keys(10) == 10
        while await migration.move_keys():
            pass
        await migration.finish()

        assert await cluster.until_served(KEY, by=[migration.target]) is migration.target
        with pytest.raises(MovedError):
            await migration.source.ask("GET", "{orders}:7")
        assert [await client.get(f"{{orders}}:{number}") for number in range(25)] == [b"%d" % n for n in range(25)]
        assert await cluster.move_slot(KEY, to=migration.source) is migration.source
        assert await client.get("{orders}:24") == b"24"
