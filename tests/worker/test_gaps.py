"""What is cut from the stream before the group has read it: reported once, with a count, and only if certain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import EventRouter, GroupStartPosition
from rapids._core.counter_state import Counts
from rapids._core.settings import RouterSettings
from rapids._storage import read_positions
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._storage.read_positions import Sample
from rapids._worker import losses
from rapids._worker.losses import Gap, Gaps, gap_in, is_being_cut, unread_share
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    check_keys,
    everywhere,
    make_emitter,
    make_router,
    running,
    until_settled,
)

# --- what a sample shows --------------------------------------------------------------------------------------------

EVEN = Sample(
    length=100,
    added=100,
    first="1-0",
    last="100-0",
    given_out="100-0",
    delivered="10-0",
    read=10,
    lag=90,
    next="11-0",
    later=None,
    is_trimmed=False,
)
"""A hundred entries, ten of them read."""

CUT = replace(EVEN, length=60, first="41-0", next="41-0")
"""The same, of which forty were cut away."""


def uncounted(sample: Sample, later: str | None = None) -> Sample:
    """The same as Redis 6.2 reports it, or any server of a group whose position it does not know."""
    return replace(sample, added=None, read=None, lag=None, later=later)


NOTHING_READ = replace(EVEN, delivered="0-0", next="1-0", read=None, lag=None)
EMPTY = replace(CUT, length=0, first=None, last=None, next=None)


@pytest.mark.parametrize(
    ("sample", "before", "gap"),
    [
        (EVEN, None, None),
        (CUT, None, Gap("10-0", "41-0", 30)),
        (CUT, EVEN, Gap("10-0", "41-0", 30)),
        (replace(CUT, read=40), None, None),  # deleted long before it was there
        (replace(CUT, delivered="41-0", next="42-0", read=11), EVEN, None),  # it went on, and is past it
        (replace(CUT, delivered="40-0", read=40), None, None),  # cut away up to where it has read
        (EMPTY, None, Gap("10-0", None, 90)),
        (replace(EMPTY, delivered="100-0", read=100), EVEN, None),
        # Where the server does not count: only what was seen unread before and is not there any more is certain.
        (uncounted(CUT), None, None),
        (uncounted(CUT), uncounted(EVEN), Gap("10-0", "41-0", None)),
        (uncounted(replace(CUT, first="12-0", next="12-0", delivered="11-0")), uncounted(EVEN), None),
        (
            uncounted(replace(CUT, delivered="20-0")),
            uncounted(EVEN, later="21-0"),
            Gap("20-0", "41-0", None),
        ),
        (uncounted(replace(CUT, delivered="20-0")), uncounted(EVEN), None),
        (
            uncounted(replace(CUT, first="150-0", next="150-0", delivered="20-0", last="160-0")),
            uncounted(EVEN),
            Gap("20-0", "150-0", None),
        ),
        (uncounted(EMPTY), uncounted(EVEN), Gap("10-0", None, None)),
        (uncounted(replace(EMPTY, delivered="100-0")), uncounted(EVEN), None),
        # A new group has no count; what was cut away since is counted all the same.
        (replace(NOTHING_READ, length=60, first="41-0", next="41-0"), NOTHING_READ, Gap("0-0", "41-0", 40)),
        (replace(NOTHING_READ, length=60, first="41-0", next="41-0"), None, None),
        (replace(CUT, read=None), replace(EVEN, read=None), Gap("10-0", "41-0", None)),
    ],
)
def test_missing_entries_are_found_between_two_samples(sample: Sample, before: Sample | None, gap: Gap | None) -> None:
    assert gap_in(sample, before) == gap


def test_a_gap_that_an_old_server_does_not_count_is_not_reported_again() -> None:
    assert gap_in(CUT, EVEN, 20) == Gap("10-0", "41-0", 10)
    assert gap_in(CUT, None, 30) is None


@pytest.mark.parametrize(
    ("sample", "share"),
    [
        (EVEN, 0.9),
        (CUT, 1.0),
        (EMPTY, 0.0),
        (replace(EVEN, delivered="100-0", next=None, lag=0), 0.0),
        (replace(EVEN, lag=1_000), 1.0),
        (uncounted(replace(EVEN, first="0-1", delivered="75-0", next="76-0")), 0.25),
        (uncounted(replace(EVEN, last="1-5", delivered="1-3", next="1-4")), 0.0),
    ],
)
def test_how_much_of_the_stream_is_unread(sample: Sample, share: float) -> None:
    assert unread_share(sample) == share


@pytest.mark.parametrize(
    ("sample", "is_cut"),
    [
        (EVEN, False),
        (replace(EVEN, first="2-0"), True),
        (replace(EVEN, first="2-0", is_trimmed=True), False),
        (replace(EVEN, first="2-0", length=1_000_000), True),
        (replace(CUT, length=0, first=None), False),
    ],
)
def test_whether_the_stream_is_kept_to_a_length(sample: Sample, is_cut: bool) -> None:
    assert is_being_cut(sample, EVEN) is is_cut


def test_a_stream_that_is_much_shorter_than_before_was_cut_once_only() -> None:
    long = replace(EVEN, length=10_000)
    assert not is_being_cut(replace(long, first="2-0", length=9_000), long)
    assert is_being_cut(replace(long, first="2-0", length=9_900), long)
    assert not is_being_cut(long, replace(long, first=None))


# --- when it is sampled, and who reports ---


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch, counted: Counts) -> Gaps:
    """One that is given samples as they are, as the answers of a server, and takes none for reasons of time."""
    monkeypatch.setattr(read_positions, "sample_in", lambda sample: sample)
    settings = RouterSettings(stream=STREAM, group=GROUP)
    context: Any = SimpleNamespace(sources=[SOURCE], settings=settings, log={}, counts=counted)
    return Gaps(context)


@pytest.fixture
def counted() -> Counts:
    return Counts(STREAM, GROUP)


SOURCE = Source(STREAM, GROUP)
LONG = replace(EVEN, length=5_000, added=5_000, lag=4_990)


def entries(*ids: str) -> list[RawEntry]:
    return [RawEntry(SOURCE, entry_id.encode(), ()) for entry_id in ids]


def test_the_first_read_is_preceded_by_a_sample_and_the_next_is_not(watch: Gaps) -> None:
    assert watch.ahead()
    watch.sampled([LONG])
    watch.read(entries("11-0"))
    assert not watch.ahead()


@pytest.mark.parametrize(
    ("sample", "is_at_risk"),
    [
        (LONG, False),  # it is behind, and nobody cuts the stream
        (replace(LONG, added=9_000), True),
        (replace(LONG, added=9_000, lag=2_499), False),
        (replace(LONG, added=9_000, lag=2_500), True),
        (replace(LONG, length=1_000, lag=10), True),  # so short that it may be gone at once
        (replace(LONG, length=1_001, lag=10), False),
        (uncounted(LONG), False),
    ],
)
def test_a_stream_at_risk_is_sampled_before_every_read(watch: Gaps, sample: Sample, is_at_risk: bool) -> None:
    watch.sampled([sample])
    assert bool(watch.ahead()) is is_at_risk
    watch.read(entries("11-0"))
    assert bool(watch.ahead()) is is_at_risk
    watch.sampled([sample])
    watch.read(())  # between a read that had to wait in vain and the next one, nobody is there to see what comes
    assert bool(watch.ahead()) is is_at_risk


def test_where_the_server_does_not_count_a_stream_is_cut_once_its_first_entry_is_another(watch: Gaps) -> None:
    watch.sampled([uncounted(LONG)])
    watch.sampled([uncounted(replace(LONG, first="2-0"))])
    watch.sampled([uncounted(replace(LONG, first="2-0"))])
    assert watch.ahead()


def test_the_consumer_that_gets_the_first_entry_after_a_gap_reports_it(watch: Gaps, reported: Any) -> None:
    watch.sampled([CUT])
    watch.read(entries("42-0", "43-0"))  # another consumer was given 41-0
    assert reported() == []
    watch.sampled([CUT])
    watch.read(())
    watch.read(entries("41-0"))
    assert reported() == []
    watch.sampled([CUT])
    watch.read(entries("41-0", "42-0"))
    watch.read(entries("41-0"))
    assert reported() == [("10-0", "41-0", 30)]


def test_a_gap_that_redis_7_0_does_not_show_is_reported_once(watch: Gaps, reported: Any, counted: Counts) -> None:
    watch.sampled([CUT])
    watch.read(entries("41-0", "42-0"))
    again = replace(CUT, length=20, first="81-0", next="81-0", delivered="42-0", read=12)
    watch.sampled([again])
    watch.read(entries("81-0"))
    again = replace(again, delivered="100-0", read=32)
    watch.sampled([replace(again, next=None)])
    watch.sampled([replace(again, added=200, length=50, first="151-0", next="151-0", last="200-0", given_out="200-0")])
    watch.read(entries("151-0"))
    assert [estimated for _, _, estimated in reported()] == [30, 38, 50]
    assert counted.counters().total("lost", when="unread") == 30 + 38 + 50
    assert counted.counters().total("gaps") == 3


def test_a_lagging_group_of_an_uncut_stream_is_not_warned(
    watch: Gaps, reported: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        watch.sampled([LONG])
    assert warnings(caplog) == []
    for first in ("2-0", "3-0"):
        watch.sampled([replace(LONG, added=9_000, first=first)])
    assert len(warnings(caplog)) == 1
    watch.sampled([replace(LONG, added=9_000, first="4-0", lag=2_000)])
    watch.sampled([replace(LONG, added=9_000, first="5-0")])
    assert len(warnings(caplog)) == 2, "it had caught up in between"


def test_nothing_is_reported_for_a_group_that_was_lost_or_set_back(watch: Gaps, reported: Any) -> None:
    for between in (None, replace(uncounted(EVEN), delivered="5-0", next="6-0")):
        watch.sampled([uncounted(replace(EVEN, delivered="50-0", next="51-0"))])
        watch.sampled([between])
        watch.sampled([uncounted(replace(CUT, first="6-0", next="6-0", delivered="5-0"))])
        watch.read(entries("6-0"))
    assert reported() == []


# --- on a server ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
async def exact(redis: Redis) -> AsyncIterator[None]:
    """Streams that are cut to the entry."""
    before = await redis.config_get("stream-node-max-entries")
    await redis.config_set("stream-node-max-entries", 1, **everywhere(redis))
    yield
    await redis.config_set("stream-node-max-entries", before["stream-node-max-entries"], **everywhere(redis))


@pytest.fixture
def reported(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[tuple[str, str | None, int | None]]]]:
    """The gaps that were logged: after which entry, before which, and how many."""

    def logged_gaps() -> list[tuple[str, str | None, int | None]]:
        found = [record for record in caplog.records if "before the group had read them" in record.getMessage()]
        assert all(record.levelno == logging.ERROR for record in found)
        return [(record.after, record.before, record.lost_count) for record in map(_any, found)]

    with caplog.at_level(logging.INFO, "rapids"):
        yield logged_gaps


def _any(value: Any) -> Any:
    return value


async def counts(redis: Redis) -> bool:
    """Whether this server counts what was added to a stream: from Redis 7.0 on."""
    return "entries-added" in await redis.xinfo_stream(STREAM)


class Slow:
    """A handler that takes one entry for each step that a test allows."""

    def __init__(self, router: EventRouter) -> None:
        self.seen: list[int] = []
        self.steps = asyncio.Semaphore(0)
        router.on(DvOrder)(self._handle)

    async def _handle(self, event: DvOrder) -> None:
        self.seen.append(event.number)
        await self.steps.acquire()

    def let_go(self, count: int = 1_000_000) -> None:
        for _ in range(count):
            self.steps.release()


async def emit(redis: Redis, numbers: range) -> list[str]:
    return await make_emitter(redis, maxlen=None).emit([DvOrder(number=number) for number in numbers])


async def test_what_was_cut_while_nothing_ran_is_reported_at_the_start(redis: Redis, reported: Any) -> None:
    router = make_router(redis, batch_size=3)
    router.on(DvOrder)(_pass)
    ids = await emit(redis, range(10))
    async with running(router):
        await until_settled(redis)
    ids += await emit(redis, range(10, 60))
    await redis.xtrim(STREAM, maxlen=20, approximate=False)
    async with running(router):
        await until_settled(redis)
        await emit(redis, range(60, 80))
        await until_settled(redis)
    assert reported() == ([(ids[9], ids[40], 30)] if await counts(redis) else [])
    await check_keys(redis)


async def _pass(event: DvOrder) -> None: ...


async def test_what_is_cut_while_it_runs_is_reported_once_for_each_gap(redis: Redis, reported: Any) -> None:
    router = make_router(redis, batch_size=2)
    slow = Slow(router)
    ids = await emit(redis, range(50))
    async with running(router):
        await eventually(lambda: slow.seen)
        await eventually(lambda: _has_read(redis, 4))  # two batches wait behind the one that is handled
        await redis.xtrim(STREAM, maxlen=20, approximate=False)
        slow.let_go(10)
        await eventually(lambda: reported())
        await eventually(lambda: len(slow.seen) == 11)
        ids += await emit(redis, range(50, 60))
        last = await _read_so_far(redis)
        await redis.xtrim(STREAM, maxlen=5, approximate=False)
        slow.let_go()
        await until_settled(redis)
    known = await counts(redis)
    at = ids.index(last) + 1
    assert reported() == [(ids[3], ids[30], 26 if known else None), (last, ids[55], 55 - at if known else None)]
    assert slow.seen == [*range(4), *range(30, at), *range(55, 60)]


async def _has_read(redis: Redis, count: int) -> bool:
    return (await redis.xpending(STREAM, GROUP))["pending"] == count


async def _read_so_far(redis: Redis) -> str:
    [group] = await redis.xinfo_groups(STREAM)
    return as_text(group["last-delivered-id"])


async def test_a_stream_that_was_emptied(redis: Redis, reported: Any) -> None:
    router = make_router(redis, batch_size=2)
    slow = Slow(router)
    ids = await emit(redis, range(20))
    async with running(router):
        await eventually(lambda: slow.seen)
        await eventually(lambda: _has_read(redis, 4))
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        slow.let_go()
        await eventually(lambda: _has_read(redis, 0))
        await emit(redis, range(20, 21))
        await until_settled(redis)
    assert [(after, estimated) for after, _, estimated in reported()] == [(ids[3], 16 if await counts(redis) else None)]
    assert slow.seen == [*range(4), 20]


async def test_only_one_of_several_consumers_reports_a_gap(redis: Redis, reported: Any) -> None:
    routers = [make_router(redis, batch_size=1) for _ in range(3)]
    slows = [Slow(router) for router in routers]
    await emit(redis, range(100))
    async with running(*routers):
        await eventually(lambda: _has_read(redis, 9))
        await redis.xtrim(STREAM, maxlen=40, approximate=False)
        for slow in slows:
            slow.let_go()
        await until_settled(redis)
    if await counts(redis):
        assert [estimated for _, _, estimated in reported()] == [51]
    else:  # which of them can be certain depends on who read last
        assert len(reported()) <= 1


async def test_a_router_slower_than_the_emitters_maxlen_reports_every_loss(
    redis: Redis, reported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From when a look has seen that the stream is cut: from then on, a look goes ahead of every read."""
    monkeypatch.setattr(losses, "INTERVAL", 0.0)
    router = make_router(redis, batch_size=5)
    seen: list[int] = []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        await asyncio.sleep(0.001)

    async with running(router):
        emitter = make_emitter(redis, maxlen=50)
        for _ in range(15):
            await emitter.emit([DvOrder()] * 20)
            await until_settled(redis)
        assert reported() == []
        monkeypatch.setattr(losses, "INTERVAL", 1_000.0)
        seen.clear()
        for first in range(0, 1_000, 100):
            await emitter.emit([DvOrder(number=number) for number in range(first, first + 100)])
            await asyncio.sleep(0.02)
        await until_settled(redis)
    assert len(seen) < 1_000
    if await counts(redis):
        assert sum(estimated for _, _, estimated in reported()) == 1_000 - len(seen)
    else:
        assert reported()


