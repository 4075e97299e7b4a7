"""Listing dead letters: pages, cursors, filters, and hostile entries among them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, LetterFilter
from rapids._core.outcomes import Reason
from rapids.dead_letters import Selector
from tests.dead_letters.helpers import REFERENCE_FIELDS, all_ids, ms, write
from tests.worker.helpers import DLQ, GROUP, STREAM, all_keys, as_text

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


# --- pages ----------------------------------------------------------------------------------------------------------


async def test_a_stream_that_does_not_exist_has_no_letters(queue: DeadLetterQueue, redis: Redis) -> None:
    page = await queue.list()
    assert (page.items, page.cursor, page.total, page.total_exact, page.scanned) == ((), None, 0, True, 0)
    assert await all_keys(redis) == set()


async def test_letters_are_listed_newest_first_with_everything_they_hold(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = [await write(redis, number=number, correlation_id="c", metadata={"m": 1}) for number in range(3)]

    page = await queue.list()

    assert [letter.id for letter in page.items] == ids[::-1]
    assert (page.cursor, page.total, page.total_exact) == (None, 3, True)
    letter = page.items[-1]
    assert (letter.state, letter.stream, letter.group, letter.handler) == ("dead", STREAM, GROUP, "pay")
    assert (letter.entry_id, letter.reason, letter.error) == ("1700000000000-0", "non_retryable", "declined")
    assert letter.position == "shop:7 pay"
    assert (letter.error_type, letter.traceback, letter.deliveries) == ("ValueError", "Traceback ...", 5)
    assert (letter.consumer, letter.event_type, letter.schema_version) == ("worker-1", "dv.order", "1")
    assert (letter.data, letter.metadata) == (b'{"number":0,"text":""}', b'{"m":1}')
    assert (letter.correlation_id, letter.causation_id) == ("c", "")
    assert (letter.replay_of, letter.replay_count, letter.history) == (None, 0, ())
    assert letter.failed_at is not None
    assert abs(letter.failed_at - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("limit", [1, 3, 7, 10, 11, 500])
async def test_cursors_lead_to_every_letter_once(queue: DeadLetterQueue, redis: Redis, limit: int) -> None:
    ids = [await write(redis, number=number) for number in range(10)]
    assert await all_ids(queue, limit=limit) == ids[::-1]


async def test_cursors_lead_to_every_letter_once_while_others_come_and_go(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = [await write(redis, number=number) for number in range(30)]
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await queue.list(cursor=cursor, limit=4)
        found += [letter.id for letter in page.items]
        if page.cursor is None:
            break
        cursor = page.cursor
        await write(redis)  # newer than anything still to be listed
        await queue.discard(found[-1])  # the one the cursor stands at, too
        await queue.discard(ids[0 if ids[0] not in found else found.index(ids[0])]) if len(found) == 4 else None
    assert sorted(found) == sorted(set(found))
    assert set(found) == set(ids[1:])


async def test_a_filter_looks_at_so_many_that_are_not_indexed_yet_and_gives_short_pages_with_a_cursor(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    wanted = [await write(redis, handler="rare"), await write(redis, handler="rare")]
    async with redis.pipeline(transaction=False) as pipeline:
        for _ in range(4_000):
            pipeline.xadd(DLQ, REFERENCE_FIELDS)
        await pipeline.execute()

    page = await queue.list(LetterFilter(handler="rare"))
    assert page.items == ()
    assert page.cursor is not None
    assert page.scanned == 2_000
    assert (page.total, page.total_exact) == (3_004, False)  # the first thousand are indexed by now
    assert await all_ids(queue, filter=LetterFilter(handler="rare")) == wanted[::-1]


@pytest.mark.parametrize("limit", [0, -1, 501, 10**30])
async def test_a_limit_out_of_range_is_refused(queue: DeadLetterQueue, limit: int) -> None:
    with pytest.raises(ValueError, match="limit"):
        await queue.list(limit=limit)


BAD_CURSORS = [
    "",
    "x",
    "1",
    "1-",
    "-1",
    "1-1-1",
    "+",
    "-",
    "(1-1",
    "0-0",
    "99999999999999999999-0",
    "1-99999999999999999999",
]


@pytest.mark.parametrize("cursor", [*BAD_CURSORS, "1-1\n", " 1-1", "\u0661-\u0661", "\x00", "9" * 100_000 + "-0"])
async def test_a_cursor_that_no_page_returned_is_refused(queue: DeadLetterQueue, redis: Redis, cursor: str) -> None:
    await write(redis)
    with pytest.raises(ValueError, match="cursor"):
        await queue.list(cursor=cursor)


@pytest.mark.parametrize(
    ("option", "value"),
    [("retention", 0), ("retention", float("inf")), ("archive_maxlen", 0), ("dlq_maxlen", 0), ("maxlen", -1)],
)
def test_options_that_make_no_sense_are_refused(redis: Redis, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=option):
        DeadLetterQueue(redis, DLQ, **{option: value})


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *((name, 7, "a string or None") for name in ("event_type", "handler", "group", "reason", "error_type", "q")),
        ("fingerprint", b"0011223344556677", "a string or None"),
        ("since", "2026-11-25", "a datetime or None"),
        ("until", date(2026, 11, 25), "a datetime or None"),
    ],
)
def test_a_filter_says_what_is_of_another_type(name: str, value: Any, allowed: str) -> None:
    with pytest.raises(TypeError, match=re.escape(f"{name} must be {allowed}, not {value!r}")):
        LetterFilter(**{name: value})


@pytest.mark.parametrize("other", [{}, {"handler": "ship"}, "ship", Selector(ids=("1-1",))])
async def test_a_value_that_is_no_filter_is_refused_and_selects_nothing(queue: DeadLetterQueue, other: Any) -> None:
    for look in (queue.list, queue.causes):
        with pytest.raises(TypeError, match=re.escape(f"filter must be a LetterFilter or None, not {other!r}")):
            await look(other)


# --- filters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        LetterFilter(handler="ship"),
        LetterFilter(group="group-2"),
        LetterFilter(reason="max_deliveries_exceeded"),
        LetterFilter(error_type="KeyError"),
        LetterFilter(event_type="dv.payment"),
        LetterFilter(event_type="*.payment"),
        LetterFilter(event_type="**.payment"),
        LetterFilter(q="NEEDLE"),
        LetterFilter(q="no money"),
        LetterFilter(q="corr-7"),
        LetterFilter(q="1799999999999-5"),
        LetterFilter(q="needle", handler="ship", error_type="KeyError"),
    ],
    ids=str,
)
async def test_each_filter_restricts(queue: DeadLetterQueue, redis: Redis, wanted: LetterFilter) -> None:
    await write(redis)
    the_one = await write(
        redis,
        handler="ship",
        group="group-2",
        reason=Reason.MAX_DELIVERIES_EXCEEDED,
        error="no money",
        error_type="KeyError",
        entry_id="1799999999999-5",
        text="a needle",
        correlation_id="corr-7",
        fields={b"event_type": b"dv.payment"},
    )
    await write(redis)
    page = await queue.list(wanted)
    assert [letter.id for letter in page.items] == [the_one]
    assert (page.total, page.total_exact) == (len(page.items), True)


async def test_all_parts_of_a_filter_must_hold(queue: DeadLetterQueue, redis: Redis) -> None:
    await write(redis, handler="ship")
    assert (await queue.list(LetterFilter(handler="ship", error_type="KeyError"))).items == ()


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=5)), None])
async def test_since_is_inclusive_and_until_is_not(queue: DeadLetterQueue, redis: Redis, zone: Any) -> None:
    moments = [NOON + timedelta(milliseconds=number) for number in range(4)]
    ids = [await write(redis, at=ms(moment)) for moment in moments]

    def given(moment: datetime) -> datetime:
        return moment.astimezone(zone) if zone else moment.replace(tzinfo=None)  # without a zone it is UTC

    wanted = LetterFilter(since=given(moments[1]), until=given(moments[3]))
    assert await all_ids(queue, filter=wanted) == [ids[2], ids[1]]
    assert await all_ids(queue, filter=wanted, limit=1) == [ids[2], ids[1]]


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        (LetterFilter(until=datetime(1970, 1, 1, tzinfo=UTC)), 0),
        (LetterFilter(until=datetime(1, 1, 1, tzinfo=UTC)), 0),
        (LetterFilter(since=datetime(1, 1, 1)), 2),  # noqa: DTZ001 - naive on purpose
        (LetterFilter(until=datetime(9999, 12, 31, tzinfo=UTC)), 2),
        (LetterFilter(since=datetime(9999, 12, 31, tzinfo=UTC)), 0),
        (LetterFilter(since=NOON, until=NOON), 0),
        (LetterFilter(since=NOON + timedelta(days=1), until=NOON), 0),
    ],
)
async def test_times_at_the_limits_are_accepted(
    queue: DeadLetterQueue, redis: Redis, wanted: LetterFilter, count: int
) -> None:
    await write(redis)
    await write(redis)
    assert len(await all_ids(queue, filter=wanted)) == count


# --- letters of other hands -----------------------------------------------------------------------------------------


HOSTILE: list[dict[Any, Any]] = [
    {"x": "y"},
    {b"\xff": b"\xfe", b"": b""},
    {"letter_id": "../../etc"},
    {"letter_id": "1-1"},
    {"letter_id": ""},
    {"letter_id": b"\xff"},
    {"deliveries": "9" * 10_000, "replay_count": "-1", "failed_at": "yesterday", "data": b"\xff\x00"},
    {"deliveries": "\u0663", "replay_count": "1e9", "failed_at": "9" * 10_000},
    {"error": "<script>alert(1)</script>" * 10_000, "event_type": "." * 10_000},
    {"failed_at": "0001-01-01T00:00:00+23:59"},
]


@pytest.mark.parametrize("fields", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_entry_is_listed_found_and_discarded_like_any_other(
    queue: DeadLetterQueue, redis: Redis, fields: dict[Any, Any]
) -> None:
    before, entry_id, after = await write(redis), as_text(await redis.xadd(DLQ, fields)), await write(redis)

    listed = (await queue.list()).items
    assert [letter.id for letter in listed] == [after, entry_id, before]
    assert await queue.get(entry_id) == listed[1]
    assert (await queue.list(LetterFilter(q="nothing has this", event_type="a.**"))).items == ()
    assert (await queue.discard(entry_id)).state == "discarded"
    assert (await queue.restore(entry_id)).id == entry_id
    assert (await queue.get(entry_id)).state == "dead"
    assert {letter.id for letter in (await queue.list()).items} == {before, entry_id, after}


async def test_an_entry_that_claims_the_id_of_another_letter_does_not_get_it(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    real = await write(redis, handler="real")
    forged = as_text(await redis.xadd(DLQ, {"letter_id": real, "handler": "forged"}))
    assert [(letter.id, letter.handler) for letter in (await queue.list()).items] == [
        (forged, "forged"),
        (real, "real"),
    ]
    assert (await queue.get(real)).handler == "real"
    await queue.discard(real)
    await queue.restore(real)
    assert (await queue.get(real)).handler == "real"
    assert (await queue.get(forged)).handler == "forged"


@pytest.mark.parametrize("wanted", [LetterFilter(), LetterFilter(handler="pay"), LetterFilter(q="declined")])
async def test_a_page_of_large_letters_has_fewer_than_its_limit(
    queue: DeadLetterQueue, redis: Redis, wanted: LetterFilter
) -> None:
    ids = [await write(redis, text="x" * 300_000) for _ in range(100)]
    found = list[str]()
    cursor: str | None = None
    while True:
        page = await queue.list(wanted, cursor=cursor, limit=500)
        assert 0 < len(page.items) < 80, "a page ends after some 16 MB"
        found += [letter.id for letter in page.items]
        if page.cursor is None:
            break
        cursor = page.cursor
    assert found == ids[::-1]
