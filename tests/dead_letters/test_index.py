"""The index of dead letters: no matter who writes, cuts or deletes them, a filter finds exactly those that exist."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import AuditLog, DeadLetterQueue, LetterFilter
from rapids._core.handlers import matches_pattern
from rapids._core.outcomes import Reason
from rapids._storage.keys import letter_index
from rapids._wire.fingerprints import fingerprint_name
from rapids._wire.letter_format import LetterRead
from rapids.dead_letters import Selector
from tests.dead_letters.helpers import REFERENCE_FIELDS, all_ids, letter_fields, write, write_through_script
from tests.support import eventually
from tests.worker.helpers import DLQ, GROUP, as_text, check_keys

INDEX = letter_index(DLQ)


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


async def counts(queue: DeadLetterQueue, wanted: LetterFilter | None = None) -> dict[str, int]:
    """How many letters each handler's group has."""
    found = Counter[str]()
    cursor: str | None = None
    while True:
        page = await queue.causes(wanted, cursor=cursor, limit=7)
        for group in page.items:
            found[group.handler] += group.count
        if page.cursor is None:
            return dict(found)
        cursor = page.cursor


async def indexed_entries(redis: Redis) -> int:
    names = [key async for key in redis.scan_iter(f"{INDEX}:*") if not as_text(key).endswith(":fingerprints")]
    return sum([await redis.xlen(name) for name in names])


# --- groups ---------------------------------------------------------------------------------------------------------


async def test_an_empty_stream_has_no_groups(queue: DeadLetterQueue) -> None:
    found = await queue.causes()
    assert (found.items, found.cursor, found.total, found.letters) == ((), None, 0, 0)
    assert (found.stats.length, found.stats.unindexed, found.stats.cut) == (0, 0, 0)


async def test_letters_are_counted_by_all_they_have_in_common(queue: DeadLetterQueue, redis: Redis) -> None:
    first, *_, last = await write_through_script(redis, 3)
    for different in (
        {"handler": "ship"},
        {"group": "other"},
        {"reason": Reason.MAX_DELIVERIES_EXCEEDED},
        {"error_type": "KeyError"},
        {"fields": {b"event_type": b"dv.payment"}},
    ):
        await write_through_script(redis, **different)
    await write_through_script(redis, error="in other words", number=7, text="with another payload")

    found = await queue.causes()

    assert (found.total, found.letters, len(found.items)) == (6, 9, 6)
    largest, *others = found.items
    assert (largest.count, largest.handler, largest.group, largest.reason) == (4, "pay", GROUP, "non_retryable")
    assert (largest.error_type, largest.event_type) == ("ValueError", "dv.order")
    assert [group.count for group in others] == [1] * 5
    assert largest.first_at.timestamp() * 1000 == pytest.approx(int(first.split("-")[0]))
    assert largest.last_at.timestamp() * 1000 >= int(last.split("-")[0])
    page = await queue.list(LetterFilter(fingerprint=largest.fingerprint))
    assert {letter.fingerprint for letter in page.items} == {largest.fingerprint}
    assert (len(page.items), page.total, page.total_exact, page.scanned) == (4, 4, True, 4)


async def test_groups_come_in_pages_and_by_filter(queue: DeadLetterQueue, redis: Redis) -> None:
    for number in range(1, 20):
        await write_through_script(redis, number % 4 + 1, handler=f"handler-{number}", group=f"group-{number % 2}")
    wanted = {f"handler-{number}": number % 4 + 1 for number in range(1, 20)}
    assert await counts(queue) == wanted
    odd = {handler: count for handler, count in wanted.items() if int(handler[8:]) % 2}
    assert await counts(queue, LetterFilter(group="group-1")) == odd
    assert await counts(queue, LetterFilter(handler="nobody")) == {}
    sizes = [group.count for group in (await queue.causes()).items]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("wanted", [LetterFilter(q="x"), LetterFilter(since=None, until=None, q="")])
async def test_causes_refuse_what_their_letters_differ_in(queue: DeadLetterQueue, wanted: LetterFilter) -> None:
    with pytest.raises(ValueError, match="causes cannot be filtered"):
        await queue.causes(wanted)


