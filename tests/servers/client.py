"""A client for the address of any kind of server, for tests and the processes they start."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool


def connect(url: str, **options: Any) -> Redis | RedisCluster:
    """A client as a user would make it, who keeps it until the process ends."""
    parts = urlsplit(url)
    match parts.scheme:
        case "redis+cluster":
            return RedisCluster(startup_nodes=[ClusterNode(*at) for at in _addresses(parts.netloc)], **options)
        case "redis+sentinel":
            return Sentinel(_addresses(parts.netloc)).master_for(parts.path.strip("/"), **options)
        case _:
            return Redis.from_url(url, **options)


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Redis | RedisCluster]:
    """The same for a block, after which every connection of it is closed."""
    client = connect(url, **options)
    try:
        yield client
    finally:
        await client.aclose()
        pool = getattr(client, "connection_pool", None)
        if isinstance(pool, SentinelConnectionPool):
            for sentinel in pool.sentinel_manager.sentinels:
                await sentinel.aclose()


def _addresses(hosts: str) -> list[tuple[str, int]]:
    return [(host, int(port)) for host, _, port in (part.partition(":") for part in hosts.split(","))]
