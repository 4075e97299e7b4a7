"""Which changes a letter's state allows: replay, discard, restore; also by many callers at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue
from rapids._core.attempt_log import Attempt, AttemptLog
from rapids.exceptions import DeserializationError, LetterNotFoundError, LetterStateError
from tests.dead_letters.helpers import REFERENCE_FIELDS, all_ids, write
from tests.support import eventually
from tests.worker.helpers import DLQ, STREAM, all_keys, as_text, check_keys, replay_stream


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


ARCHIVE = f"{DLQ}:rapids:archive"
DAY_MS = 86_400_000

# --- one after another ----------------------------------------------------------------------------------------------


async def test_a_discarded_letter_is_out_of_the_list_but_can_be_read(queue: DeadLetterQueue, redis: Redis) -> None:
    kept, letter_id = await write(redis), await write(redis)
    before = await queue.get(letter_id)

    discarded = await queue.discard(letter_id, actor="alice", reason="a test")

    assert await all_ids(queue) == [kept]
    assert discarded == await queue.get(letter_id)
    assert discarded.state == "discarded"
    [change] = discarded.history
    assert (change.action, change.actor, change.reason) == ("discarded", "alice", "a test")
    assert abs(change.at - datetime.now(UTC)) < timedelta(minutes=1)
    assert _same_but_for_state(before, discarded)
    await check_keys(redis)


async def test_a_restored_letter_has_its_id_and_is_found_everywhere(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id, newer = await write(redis), await write(redis)
    before = await queue.get(letter_id)
    await queue.discard(letter_id)

    restored = await queue.restore(letter_id, actor="bob", reason="needed")

    assert (restored.id, restored.state) == (letter_id, "dead")
    assert [change.action for change in restored.history] == ["discarded", "restored"]
    assert restored.history[1].actor == "bob"
    assert _same_but_for_state(before, restored)
    assert await all_ids(queue) == [letter_id, newer]
    assert await all_ids(queue, limit=1) == [letter_id, newer]
    await check_keys(redis)


async def test_its_attempts_and_position_go_with_it(queue: DeadLetterQueue, redis: Redis) -> None:
    log = AttemptLog.of(*(Attempt(n, 1, datetime(2026, 1, 1, tzinfo=UTC), "é", "E", "\x00") for n in range(1, 31)))
    letter_id = await write(redis, attempts=log, position="shop:7 pay")

    listed = (await queue.list()).items[0]
    discarded = await queue.discard(letter_id)
    restored = await queue.restore(letter_id)

    for letter in (listed, discarded, restored, await queue.get(letter_id)):
        assert (letter.attempts, letter.attempts_left_out) == (log.kept, 10)
        assert letter.position == "shop:7 pay"


async def test_a_letter_of_another_version_has_no_attempts(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await redis.xadd(DLQ, {"original_msg_id": "1-0", "handler": "pay", "event_type": "dv.order"})
    hostile = await redis.xadd(DLQ, {"attempts": b"[" * 1_000_000, "position": b"\xff" * 10})

    for one in (letter_id, hostile):
        letter = await queue.get(as_text(one))
        assert (letter.attempts, letter.attempts_left_out) == ((), 0)
    assert (await queue.get(as_text(letter_id))).position == ""


async def test_a_restored_letter_can_be_discarded_and_restored_again(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    for _ in range(3):
        await queue.discard(letter_id)
        await queue.restore(letter_id)
    replay = await queue.replay(letter_id, actor="eve", reason="fixed")

    letter = await queue.get(letter_id)
    assert letter.state == "replayed"
    assert [change.action for change in letter.history] == ["discarded", "restored"] * 3 + ["replayed"]
    last = letter.history[-1]
    assert (last.scope, last.stream, last.entry_id) == ("handler", replay.stream, replay.entry_id)
    assert (last.actor, last.reason) == ("eve", "fixed")
    assert await all_ids(queue) == []
    assert await redis.zcard(f"{DLQ}:rapids:restored") == 0
    await check_keys(redis)


async def test_the_entry_of_a_restored_letter_is_no_second_letter(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    await queue.discard(letter_id)
    entry_id = (await queue.restore(letter_id)).history[-1].entry_id
    assert as_text((await redis.xrange(DLQ))[0][0]) == entry_id != letter_id
    with pytest.raises(LetterNotFoundError):
        await queue.get(entry_id)
    with pytest.raises(LetterNotFoundError):
        await queue.discard(entry_id)


async def test_letters_restored_in_the_same_millisecond_have_different_ids(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    ids = [await write(redis, number=number) for number in range(20)]
    await asyncio.gather(*(queue.discard(letter_id) for letter_id in ids))
    await asyncio.gather(*(queue.restore(letter_id) for letter_id in ids))
    for number, letter_id in enumerate(ids):
        letter = await queue.get(letter_id)
        assert (letter.id, orjson.loads(letter.data)["number"]) == (letter_id, number)
    assert sorted(await all_ids(queue, limit=3)) == sorted(ids)


@pytest.mark.parametrize(
    ("first", "then", "state", "needed"),
    [
        ("discard", "discard", "discarded", "dead"),
        ("discard", "replay", "discarded", "dead"),
        ("replay", "replay", "replayed", "dead"),
        ("replay", "discard", "replayed", "dead"),
        ("replay", "restore", "replayed", "discarded"),
        (None, "restore", "dead", "discarded"),
    ],
)
async def test_a_change_that_does_not_fit_the_state_is_refused(
    queue: DeadLetterQueue, redis: Redis, first: str | None, then: str, state: str, needed: str
) -> None:
    letter_id = await write(redis)
    if first is not None:
        await getattr(queue, first)(letter_id)
    before = await _everything(redis)
    with pytest.raises(LetterStateError) as caught:
        await getattr(queue, then)(letter_id)
    assert (caught.value.letter_id, caught.value.state, caught.value.needed) == (letter_id, state, needed)
    assert await _everything(redis) == before


NO_IDS = ["", "1-1", "x", "*", "0-0", "+", "99999999999999999999-0", "1-1\n", "\u0661-\u0661", "\x00", "a" * 9_999]


@pytest.mark.parametrize("change", ["get", "replay", "discard", "restore"])
@pytest.mark.parametrize(
    "letter_id",
    ["", "1-1", "x", "*", "0-0", "+", "99999999999999999999-0", "1-1\n", "\u0661-\u0661", "\x00", "a" * 9999],
)
async def test_a_letter_that_does_not_exist(queue: DeadLetterQueue, redis: Redis, change: str, letter_id: str) -> None:
    await write(redis)
    with pytest.raises(LetterNotFoundError) as caught:
        await getattr(queue, change)(letter_id)
    assert caught.value.letter_id == letter_id
    assert isinstance(caught.value, LookupError)


async def test_an_id_in_another_notation_means_the_same_letter(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    same = f"00{letter_id}"
    assert (await queue.discard(same)).id == letter_id
    with pytest.raises(LetterStateError) as caught:
        await queue.discard(same)
    assert caught.value.letter_id == letter_id
    assert (await queue.restore(same)).id == letter_id
    assert (await queue.replay(same)).letter_id == letter_id
    assert (await queue.get(letter_id)).state == "replayed"


@pytest.mark.parametrize("change", ["replay", "discard", "restore"])
@pytest.mark.parametrize(("option", "longest"), [("actor", 200), ("reason", 1_000)])
async def test_actor_and_reason_are_bounded(
    queue: DeadLetterQueue, redis: Redis, change: str, option: str, longest: int
) -> None:
    letter_id = await write(redis)
    if change == "restore":
        await queue.discard(letter_id)
    before = await _everything(redis)
    for refused in ("x" * (longest + 1), "\ud800"):
        with pytest.raises(ValueError, match=f"{option} must be a string of at most {longest}"):
            await getattr(queue, change)(letter_id, **{option: refused})
    assert await _everything(redis) == before
    await getattr(queue, change)(letter_id, **{option: "é" * longest})


# --- many at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["replay", "discard", "restore"])
async def test_only_one_of_many_callers_changes_a_letter(queue: DeadLetterQueue, redis: Redis, change: str) -> None:
    for _ in range(10):
        letter_id = await write(redis)
        if change == "restore":
            await queue.discard(letter_id)
        results = await asyncio.gather(*(getattr(queue, change)(letter_id) for _ in range(8)), return_exceptions=True)
        kinds = Counter(type(result).__name__ for result in results)
        assert kinds["LetterStateError"] == 7, kinds
    if change == "replay":
        assert await redis.xlen(replay_stream()) == 10


async def test_a_letter_that_others_move_is_never_missing(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    stop = asyncio.Event()

    async def meddle(change: str) -> None:
        while not stop.is_set():
            try:
                await getattr(queue, change)(letter_id)
            except LetterStateError:
                await asyncio.sleep(0)

    meddling = [asyncio.create_task(meddle(change)) for change in ("discard", "restore", "discard", "restore")]
    for _ in range(300):
        assert (await queue.get(letter_id)).id == letter_id
    stop.set()
    await asyncio.gather(*meddling)


# --- how long it is kept --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["replay", "discard"])
async def test_the_archive_expires(redis: Redis, change: str) -> None:
    queue = DeadLetterQueue(redis, DLQ, retention=3_600)
    letter_id = await write(redis)
    await getattr(queue, change)(letter_id)
    for key in (ARCHIVE, f"{DLQ}:rapids:archived"):
        assert 3_500_000 < await redis.pttl(key) <= 3_600_000
    await check_keys(redis)


async def test_the_archive_is_kept_a_fortnight_by_default(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    await queue.discard(letter_id)
    assert 13.9 * DAY_MS < await redis.pttl(ARCHIVE) <= 14 * DAY_MS


async def test_after_its_retention_a_letter_is_gone(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    letter_id = await write(redis)
    await queue.discard(letter_id)
    await redis.pexpire(ARCHIVE, 1)  # as at the end of its retention
    await eventually(lambda: _is_expired(redis, ARCHIVE))
    for change in ("get", "restore", "replay"):
        with pytest.raises(LetterNotFoundError):
            await getattr(queue, change)(letter_id)


async def _is_expired(redis: Redis, key: str) -> bool:
    return not await redis.exists(key)


async def test_the_archive_holds_no_more_than_its_cap(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ, archive_maxlen=5)
    ids = [await write(redis) for _ in range(12)]
    for letter_id in ids:
        await queue.discard(letter_id)
    assert await redis.zcard(f"{DLQ}:rapids:archived") == 5
    assert await redis.xlen(ARCHIVE) == 5
    for gone in ids[:7]:
        with pytest.raises(LetterNotFoundError):
            await queue.get(gone)
    assert [(await queue.get(one)).state for one in ids[7:]] == ["discarded"] * 5


async def test_letters_past_their_retention_leave_an_archive_that_still_exists(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ, retention=0.5)
    first = await write(redis)
    await queue.discard(first)

    async def is_dropped() -> bool:
        await queue.discard(await write(redis))  # which drops what is past its time, and lets the archive live on
        return await redis.zscore(f"{DLQ}:rapids:archived", first) is None

    await eventually(is_dropped)
    assert await redis.xlen(ARCHIVE) == await redis.zcard(f"{DLQ}:rapids:archived") > 1
    with pytest.raises(LetterNotFoundError):
        await queue.get(first)


async def test_a_restored_letter_outlives_its_archive_with_its_history(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    letter_id = await write(redis)
    await queue.discard(letter_id)
    await queue.restore(letter_id)
    for key in (ARCHIVE, f"{DLQ}:rapids:archived"):
        await redis.pexpire(key, 1)
        await eventually(partial(_is_expired, redis, key))
    letter = await queue.get(letter_id)
    assert (letter.id, letter.state) == (letter_id, "dead")
    assert [change.action for change in letter.history] == ["discarded", "restored"]
    assert await all_ids(queue) == [letter_id]
    assert (await queue.discard(letter_id)).state == "discarded"


async def test_the_dead_letter_stream_is_trimmed_when_a_letter_comes_back(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ, dlq_maxlen=100)
    letter_id = await write(redis)
    await queue.discard(letter_id)
    async with redis.pipeline(transaction=False) as pipeline:
        for _ in range(1_000):
            pipeline.xadd(DLQ, REFERENCE_FIELDS)
        await pipeline.execute()
    await queue.restore(letter_id)
    assert await redis.xlen(DLQ) < 300
    assert (await queue.get(letter_id)).state == "dead"


# --- letters of other hands -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["handler", "group", "everyone"])
@pytest.mark.parametrize(
    "fields",
    [{"x": "y"}, {"original_stream": "", "original_group": "g"}, {"original_stream": "}{", "original_group": "g"}],
)
async def test_a_letter_without_an_origin_is_not_replayed(
    queue: DeadLetterQueue, redis: Redis, fields: dict[Any, Any], scope: Any
) -> None:
    letter_id = as_text(await redis.xadd(DLQ, fields))
    with pytest.raises(DeserializationError, match="where it is from"):
        await queue.replay(letter_id, scope=scope)
    assert await all_keys(redis) == {DLQ}
    assert (await queue.get(letter_id)).state == "dead"


@pytest.mark.parametrize("scope", ["handler", "group", "everyone"])
@pytest.mark.parametrize("stream", [DLQ, f"{{{STREAM}}}:rapids:audit", f"{{{STREAM}}}:rapids:replay:other"])
async def test_a_forged_letter_is_not_replayed_into_a_key_of_rapids(
    queue: DeadLetterQueue, redis: Redis, stream: str, scope: Any
) -> None:
    """Who may write letters could add to the audit log, or have another group's handlers run."""
    letter_id = as_text(await redis.xadd(DLQ, {**REFERENCE_FIELDS, "original_stream": stream}))
    before = await _everything(redis)
    with pytest.raises(DeserializationError, match="which is a key of Rapids itself"):
        await queue.replay(letter_id, scope=scope)
    assert await _everything(redis) == before


async def test_a_replay_into_something_that_is_no_stream_loses_nothing(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    await redis.set(STREAM, "a string")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await queue.replay(letter_id, scope="everyone")
    assert (await queue.get(letter_id)).state == "dead"
    assert await all_ids(queue) == [letter_id]


def _same_but_for_state(one: Any, other: Any) -> bool:
    names = set(type(one).__dataclass_fields__) - {"state", "history", "stored"}
    return all(getattr(one, name) == getattr(other, name) for name in names)


async def _everything(redis: Redis) -> dict[bytes, Any]:
    return {key: await redis.dump(key) for key in sorted(await all_keys(redis))}


async def test_the_largest_lengths_that_are_allowed_are_understood_by_the_scripts(redis: Redis) -> None:
    most = 2**63 - 1  # more than a number of Lua holds
    queue = DeadLetterQueue(redis, DLQ, dlq_maxlen=most, maxlen=most, archive_maxlen=most)
    letter_id = await write(redis)
    await queue.discard(letter_id)
    await queue.restore(letter_id)
    assert (await queue.replay(letter_id, scope="everyone")).letter_id == letter_id
