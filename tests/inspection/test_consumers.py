"""Consumers: their names, whether they are alive, and since when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from redis.asyncio import Redis

from rapids.inspection import ConsumerSnapshot, Inspector
from tests.inspection.helpers import LISTINGS, SOURCE, add, all_pages, deliver, park, wait
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, make_emitter, make_router, running


async def consumers(redis: Redis) -> dict[str, ConsumerSnapshot]:
    return {seen.consumer: seen for seen in (await Inspector(redis).consumers(STREAM, GROUP)).items}


async def test_a_consumer_is_listed_as_alive_from_start_to_stop(redis: Redis) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)  # clocks are rounded, and may be another process's
    async with running(make_router(redis, consumer="worker")):
        seen = (await consumers(redis))["worker"]
        assert seen.alive
        assert seen.alive_since is not None
        assert before < seen.alive_since < datetime.now(UTC) + timedelta(seconds=1)
        assert (seen.pending, seen.inactive_ms) == (0, None)
    seen = (await consumers(redis))["worker"]
    assert (seen.alive, seen.alive_since) == (False, None)


async def test_a_consumer_under_a_numbered_name_is_alive_too(redis: Redis) -> None:
    async with running(make_router(redis, consumer="worker"), make_router(redis, consumer="worker")):
        assert {name: seen.alive for name, seen in (await consumers(redis)).items()} == {
            "worker": True,
            "worker-2": True,
        }


async def test_a_consumer_shows_what_it_holds_and_when_it_was_seen(redis: Redis) -> None:
    router = make_router(redis, consumer="worker", concurrency=3)
    finished: list[int] = []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await eventually(lambda: finished)

    async with running(router):
        await make_emitter(redis).emit([DvOrder() for _ in range(3)])
        await eventually(lambda: _has_pending(redis, 3))
        page = await Inspector(redis).consumers(STREAM, GROUP)
        finished.append(1)
    [seen] = page.items
    assert seen.seen_at == page.at - timedelta(milliseconds=seen.idle_ms)
    has_inactive = "inactive" in (await redis.xinfo_consumers(STREAM, GROUP))[0]  # since Redis 7.2
    assert (seen.inactive_ms is not None) is has_inactive


async def _has_pending(redis: Redis, count: int) -> bool:
    return (await consumers(redis))["worker"].pending == count


async def test_a_consumer_without_a_process_is_not_alive(redis: Redis) -> None:
    await add(redis, "1-0")
    await deliver(redis, 1, "gone")
    seen = (await consumers(redis))["gone"]
    assert (seen.alive, seen.alive_since, seen.pending) == (False, None, 1)


async def test_a_process_without_a_start_time_is_alive(redis: Redis) -> None:
    await add(redis, "1-0")
    await deliver(redis, 1)
    for token in (
        "0123456789abcdef0123456789abcdef",
        "",
        b"\xff@5",
        "0123456789abcdef0123456789abcdef@9999999999999999",
    ):
        await redis.set(SOURCE.consumer("worker"), token)
        seen = (await consumers(redis))["worker"]
        assert (seen.alive, seen.alive_since) == (True, None)


async def test_holding_consumers_are_not_listed(redis: Redis) -> None:
    await add(redis, "1-0", "2-0", "3-0")
    await deliver(redis, 3)
    await wait(redis, "1-0", 9_000)
    await park(redis, "2-0")
    assert list(await consumers(redis)) == ["worker"]
    assert (await Inspector(redis).consumers(STREAM, GROUP, limit=1)).cursor is None
    assert (await Inspector(redis).group(STREAM, GROUP)).consumers == 1


async def test_consumers_come_in_pages_by_name(redis: Redis) -> None:
    names = [b"\xff\xfe", b"\x00", b"", "é".encode(), b"a\nb", b"rapids:other", *(b"w-%d" % n for n in range(95)), b"W"]
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    for name in names:
        await redis.execute_command("XGROUP", "CREATECONSUMER", STREAM, GROUP, name)
    for limit in (1, 10, 101, 102, 103):
        pages = await all_pages(LISTINGS["consumers"], Inspector(redis), limit=limit)
        seen = [consumer.consumer for page in pages for consumer in page.items]
        assert seen == [name.decode(errors="backslashreplace") for name in sorted(names)]
        assert len(pages) == -(-len(names) // limit)


async def test_consumers_that_come_and_go_while_they_are_listed(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    for name in ("b", "d", "f", "h"):
        await redis.xgroup_createconsumer(STREAM, GROUP, name)

    async def replace(page: Any) -> None:
        last = page.items[-1].consumer
        await redis.xgroup_delconsumer(STREAM, GROUP, last)
        await redis.xgroup_createconsumer(STREAM, GROUP, "a" + last)

    pages = await all_pages(LISTINGS["consumers"], Inspector(redis), limit=1, between=replace)
    assert [consumer.consumer for page in pages for consumer in page.items] == ["b", "d", "f", "h"]
