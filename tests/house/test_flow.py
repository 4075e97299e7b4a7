"""How many modules run while an event is emitted, delivered or replayed."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from tests.house import flow
from tests.house.limits import PASSED

pytestmark = pytest.mark.standalone("is about the code, which is the same on every server")


@pytest.mark.parametrize("way", [flow.emit, flow.delivery, flow.bulk_replay], ids=lambda way: way.__name__)
async def test_an_event_passes_few_modules(redis: Redis, way: flow.Way) -> None:
    calls = await way(redis)
    assert len(calls.passed) <= PASSED[way.__name__], calls.passed
