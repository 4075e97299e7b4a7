"""One Cluster for all tests of it; each finds it empty and whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from redis.asyncio import RedisCluster

from tests.servers.cluster import Cluster, slot_of
from tests.worker.helpers import STREAM

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


@pytest.fixture(
    params=[
        "one server",
        *(pytest.param(name, marks=CLUSTER) for name in ("Cluster", "Cluster, letters in another slot")),
    ]
)
def place(request: pytest.FixtureRequest) -> Place:
    """One after another, each place where letters are moved in a way of its own."""
    same_slot, other_slot = f"{{{STREAM}}}:dlq", "dv:dlq"
    if request.param == "one server":
        return Place(request.getfixturevalue("redis_address"), same_slot)
    cluster: Cluster = request.getfixturevalue("shared_cluster")
    cluster.flush_now()
    if request.param == "Cluster":
        return Place(cluster.url, same_slot)
    assert slot_of(other_slot) != slot_of(STREAM)
    return Place(cluster.url, other_slot)