async def test_groups_refuse_the_cursor_of_another_listing(queue: DeadLetterQueue, redis: Redis) -> None:
    await write_through_script(redis, 3)
    cursor = (await queue.list(limit=1)).cursor
    with pytest.raises(ValueError, match="cursor"):
        await queue.causes(cursor=cursor)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"handler": "", "group": "gräuël"},
        {"fields": {b"event_type": b"\xff\x00,:\n"}},
        {"fields": {b"event_type": b"x" * 5_000}},
        {"error_type": "E" * 199 + "ü"},
    ],
    ids=range(5),
)
async def test_the_script_and_the_letter_compute_the_same_fingerprint(
    queue: DeadLetterQueue, redis: Redis, parts: dict[str, Any]
) -> None:
    await write_through_script(redis, **parts)
    [group] = (await queue.causes()).items
    assert group.fingerprint == fingerprint_name(letter_fields(**parts)) == (await queue.list()).items[0].fingerprint
    [found] = (await queue.list(LetterFilter(fingerprint=group.fingerprint))).items
    assert (await queue.list(LetterFilter(event_type=found.event_type.replace("*", "?")))).items == (found,)


# --- others' letters, and letters that go ---------------------------------------------------------------------------


async def test_letters_of_other_writers_are_indexed_in_order(queue: DeadLetterQueue, redis: Redis) -> None:
    ours = await write_through_script(redis, 2, handler="ours")
    theirs = [await write(redis, handler="theirs") for _ in range(3)]
    assert await counts(queue) == {"ours": 2, "theirs": 3}
    theirs += [await write(redis, handler="theirs") for _ in range(3)]
    ours += await write_through_script(redis, 1, handler="ours")  # which catches up with those before it
    assert await redis.hget(INDEX, "to") == ours[-1].encode()
    assert await all_ids(queue, filter=LetterFilter(handler="theirs")) == theirs[::-1]
    assert await all_ids(queue, filter=LetterFilter(handler="ours")) == ours[::-1]


