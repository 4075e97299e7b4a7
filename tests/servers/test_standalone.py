"""One server, in each way it can be reached."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, NoPermissionError

from tests.servers.builds import BUILDS, WITH_TLS
from tests.servers.node import KEEPS_ITS_DATA
from tests.servers.standalone import Standalone

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", BUILDS)
async def test_each_build_has_the_version_its_name_says(name: str) -> None:
    async with Standalone(BUILDS[name]) as server, server.client() as client:
        info = await client.info("server")

    version = info.get("valkey_version") or info["redis_version"]
    assert f"{version}.".startswith(f"{BUILDS[name].version}.")
    assert name.startswith("valkey" if "valkey_version" in info else "redis")
    assert name.rpartition("-")[2] in version


async def test_a_unix_socket_and_no_port() -> None:
    async with Standalone(unix=True) as server:
        async with Redis.from_url(server.url) as client:
            assert await client.ping()
        with pytest.raises(ConnectionError):
            async with Redis(port=server.node.port, retry=Retry(NoBackoff(), 0)) as client:
                await client.ping()


async def test_tls_works_for_clients_that_trust_its_authority() -> None:
    async with Standalone(WITH_TLS, tls=True) as server:
        async with Redis.from_url(server.url) as client:
            assert await client.ping()
        with pytest.raises(ConnectionError, match="certificate"):
            async with Redis.from_url(server.url.partition("?")[0]) as client:
                await client.ping()


async def test_a_user_with_few_rights_is_restricted() -> None:
    reader = {"username": "reader", "password": "secret"}
    async with Standalone(users=("reader on >secret ~a:* +get",)) as server, server.client(**reader) as client:
        assert await client.get("a:1") is None
        with pytest.raises(NoPermissionError):
            await client.set("a:1", "1")


async def test_a_killed_server_comes_back_with_its_data() -> None:
    async with Standalone(settings=KEEPS_ITS_DATA) as server, server.client() as client:
        await client.set("kept", "1")
        server.node.kill()
        assert not server.node.alive
        await server.node.start()
        assert await client.get("kept") == b"1"
        await server.flush()
        assert await client.keys() == []