# --- what is no loss ------------------------------------------------------------------------------------------------

Quiet = Callable[[Redis], Awaitable[None]]


async def cut_behind_it(redis: Redis) -> None:
    await redis.xtrim(STREAM, maxlen=0, approximate=False)


async def cut_to_what_is_unread(redis: Redis) -> None:
    await emit(redis, range(10))
    await redis.xtrim(STREAM, maxlen=10, approximate=False)


async def delete_what_was_read(redis: Redis) -> None:
    ids = [entry_id for entry_id, _ in await redis.xrange(STREAM)]
    await redis.xdel(STREAM, *ids[5:15])
    await emit(redis, range(3))
    await redis.xtrim(STREAM, maxlen=3, approximate=False)


async def set_it_forward(redis: Redis) -> None:
    ids = await emit(redis, range(20))
    await redis.xgroup_setid(STREAM, GROUP, ids[9])
    await redis.xtrim(STREAM, maxlen=10, approximate=False)


async def set_it_back(redis: Redis) -> None:
    ids = [entry_id for entry_id, _ in await redis.xrange(STREAM)]
    await redis.xtrim(STREAM, maxlen=5, approximate=False)
    await redis.xgroup_setid(STREAM, GROUP, ids[3])


async def make_it_again(redis: Redis) -> None:
    await redis.xgroup_destroy(STREAM, GROUP)
    await redis.xtrim(STREAM, maxlen=5, approximate=False)


