"""Clients of a run's servers, as a user makes them for an address of each kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlencode

from redis.asyncio import Redis, RedisCluster

from rapids.clients import open_client


@asynccontextmanager
async def opened(url: str, **options: float) -> AsyncIterator[Redis | RedisCluster]:
    """A client for the block; `options` as in `Redis.from_url`."""
    if url.startswith("unix:"):
        async with Redis.from_url(url, **options) as client:  # type: ignore[arg-type]
            yield client
    else:
        async with open_client(f"{url}?{urlencode(options)}" if options else url) as client:
            yield client
