"""One set of servers for the whole run; every test that asks for it finds it empty.

`pytest --server NAME` runs the tests on another kind: an older or newer server, a Sentinel's fleet, a Cluster. What a
test says of one machine (it asks for its address, or is marked `standalone`) is left out where there are several.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from tests.embedded_scripts import private_temp, run_script
from tests.servers.choice import DEFAULT, NAMES, Servers, is_one_machine, servers_named
from tests.servers.connecting import connected

__all__ = ["private_temp", "run_script"]

NEEDS_SERVER = {"servers", "redis_address", "redis_url", "redis"}
LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", default=DEFAULT, choices=NAMES, help="what the tests run on (%(default)s)")


@pytest.hookimpl(tryfirst=True)  # before pytest's own `-m` looks at the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if NEEDS_SERVER.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.integration)
    if not is_one_machine(config.getoption("--server", DEFAULT)):
        leave_out(config, {item: reason for item in items if (reason := why_standalone(item))})
        items[:] = [item for item in items if why_standalone(item) is None]


def why_standalone(item: pytest.Item) -> str | None:
    """Why the test is about one machine; None where it is not."""
    if marker := item.get_closest_marker("standalone"):
        return str(marker.args[0])
    return "connects to a server by its address" if "redis_url" in getattr(item, "fixturenames", ()) else None


def leave_out(config: pytest.Config, reasons: dict[pytest.Item, str]) -> None:
    if reasons:
        config.hook.pytest_deselected(items=list(reasons))
        config.stash.setdefault(LEFT_OUT, Counter()).update(reasons.values())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for reason, count in config.stash.get(LEFT_OUT, Counter()).most_common():
        terminalreporter.write_line(f"{count} left out, for one machine: {reason}")


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """The run's servers, of the kind `--server` says."""
    servers = servers_named(request.config.getoption("--server", DEFAULT))
    try:
        asyncio.run(servers.start())
        yield servers
    finally:
        servers.close()


@pytest.fixture
def redis_address(servers: Servers) -> str:
    """The address of the empty servers, of whatever kind, as `connect` and `connected` take it."""
    servers.flush_now()
    return servers.url


@pytest.fixture
def redis_url(redis_address: str) -> str:
    """The address of the one empty server, as `redis.asyncio.Redis.from_url` takes it: for tests about one machine."""
    return redis_address


@pytest.fixture
async def redis(redis_address: str) -> AsyncIterator[Redis | RedisCluster]:
    """A client of the empty servers, undecoded, closed afterwards."""
    async with connected(redis_address) as client:
        yield client