@pytest.mark.parametrize(
    "happens",
    [cut_behind_it, cut_to_what_is_unread, delete_what_was_read, set_it_forward, set_it_back, make_it_again],
)
async def test_entries_that_are_not_lost_are_not_reported(
    redis: Redis, reported: Any, monkeypatch: pytest.MonkeyPatch, happens: Quiet
) -> None:
    monkeypatch.setattr(losses, "INTERVAL", 0.0)  # a sample ahead of every read
    router, seen = make_router(redis, block_ms=20), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    await emit(redis, range(20))
    for group_is_used in range(2):
        async with running(router):
            await until_settled(redis)
            if not group_is_used:
                await happens(redis)
                await eventually(lambda: _is_settled_again(redis))
            await emit(redis, range(100, 103))
            await until_settled(redis)
            if not group_is_used:
                await router.stop()
                await happens(redis)
    assert seen[-3:] == [100, 101, 102]
    assert reported() == []


async def _is_settled_again(redis: Redis) -> bool:
    groups = await redis.xinfo_groups(STREAM)
    return bool(groups) and groups[0]["pending"] == 0


@pytest.mark.parametrize("start", list(GroupStartPosition))
async def test_a_new_group_has_lost_nothing_of_what_was_cut_away_before(
    redis: Redis, reported: Any, start: GroupStartPosition
) -> None:
    await emit(redis, range(50))
    await redis.xtrim(STREAM, maxlen=10, approximate=False)
    router = make_router(redis, group_start_id=start, batch_size=2)
    router.on(DvOrder)(_pass)
    async with running(router):
        await until_settled(redis)
        await emit(redis, range(20))
        await until_settled(redis)
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        await emit(redis, range(20))
        await until_settled(redis)
    assert reported() == []


