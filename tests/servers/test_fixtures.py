"""What `--server` gives a test, whichever it is: part of the delivery suite on each."""

from __future__ import annotations

import subprocess
import sys

import pytest
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from tests.servers.choice import NAMES, Servers, is_one_machine, servers_named
from tests.servers.client import connected
from tests.servers.cluster import Cluster
from tests.servers.sentinel import SentinelFleet


@pytest.mark.parametrize("time", ["first", "second"])
async def test_the_servers_are_empty_and_take_writes_in_every_slot(
    redis: Redis | RedisCluster, redis_address: str, time: str
) -> None:
    for number in range(30):
        assert await redis.xlen(f"key:{number}") == 0, time
        await redis.xadd(f"key:{number}", {"n": number})
    async with connected(redis_address) as other:
        assert [await other.xlen(f"key:{number}") for number in range(30)] == [1] * 30


async def test_the_client_is_of_the_servers_kind(redis: Redis | RedisCluster, servers: Servers) -> None:
    assert isinstance(redis, RedisCluster) == isinstance(servers, Cluster)
    if isinstance(servers, SentinelFleet):
        assert await redis.client_id()
        assert redis.connection_pool.service_name == "primary"


@pytest.mark.standalone("for the test of this mark")
def test_a_test_about_one_machine_runs_on_one(servers: Servers, request: pytest.FixtureRequest) -> None:
    assert is_one_machine(request.config.getoption("--server"))


@pytest.mark.standalone("is about pytest itself")
@pytest.mark.parametrize("server", ["sentinel", "cluster"])
@pytest.mark.slow
def test_a_test_about_one_machine_is_left_out_on_several_with_its_reason(
    pytestconfig: pytest.Config, server: str
) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--server", server, __file__]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=pytestconfig.rootpath).stdout
    assert "take_writes_in_every_slot" in output
    assert "about_one_machine_runs" not in output
    assert "1 left out, for one machine: for the test of this mark" in output
    assert "skipped" not in output


def test_only_names_of_servers_are_accepted() -> None:
    for name in NAMES:
        servers = servers_named(name)
        servers.close()
    with pytest.raises(ValueError, match=r"--server must be one of redis-6.2, .*, not 'redis-1.0'"):
        servers_named("redis-1.0")
