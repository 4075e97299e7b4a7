"""A fleet over the run's empty server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from tests.mixed_fleet.fleet import Fleet, fleet_on


@pytest.fixture
async def fleet(redis_url: str, redis: Redis) -> AsyncIterator[Fleet]:
    async with fleet_on(redis_url, redis) as fleet:
        yield fleet