# --- before it happens ----------------------------------------------------------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record for record in caplog.records if "may lose some" in record.getMessage()]
    assert all(record.levelno == logging.WARNING for record in found)
    return [record.getMessage() for record in found]


async def test_a_group_that_is_about_to_lose_entries_is_warned_once(
    redis: Redis, reported: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "INTERVAL", 0.0)
    router = make_router(redis, batch_size=1)
    slow = Slow(router)
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await emit(redis, range(300))
    await redis.xreadgroup(GROUP, "elsewhere", {STREAM: ">"}, count=50, noack=True)
    async with running(router):
        await eventually(lambda: slow.seen)
        for step in range(10):
            before = len(slow.seen)
            await emit(redis, range(300 + step, 301 + step))
            await redis.xtrim(STREAM, maxlen=300, approximate=False)
            slow.let_go(1)
            await eventually(lambda before=before: len(slow.seen) > before)
        await eventually(lambda: warnings(caplog))
        slow.let_go()
        await until_settled(redis)
        assert len(warnings(caplog)) == 1
    assert reported() == []
    if await counts(redis):
        assert "entries" in warnings(caplog)[0].partition("%")[0]


async def test_a_group_that_keeps_up_is_not_warned_of_anything(
    redis: Redis, reported: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "INTERVAL", 0.0)
    router = make_router(redis)
    router.on(DvOrder)(_pass)
    emitter = make_emitter(redis, maxlen=50)
    async with running(router):
        for number in range(200):
            await emitter.emit(DvOrder(number=number))
        await until_settled(redis)
    assert (reported(), warnings(caplog)) == ([], [])


