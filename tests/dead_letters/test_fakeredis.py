"""A user's fast tests: the server is fakeredis, whose scripts lack some of what a server's have."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fakeredis import FakeAsyncRedis

from rapids import DeadLetterQueue, LetterFilter
from rapids.dead_letters import Selector
from tests.support import eventually
from tests.worker.helpers import DLQ, DvOrder, make_emitter, make_router, running

PAY = LetterFilter(handler="pay")


@pytest.fixture
async def fake() -> AsyncIterator[FakeAsyncRedis]:
    client = FakeAsyncRedis()
    yield client
    await client.aclose()


async def test_letters_are_found_moved_and_brought_back(fake: FakeAsyncRedis) -> None:
    handled: list[int] = []
    is_broken = True
    router = make_router(fake, max_deliveries=1)

    @router.on(DvOrder, retries=0)
    async def pay(event: DvOrder) -> None:
        if is_broken:
            raise ValueError("declined")
        handled.append(event.number)

    queue = DeadLetterQueue(fake, DLQ)
    async with running(router):
        for number in range(4):
            await make_emitter(fake).emit(DvOrder(number=number))
        await eventually(lambda: _has(queue, 4))
        page = await queue.list(PAY)
        assert [letter.handler for letter in page.items] == ["pay"] * 4
        newest, second, *_ = page.items
        is_broken = False

        await queue.replay(newest.id)
        await eventually(lambda: handled == [3])
        await queue.discard(second.id)
        assert (await queue.restore(second.id)).state == "dead"
        operation = await queue.operations.start("replay", Selector(filter=PAY))
        ended = await queue.operations.run_until_ended(operation.id)

        assert (ended.state, ended.done, ended.errors) == ("completed", 3, ())
        await eventually(lambda: sorted(handled) == [0, 1, 2, 3])
    assert (await queue.stats()).length == 0


async def _has(queue: DeadLetterQueue, count: int) -> bool:
    return len((await queue.list(PAY)).items) == count
