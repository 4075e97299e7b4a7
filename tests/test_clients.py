"""What clients made by an address are like, without a server."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import RedisCluster
from redis.asyncio.sentinel import SentinelConnectionPool

from rapids.clients import open_client


async def options_of(url: str) -> list[dict[str, Any]]:
    """What its connections are made with; of a Sentinel's, those to the sentinels, too."""
    async with open_client(url) as client:
        if isinstance(client, RedisCluster):
            return [client.get_connection_kwargs()]
        pool = client.connection_pool
        asked = pool.sentinel_manager.sentinels if isinstance(pool, SentinelConnectionPool) else []
        return [pool.connection_kwargs, *(one.connection_pool.connection_kwargs for one in asked)]


@pytest.mark.parametrize("url", ["redis+sentinel://a:1,b:2/primary", "redis+cluster://a:1,b:2"])
async def test_a_dead_node_is_waited_for_less_long_if_another_one_may_take_over(url: str) -> None:
    """Without a limit, which redis-py has by itself only since version 8, an emit would never end."""
    assert {options["socket_timeout"] for options in await options_of(url)} == {5.0}
    assert {options["socket_connect_timeout"] for options in await options_of(url)} == {5.0}


async def test_the_address_may_say_otherwise() -> None:
    own, *_ = await options_of("redis+sentinel://a:1/primary?socket_timeout=1.5")
    assert own["socket_timeout"] == 1.5
    (of_all,) = await options_of("redis+cluster://a:1?socket_timeout=1.5")
    assert of_all["socket_timeout"] == 1.5
