"""Room for dead letters: a warning before the oldest are cut, and the number of those that were."""

from __future__ import annotations

import asyncio
import logging

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue
from rapids._worker import dlq_capacity
from tests.dead_letters.helpers import write_through_script
from tests.support import eventually
from tests.worker.helpers import DLQ, make_router, running

NEAR = "soon the oldest are trimmed"
CUT = "dead letters were trimmed"
AGAIN = "the dead-letter stream has room again"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(dlq_capacity, "PAUSE", 0.02)
    caplog.set_level(logging.INFO, "rapids.worker")


def logged(caplog: pytest.LogCaptureFixture, text: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if text in record.getMessage()]


async def test_nearing_the_limit_is_logged_once_and_so_is_room_again(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await write_through_script(redis, 79)
    async with running(make_router(redis, dlq_maxlen=100)):
        looks = await _looks(redis)
        await eventually(lambda: _looked_since(redis, looks))
        assert not logged(caplog, NEAR)

        ids = await write_through_script(redis, 1)
        await eventually(lambda: logged(caplog, NEAR))
        [warning] = logged(caplog, NEAR)
        assert (warning.levelname, warning.__dict__["letters"], warning.__dict__["dlq"]) == ("WARNING", 80, DLQ)

        queue = DeadLetterQueue(redis, DLQ)
        await queue.discard(ids[0])
        looks = await _looks(redis)
        await eventually(lambda: _looked_since(redis, looks))
        assert not logged(caplog, AGAIN)  # nor is it logged again at the next letter
        await write_through_script(redis, 1)
        for letter in (await queue.list(limit=30)).items:
            await queue.discard(letter.id)
        await eventually(lambda: logged(caplog, AGAIN))
    assert len(logged(caplog, NEAR)) == 1
    assert not logged(caplog, CUT)


async def test_the_number_of_letters_cut_is_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    await write_through_script(redis, 400, maxlen=100)  # before this router started: another one has logged it
    async with running(make_router(redis, dlq_maxlen=100)):
        looks = await _looks(redis)
        await eventually(lambda: _looked_since(redis, looks))
        assert not logged(caplog, CUT)
        before = (await DeadLetterQueue(redis, DLQ).stats()).cut
        await write_through_script(redis, 300, maxlen=100)
        cut = (await DeadLetterQueue(redis, DLQ).stats()).cut - before
        assert cut > 0
        await eventually(lambda: sum(record.__dict__["lost_count"] for record in logged(caplog, CUT)) == cut)
    assert {record.levelname for record in logged(caplog, CUT)} == {"ERROR"}


@pytest.mark.parametrize("options", [{"dlq_maxlen": None}, {"dlq_stream": None}])
async def test_without_a_limit_the_length_is_not_read(redis: Redis, options: dict[str, None]) -> None:
    async with running(make_router(redis, **options)):
        assert not [task for task in asyncio.all_tasks() if task.get_name().endswith("dlq capacity")]
    async with running(make_router(redis)):
        assert [task for task in asyncio.all_tasks() if task.get_name().endswith("dlq capacity")]


async def test_a_key_that_is_no_index_does_no_harm(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    await redis.set(f"{{{DLQ}}}:rapids:index", "somebody was here")
    router = make_router(redis, dlq_maxlen=100)
    async with running(router):
        looks = await _looks(redis)
        await eventually(lambda: _looked_since(redis, looks))
        assert (await router.health()).ready
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def _looks(redis: Redis) -> int:
    """How many XLENs were asked for: while a router runs, by looks and by these tests' own writing only."""
    return int((await redis.info("commandstats")).get("cmdstat_xlen", {}).get("calls", 0))


async def _looked_since(redis: Redis, looks: int) -> bool:
    return await _looks(redis) >= looks + 3