async def test_letters_not_indexed_yet_are_found_before_and_during_indexing(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(3_000):
            pipeline.xadd(DLQ, REFERENCE_FIELDS | {"handler": f"handler-{number % 3}"})
        ids = [as_text(entry_id) for entry_id in await pipeline.execute()]
    newest = await write_through_script(redis, handler="handler-0")  # which does not do all of it at once

    found = await all_ids(queue, filter=LetterFilter(handler="handler-0"), limit=100)

    assert found == [*newest, *ids[::3][::-1]]
    standing = await queue.stats()
    assert (standing.length, standing.unindexed) == (3_001, 0)
    assert await counts(queue) == {"handler-0": 1_001, "handler-1": 1_000, "handler-2": 1_000}


async def test_letters_cut_by_dlq_maxlen_are_counted_and_leave_the_index(queue: DeadLetterQueue, redis: Redis) -> None:
    old = await write_through_script(redis, 250, handler="old")
    ids = await write_through_script(redis, 400, maxlen=300, handler="new")
    left = [as_text(entry_id) for entry_id, _ in await redis.xrange(DLQ)]
    assert 300 <= len(left) < 500

    standing = await queue.stats()

    assert (standing.length, standing.cut) == (len(left), 650 - len(left))
    assert standing.cut_at is not None
    assert await counts(queue) == dict(Counter("old" if entry_id in old else "new" for entry_id in left))
    assert await all_ids(queue, filter=LetterFilter(handler="new")) == [one for one in ids if one in left][::-1]
    assert await indexed_entries(redis) == len(left)
    await check_keys(redis)


async def test_an_index_that_is_never_read_stays_bounded(redis: Redis) -> None:
    for round_ in range(8):
        await write_through_script(redis, 500, maxlen=100, handler=f"handler-{round_}")
    assert await redis.xlen(DLQ) < 300
    assert await indexed_entries(redis) <= 2 * await redis.xlen(DLQ) + 1_001


async def test_letters_cut_or_deleted_while_pages_are_read_are_left_out(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = await write_through_script(redis, 60, handler="pay")
    await write_through_script(redis, 3, handler="ship")
    wanted = LetterFilter(handler="pay")
    first = await queue.list(wanted, limit=10)
    await redis.xdel(DLQ, *ids[45:50], *ids[20:25])  # by hand: the index does not learn of it
    await redis.xtrim(DLQ, minid=ids[10], approximate=False)
    rest = await all_ids(queue, filter=wanted, limit=7)
    assert [letter.id for letter in first.items] == ids[:49:-1]
    assert rest == [*ids[:49:-1], *ids[25:45][::-1], *ids[10:20][::-1]]
    assert await indexed_entries(redis) == await redis.xlen(DLQ)


async def test_a_stream_that_was_deleted_and_created_again_is_indexed_again(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    await write_through_script(redis, 5, handler="old")
    await redis.delete(DLQ)
    assert (await queue.causes()).items == ()
    letter_id = await write(redis, handler="new", at=1_000)  # the clock was wrong
    assert await counts(queue) == {"new": 1}
    assert await all_ids(queue, filter=LetterFilter(handler="new")) == [letter_id]
    await redis.delete(DLQ)
    await write_through_script(redis, 2, handler="newer")
    assert await counts(queue) == {"newer": 2}


@pytest.mark.parametrize("part", ["", ":fingerprints", ":others", ":spoilt"])
async def test_a_damaged_index_does_not_prevent_writing_letters(
    queue: DeadLetterQueue, redis: Redis, part: str
) -> None:
    fingerprint = fingerprint_name(letter_fields())
    spoilt = f"{INDEX}:{fingerprint}" if part == ":spoilt" else f"{INDEX}{part}"
    await write_through_script(redis, 2)
    await redis.delete(spoilt)
    await redis.set(spoilt, "somebody was here")
    await write_through_script(redis, 2)
    assert await redis.xlen(DLQ) == 4
    if part == ":spoilt":  # dropped with the rest, and rebuilt
        assert await counts(queue) == {"pay": 4}
    await redis.delete(spoilt)
    await queue.reindex()
    assert await counts(queue) == {"pay": 4}


async def test_reindexing_rebuilds_the_index(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = await write_through_script(redis, 1_200, handler="pay")
    page = await queue.list(LetterFilter(handler="pay"), limit=500)
    standing = await queue.reindex(actor="ada", reason="deleted some by hand")
    [record] = (await AuditLog(redis, DLQ).list()).items
    assert (record.action, record.actor, record.reason) == ("letters_reindexed", "ada", "deleted some by hand")
    assert (standing.length, standing.unindexed) == (1_200, 200)
    rest: list[str] = []
    while page.cursor is not None:
        page = await queue.list(LetterFilter(handler="pay"), cursor=page.cursor, limit=500)
        rest += [letter.id for letter in page.items]
    assert rest == ids[:700][::-1]
    assert (await queue.stats()).unindexed == 0


# --- too many, and too long -----------------------------------------------------------------------------------------


async def test_more_than_a_thousand_fingerprints_are_counted_together_and_still_found(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(1_010):
            pipeline.xadd(DLQ, REFERENCE_FIELDS | {"event_type": f"dv.type-{number}"})
        ids = [as_text(entry_id) for entry_id in await pipeline.execute()]
    await queue.causes()
    groups = await queue.causes(limit=500)
    assert (groups.total, groups.letters) == (1_001, 1_010)
    assert (groups.items[0].fingerprint, groups.items[0].count, groups.items[0].event_type) == ("", 10, "")
    for number in (3, 999, 1_000, 1_009):
        assert await all_ids(queue, filter=LetterFilter(event_type=f"dv.type-{number}")) == [ids[number]]
    assert await redis.hlen(f"{INDEX}:fingerprints") == 1_000
    page = await queue.list(LetterFilter(event_type="dv.type-3*"), limit=5)
    assert page.cursor is not None
    assert (page.total, page.total_exact) == (1 + 10 + 100 + 10, False), "those counted together may match as well"
    page = await queue.list(LetterFilter(event_type="dv.type-3"))
    assert (page.total, page.total_exact) == (1, True), "the only page shows them all"


async def test_every_fingerprint_that_is_handed_out_selects_letters(queue: DeadLetterQueue, redis: Redis) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(1_003):
            pipeline.xadd(DLQ, REFERENCE_FIELDS | {"event_type": f"dv.type-{number}"})
        await pipeline.execute()
    await queue.causes()
    handed_out: list[str] = []
    cursor: str | None = None
    while True:  # the cause without a fingerprint ends the first page
        page = await queue.causes(limit=1 if cursor is None else 500, cursor=cursor)
        handed_out += [cause.fingerprint for cause in page.items]
        if (cursor := page.cursor) is None:
            break
    assert (len(handed_out), handed_out[0]) == (1_001, ""), "those beyond the limit are one, and come first"
    letters = await queue.list(LetterFilter(event_type="dv.type-1002"))
    for fingerprint in (handed_out[1], handed_out[-1], letters.items[0].fingerprint):
        assert len((await queue.list(LetterFilter(fingerprint=fingerprint))).items) == 1
        assert (await queue.operations.preview("replay", Selector(fingerprint=fingerprint))).total == 1
    for junk in ("", "others", "0" * 17, "ABCDEF0123456789"):
        for refuses in (LetterFilter, Selector):
            with pytest.raises(ValueError, match=r"^fingerprint must be 16 hexadecimal digits, as causes have it"):
                refuses(fingerprint=junk)


async def test_names_with_a_long_common_beginning_are_distinguished(queue: DeadLetterQueue, redis: Redis) -> None:
    long = "dv." + "x" * 300
    [one] = await write_through_script(redis, fields={b"event_type": f"{long}1".encode()})
    [other] = await write_through_script(redis, fields={b"event_type": f"{long}2".encode()})
    assert (await queue.causes()).total == 1
    assert await all_ids(queue, filter=LetterFilter(event_type=f"{long}1")) == [one]
    assert await all_ids(queue, filter=LetterFilter(event_type="*2")) == []
    assert await all_ids(queue, filter=LetterFilter(event_type="dv.*2")) == [other]


# --- whatever happens -----------------------------------------------------------------------------------------------

FILTERS = (
    LetterFilter(handler="h1"),
    LetterFilter(group="g2", handler="h0"),
    LetterFilter(event_type="dv.*"),
    LetterFilter(event_type="dv.e1"),
    LetterFilter(error_type="E1", group="g0"),
    LetterFilter(handler="h9"),
)


@pytest.mark.parametrize("seed", range(4))
async def test_filters_find_the_same_letters_as_a_full_scan(queue: DeadLetterQueue, redis: Redis, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        parts: dict[str, Any] = {
            "handler": f"h{chance.randrange(3)}",
            "group": f"g{chance.randrange(3)}",
            "error_type": f"E{chance.randrange(2)}",
            "fields": {b"event_type": f"dv.e{chance.randrange(3)}".encode()},
        }
        match chance.randrange(8):
            case 0 | 1 | 2:
                await write_through_script(redis, chance.randrange(1, 4), maxlen=chance.choice([0, 120]), **parts)
            case 3 | 4:
                for _ in range(chance.randrange(1, 4)):
                    await write(redis, **parts)
            case 5:
                if ids := [entry_id for entry_id, _ in await redis.xrange(DLQ)]:
                    await redis.xdel(DLQ, *chance.sample(ids, min(3, len(ids))))
            case 6:
                if listed := (await queue.list()).items:
                    letter = chance.choice(listed)
                    await queue.discard(letter.id)
                    if chance.random() < 0.5:
                        await queue.restore(letter.id)
            case _:
                await queue.reindex()
        await _matches_all(queue, redis, chance.choice(FILTERS))
    for wanted in FILTERS:
        await _matches_all(queue, redis, wanted)
    groups = await queue.causes(limit=500)
    assert sum(group.count for group in groups.items) >= await redis.xlen(DLQ)


async def _matches_all(queue: DeadLetterQueue, redis: Redis, wanted: LetterFilter) -> None:
    letters = [
        LetterRead.of([part for pair in fields.items() for part in pair]) for _, fields in await redis.xrange(DLQ)
    ]
    matching = [letter.text(b"letter_id") for letter in letters if _is_wanted(letter, wanted)]
    assert await all_ids(queue, filter=wanted, limit=7) == matching[::-1]


def _is_wanted(letter: LetterRead, wanted: LetterFilter) -> bool:
    exact = {b"handler": wanted.handler, b"original_group": wanted.group, b"error_type": wanted.error_type}
    pattern = wanted.event_type or "**"
    return all(value in (None, letter.text(name)) for name, value in exact.items()) and matches_pattern(
        pattern, letter.text(b"event_type")
    )


async def test_a_process_that_runs_operations_indexes_letters_of_others(queue: DeadLetterQueue, redis: Redis) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for number in range(3_000):
            pipeline.xadd(DLQ, REFERENCE_FIELDS | {"handler": f"handler-{number % 3}"})
        last = (await pipeline.execute())[-1]
    stop = asyncio.Event()
    running = asyncio.create_task(queue.operations.run(stop))
    try:
        await eventually(lambda: _is(redis.hget(INDEX, "to"), last))
    finally:
        stop.set()
        await running
    assert await indexed_entries(redis) == 3_000


async def _is(asked: Any, wanted: Any) -> bool:
    return await asked == wanted
