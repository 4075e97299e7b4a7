"""One embedded server for the whole run; every test that asks for it finds it empty."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis as redis_sync
from redis.asyncio import Redis

from rapids.embedded import EmbeddedServer
from tests.embedded_scripts import private_temp, run_script

__all__ = ["private_temp", "run_script"]

NEEDS_SERVER = {"redis_server_url", "redis_url", "redis"}


@pytest.hookimpl(tryfirst=True)  # before pytest's own `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if NEEDS_SERVER.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """The address of the run's server. Use `redis_url` unless the test never writes."""
    with EmbeddedServer() as server:
        yield server.url


@pytest.fixture
def redis_url(redis_server_url: str) -> str:
    """The address of an empty server, as `redis.asyncio.Redis.from_url` takes it."""
    with redis_sync.Redis.from_url(redis_server_url) as client:
        client.flushall()
        client.script_flush()
        client.function_flush()
    return redis_server_url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A client of the empty server, undecoded, closed afterwards."""
    client = Redis.from_url(redis_url)
    try:
        yield client
    finally:
        await client.aclose()
