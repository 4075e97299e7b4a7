"""The sentinels' fleet does what the tests of Rapids ask of it."""

from __future__ import annotations

import pytest

from tests.servers.sentinel import SentinelFleet
from tests.support import eventually

pytestmark = pytest.mark.slow


async def test_the_client_follows_the_master() -> None:
    async with SentinelFleet() as fleet, fleet.client() as client:
        await client.set("kept", "1")
        await eventually(lambda: client.wait(2, 100))

        old, new = await fleet.failover()
        assert old is not new
        assert (await old.ask("ROLE"))[0] == b"slave"
        assert await client.get("kept") == b"1"

        assert await fleet.kill_master() is new
        newest = await fleet.until_failed_over(new)
        assert newest is not new
        assert newest in fleet.nodes
        assert await client.get("kept") == b"1"

        await fleet.flush()
        assert await client.keys() == []
