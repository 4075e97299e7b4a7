"""One Cluster for all tests of it; each finds it empty and whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from redis.asyncio import RedisCluster

from tests.servers.cluster import Cluster
from tests.worker.helpers import DLQ

CLUSTER = (pytest.mark.slow, pytest.mark.xdist_group("cluster"))


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    made = Cluster(node_timeout=1_000)
    try:
        asyncio.run(made.start())
        yield made
    finally:
        made.close()


@pytest.fixture
async def cluster(shared_cluster: Cluster) -> AsyncIterator[Cluster]:
    """Three masters with a replica each. What a test kills or pauses comes back afterwards."""
    await shared_cluster.flush()
    try:
        yield shared_cluster
    finally:
        for node in shared_cluster.nodes:
            if not node.alive:
                await node.start()
            node.resume()
        await shared_cluster.until_whole()
        await shared_cluster.until_served("dv:events", by=shared_cluster.nodes)


@pytest.fixture
async def client(cluster: Cluster) -> AsyncIterator[RedisCluster]:
    """As users make one, but that silence is noticed sooner."""
    made = cluster.client(socket_timeout=2.0)
    try:
        yield made
    finally:
        await made.aclose()


@dataclass(frozen=True)
class Place:
    """Empty servers, and where dead letters of `STREAM` go there."""

    url: str
    dlq: str


@pytest.fixture(params=["one server", pytest.param("Cluster", marks=CLUSTER)])
def place(request: pytest.FixtureRequest) -> Place:
    """One after the other, each kind of server."""
    if request.param == "one server":
        return Place(request.getfixturevalue("redis_address"), DLQ)
    cluster: Cluster = request.getfixturevalue("shared_cluster")
    cluster.flush_now()
    return Place(cluster.url, DLQ)
