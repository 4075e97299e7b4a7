"""One set of servers for each process of the run (`-n` starts several); a test that asks for them finds them empty.

`pytest --server NAME` runs the tests on another kind: an older or newer server, a Sentinel's fleet, a Cluster. What a
test says of one machine (it asks for its address, or is marked `standalone`) is left out where there are several.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import pkgutil
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

import rapids
import rapids_fastapi
from tests.embedded.scripts import private_temp, run_script
from tests.model.profiles import register_profiles
from tests.printed_scripts import run_printed
from tests.redis.proxy import Proxy, proxy_to
from tests.servers.builds import BUILDS, Build
from tests.servers.choice import DEFAULT, NAMES, Servers, build_of, is_one_machine, servers_named
from tests.servers.client import connected

__all__ = ["private_temp", "run_printed", "run_script"]

register_profiles()

NEEDS_SERVER = {"servers", "redis_address", "redis_url", "redis", "build", "rapids_server"}
OF_ONE_MACHINE = {"redis_url": "connects to a server by its address", "build": "starts a server of its own"}
SLOW = {"build", "private_temp", "run_printed", "run_script", "shared_cluster", "start_worker"}
"""Fixtures that start processes: a test that uses one is slow."""
OF_PROCESSES = "COVERAGE_PROCESS_CONFIG"
"""The variable that makes a new process measure its coverage: https://coverage.readthedocs.io/en/latest/subprocess.html"""
LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--server", default=DEFAULT, choices=NAMES, help="what the tests run on (%(default)s)")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """The processes of `--numprocesses auto`: one for each core, but at least four: tests mostly wait."""
    return max(4, os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Look for no garbage while tests are collected: there is none, and each look takes longer than the last one.
    Later looks leave out what is there by then. Nor measure coverage: it takes half as long again."""
    gc.disable()
    try:
        import_measured()
        with unmeasured():
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


def is_measured() -> bool:
    """Whether coverage of this thread is measured, by tracing it."""
    return type(sys.gettrace()).__module__.startswith("coverage")


def import_measured() -> None:
    """If coverage is measured, import the packages now: some of their lines run only then."""
    for package in (rapids, rapids_fastapi) if is_measured() else ():
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(".__main__"):
                importlib.import_module(module.name)


@contextmanager
def unmeasured() -> Iterator[None]:
    """Measure no coverage, in this thread and in the threads and processes that it starts."""
    if not is_measured():
        yield
        return
    tracer, of_threads, of_processes = sys.gettrace(), threading.gettrace(), os.environ.pop(OF_PROCESSES, None)
    sys.settrace(None)
    threading.settrace(None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        sys.settrace(tracer)
        threading.settrace(of_threads)  # type: ignore[arg-type]
        if of_processes is not None:
            os.environ[OF_PROCESSES] = of_processes


@pytest.hookimpl(tryfirst=True)  # before pytest's own `-m` looks at the marks
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if twice := [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]:
        raise pytest.UsageError(f"of tests with one id, xdist runs only one: {', '.join(twice)}")
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & NEEDS_SERVER:
            item.add_marker(pytest.mark.integration)
        if fixtures & SLOW:
            item.add_marker(pytest.mark.slow)
        if "shared_cluster" in fixtures:
            item.add_marker(pytest.mark.xdist_group("cluster"))
    server = config.getoption("--server", DEFAULT)
    reasons = {item: reason for item in items if (reason := why_not_on(server, item))}
    leave_out(config, reasons)
    items[:] = [item for item in items if item not in reasons]
    if hasattr(config, "workerinput"):  # of xdist, which hands tests out in this order: they end together
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    with unmeasured() if item.get_closest_marker("unmeasured") else nullcontext():
        return (yield)


def why_not_on(server: str, item: pytest.Item) -> str | None:
    """Why the test has nothing to say of these servers; None where it has."""
    for marker in item.iter_markers("since"):
        if version_of(build_of(server)) < tuple(map(int, marker.args[0].split("."))):
            return f"needs {marker.args[0]}: before, a server {marker.args[1]}"
    if is_one_machine(server):
        return None
    if marker := item.get_closest_marker("standalone"):
        return f"for one machine: {marker.args[0]}"
    asked_for = getattr(item, "fixturenames", ())
    return next((f"for one machine: {reason}" for name, reason in OF_ONE_MACHINE.items() if name in asked_for), None)


def version_of(build: Build) -> tuple[int, ...]:
    return tuple(map(int, build.version.split(".")))


def leave_out(config: pytest.Config, reasons: dict[pytest.Item, str]) -> None:
    if reasons:
        config.hook.pytest_deselected(items=list(reasons))
        config.stash.setdefault(LEFT_OUT, Counter()).update(reasons.values())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """With `-n`, each worker collects every test: what one of them left out is what the run left out."""
    node.config.stash[LEFT_OUT] = Counter(getattr(node, "workeroutput", {}).get("left_out", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = dict(session.config.stash.get(LEFT_OUT, {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for reason, count in config.stash.get(LEFT_OUT, Counter()).most_common():
        terminalreporter.write_line(f"{count} left out, {reason}")


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    """The run's servers, of the kind `--server` says."""
    servers = servers_named(request.config.getoption("--server", DEFAULT))
    try:
        asyncio.run(servers.start())
        yield servers
    finally:
        servers.close()


@pytest.fixture(scope="session")
def build(request: pytest.FixtureRequest) -> Build:
    """What servers of a test's own are started from: for tests about one machine."""
    return BUILDS[request.config.getoption("--server", DEFAULT)]


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


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    """A way to the empty server, which a test can break."""
    async with proxy_to(redis_url) as proxy:
        yield proxy


@pytest.fixture
async def through(proxy: Proxy) -> AsyncIterator[Redis]:
    """A client of the empty server, over the proxy."""
    async with Redis.from_url(proxy.url) as client:
        yield client