# --- what it costs --------------------------------------------------------------------------------------------------


async def test_reads_of_a_stream_that_nobody_cuts_are_not_preceded_by_samples(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, commands = [], read_positions.commands

    def counted(*arguments: Any, **options: Any) -> Any:
        taken.append(1)
        return commands(*arguments, **options)

    monkeypatch.setattr(losses, "INTERVAL", 1_000.0)
    monkeypatch.setattr(read_positions, "commands", counted)
    await emit(redis, range(3_000))
    router = make_router(redis, batch_size=50)
    router.on(DvOrder)(_pass)
    async with running(router):
        await until_settled(redis)
    assert len(taken) == 1


async def test_a_script_that_the_server_forgot_is_loaded_again(redis: Redis, reported: Any) -> None:
    router = make_router(redis, batch_size=2)
    slow = Slow(router)
    await emit(redis, range(40))
    async with running(router):
        await eventually(lambda: _has_read(redis, 4))
        await redis.script_flush()
        slow.let_go(4)
        await eventually(lambda: len(slow.seen) == 5)
        await redis.xtrim(STREAM, maxlen=10, approximate=False)
        slow.let_go()
        await until_settled(redis)
    assert len(reported()) == 1


async def test_a_server_that_refuses_samples_does_no_harm(
    redis: Redis, reported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_positions, "commands", lambda *_, **__: [("NO-SUCH-COMMAND",)])
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(router):
        await emit(redis, range(40))
        await until_settled(redis)
    assert seen == list(range(40))
