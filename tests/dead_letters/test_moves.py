"""Moving many letters in one step, for an operation: each branch of the scripts, and what they count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids import DeadLetterQueue
from rapids._core.checks import stream_name
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import letters_archive, letters_archived, letters_failed_again, letters_restored
from rapids._storage.keys import replay_stream as replay_stream_of
from rapids._storage.letter_moves import Bounds, LetterMoves, Moved, NoRoomError, WorkStoppedError
from rapids._storage.operation_records import Claim
from rapids._wire.letter_format import LetterRead, original_fields, replay_fields
from rapids.exceptions import DeserializationError
from tests.dead_letters.helpers import REFERENCE_FIELDS, letter_fields, write, write_through_script
from tests.worker.helpers import DLQ, GROUP, STREAM, all_keys, as_text, check_keys, replay_stream

CLAIM = Claim(DLQ, "replay", "test", "me")
OPERATION = CLAIM.key
DISCARD = {"action": "discarded", "actor": "ada", "reason": "noise", "operation": "test"}
REPLAY = {"action": "replayed", "scope": "handler", "actor": "ada", "reason": "fixed", "operation": "test"}
RESTORE = {"action": "restored", "actor": "ada", "reason": "oops", "operation": "test"}
pytestmark = pytest.mark.standalone("on a Cluster it depends on slots: tests/cluster/test_letters.py")


@dataclass(frozen=True)
class Many:
    """What is done to many letters."""

    change: Mapping[str, str]
    scope: str = ""
    archive_maxlen: int = 100


DISCARDING = Many(DISCARD)
REPLAYING = Many(REPLAY, scope="handler")


@pytest.fixture
async def queue(redis: Redis) -> DeadLetterQueue:
    await redis.hset(OPERATION, mapping={"state": "running", "owner": "me"})  # type: ignore[misc]
    return DeadLetterQueue(redis, DLQ)


async def moved(redis: Redis, many: Many, ids: list[str]) -> Moved:
    moves = LetterMoves(SharedPool(redis, DLQ), DLQ, Bounds(3_600_000, many.archive_maxlen))
    return await moves.move_many(ids, CLAIM, many.change, scope=many.scope)


async def restored(redis: Redis, places: list[str], maxlen: int | None = None) -> Moved:
    moves = LetterMoves(SharedPool(redis, DLQ), DLQ, Bounds(3_600_000, 100, dlq_maxlen=maxlen))
    return await moves.restore_many(places, CLAIM, RESTORE)


async def counted(redis: Redis) -> tuple[int, int, str]:
    """What the operation says was done and skipped, and how far it is."""
    values = await redis.hmget(OPERATION, "done", "skipped", "cursor")  # type: ignore[misc]
    done, skipped, cursor = (as_text(value or b"") for value in values)
    return int(done or 0), int(skipped or 0), cursor


async def places(redis: Redis, ids: list[str]) -> list[str]:
    """Where letters are in the archive."""
    return [f"{await redis.zscore(letters_archived(DLQ), one):.0f}-0" for one in ids]


async def everything(redis: Redis) -> dict[str, Any]:
    return {key: await redis.dump(key) for key in sorted(await all_keys(redis))}


# --- out of the stream ----------------------------------------------------------------------------------------------


async def test_many_letters_are_discarded_each_with_its_history(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = await write_through_script(redis, 30)
    before = [await queue.get(one) for one in ids]

    assert await moved(redis, DISCARDING, ids) == Moved(30, 0, ids[-1], None)

    assert await counted(redis) == (30, 0, ids[-1])
    assert await redis.xlen(DLQ) == 0
    for was, one in zip(before, ids, strict=True):
        letter = await queue.get(one)
        assert (letter.state, letter.data, letter.handler) == ("discarded", was.data, was.handler)
        [change] = letter.history
        assert (change.action, change.actor, change.reason) == ("discarded", "ada", "noise")
        assert (change.operation, change.entry_id, change.stream) == ("test", "", "")
    assert (await queue.causes()).items == ()
    await redis.delete(OPERATION)
    await check_keys(redis)


@pytest.mark.parametrize("scope", ["handler", "group", "everyone"])
async def test_many_letters_are_replayed_in_order(queue: DeadLetterQueue, redis: Redis, scope: str) -> None:
    ids = [await write(redis, number=number) for number in range(30)]

    assert await moved(redis, replace(REPLAYING, scope=scope), ids) == Moved(30, 0, ids[-1], None)

    target = STREAM if scope == "everyone" else replay_stream()
    rows = await redis.xrange(target)
    for number, (one, (entry_id, fields)) in enumerate(zip(ids, rows, strict=True)):
        assert fields[b"data"] == b'{"number":%d,"text":""}' % number
        expected = {"handler": b"pay", "group": b"", "everyone": None}[scope]
        assert fields.get(b"replay_handler") == expected
        assert fields.get(b"replay_of") == (None if scope == "everyone" else one.encode())
        letter = await queue.get(one)
        assert letter.state == "replayed"
        assert (letter.history[-1].stream, letter.history[-1].entry_id) == (target, as_text(entry_id))
    assert await redis.exists(replay_stream()) == (scope != "everyone")


async def test_each_group_gets_its_own_replays(queue: DeadLetterQueue, redis: Redis) -> None:
    groups = [GROUP, f"{GROUP}2", GROUP]
    ids = [await write(redis, group=group) for group in groups]
    await moved(redis, REPLAYING, ids)
    assert [await redis.xlen(replay_stream(group=group)) for group in groups[:2]] == [2, 1]
    for one, group in zip(ids, groups, strict=True):
        assert (await queue.get(one)).history[-1].stream == replay_stream(group=group)


@pytest.mark.parametrize("many", [DISCARDING, REPLAYING], ids=["discard", "replay"])
async def test_missing_letters_are_skipped(queue: DeadLetterQueue, redis: Redis, many: Many) -> None:
    ids = [await write(redis) for _ in range(10)]
    for one in (ids[0], ids[4], ids[5], ids[9]):
        await redis.xdel(DLQ, one)
    assert await moved(redis, many, ids) == Moved(6, 4, ids[-1], None)
    assert await counted(redis) == (6, 4, ids[-1])
    assert await moved(redis, many, ids[:3]) == Moved(0, 3, ids[2], None)
    assert await redis.zcard(letters_archived(DLQ)) == 6


@pytest.mark.parametrize("held", [{}, {"state": "paused"}, {"owner": "another"}, {"state": "cancelled"}], ids=str)
async def test_nothing_is_moved_for_an_operation_that_is_not_owned_and_running(
    queue: DeadLetterQueue, redis: Redis, held: dict[str, str]
) -> None:
    archived = await write(redis)
    await queue.discard(archived)
    ids = [await write(redis)]
    at = await places(redis, [archived])
    await (redis.hset(OPERATION, mapping=held) if held else redis.delete(OPERATION))  # type: ignore[misc,arg-type]
    before = await everything(redis)
    for many in (DISCARDING, REPLAYING):
        with pytest.raises(WorkStoppedError):
            await moved(redis, many, ids)
    with pytest.raises(WorkStoppedError):
        await restored(redis, at)
    assert await everything(redis) == before


IRREGULAR: list[dict[Any, Any]] = [
    {"original_fields": "1:a,1:b,"},
    {"original_stream": ""},
    {"original_stream": "}{"},
    {"original_stream": "a{}b"},
    {"original_stream": "dv events"},
    {"original_stream": "dv:é"},
    {"original_stream": DLQ},
    {"original_stream": f"{{{STREAM}}}:rapids:audit"},
    {"original_group": ""},
    {"original_group": "a\nb"},
    {"schema_version": None},
    {"metadata": None},
]


@pytest.mark.parametrize("spoilt", IRREGULAR, ids=str)
async def test_a_letter_that_must_be_replayed_alone_is_named_after_those_before_it_are_moved(
    queue: DeadLetterQueue, redis: Redis, spoilt: dict[str, str | None]
) -> None:
    named = dict(zip(*[iter(letter_fields())] * 2, strict=True))
    fields = {as_text(name): as_text(value) for name, value in named.items()} | spoilt
    first = await write(redis)
    odd = as_text(await redis.xadd(DLQ, {name: value for name, value in fields.items() if value is not None}))
    last = await write(redis)

    for scope in ("handler", "everyone"):
        many = replace(REPLAYING, scope=scope)
        assert await moved(redis, many, [first, odd, last]) == Moved(
            *(1, 0) if scope == "handler" else (0, 1), first, (odd, "irregular")
        )
    assert [as_text(entry_id) for entry_id, _ in await redis.xrange(DLQ)] == [odd, last]
    assert await moved(redis, DISCARDING, [odd, last]) == Moved(2, 0, last, None)


async def test_a_letter_of_too_many_fields_is_neither_replayed_nor_discarded(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    odd = as_text(await redis.execute_command("XADD", DLQ, "*", *(b"a" for _ in range(8_000))))
    for many in (DISCARDING, REPLAYING):
        assert await moved(redis, many, [odd]) == Moved(0, 0, None, (odd, "irregular"))
    with pytest.raises(DeserializationError, match="4000 fields are more than can be moved"):
        await queue.discard(odd)
    assert await redis.xlen(DLQ) == 1


async def test_a_count_too_large_for_lua_is_left_to_python(queue: DeadLetterQueue, redis: Redis) -> None:
    letter = dict(zip(*[iter(letter_fields())] * 2, strict=True)) | {b"replay_count": b"9" * 16}
    one = as_text(await redis.xadd(DLQ, letter))  # type: ignore[arg-type]
    assert await moved(redis, REPLAYING, [one]) == Moved(0, 0, None, (one, "irregular"))
    await queue.replay(one)
    [(_, fields)] = await redis.xrange(replay_stream())
    assert fields[b"replay_count"] == b"1" + b"0" * 16


async def test_a_letter_of_rapids_streams_is_replayed_alone(queue: DeadLetterQueue, redis: Redis) -> None:
    odd = as_text(await redis.xadd(DLQ, REFERENCE_FIELDS))
    assert await moved(redis, REPLAYING, [odd]) == Moved(0, 0, None, (odd, "irregular"))


async def test_a_stream_that_takes_no_replay_blocks_and_nothing_is_lost(queue: DeadLetterQueue, redis: Redis) -> None:
    await redis.set(replay_stream(), "no stream")
    ids = [await write(redis, group=group) for group in (f"{GROUP}2", GROUP)]
    found = await moved(redis, REPLAYING, ids)
    assert (found.done, found.last) == (1, ids[0])
    assert found.blocked is not None
    assert found.blocked[0] == ids[1]
    assert "WRONGTYPE" in found.blocked[1]
    assert await counted(redis) == (1, 0, ids[0])
    assert (await queue.get(ids[1])).state == "dead"


@pytest.mark.parametrize(
    "key", [letters_archive(DLQ), letters_archived(DLQ), letters_restored(DLQ), letters_failed_again(DLQ)]
)
async def test_an_archive_key_of_another_type_changes_nothing(queue: DeadLetterQueue, redis: Redis, key: str) -> None:
    one = await write(redis)
    await redis.set(key, "something else")
    before = await everything(redis)
    for many in (DISCARDING, REPLAYING):
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await moved(redis, many, [one])
    for change in (queue.discard, queue.replay):
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await change(one)
    assert await everything(redis) == before


async def test_large_letters_are_moved_in_several_steps(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = [await write(redis, text="x" * 1_500_000) for _ in range(7)]
    left, steps = ids, 0
    while left:
        found = await moved(redis, REPLAYING, left)
        assert found.last is not None
        left, steps = left[left.index(found.last) + 1 :], steps + 1
    assert steps == 3
    assert [fields[b"replay_of"] for _, fields in await redis.xrange(replay_stream())] == [one.encode() for one in ids]


async def test_letters_among_others_are_moved_and_the_others_stay(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = [await write(redis, number=number) for number in range(100)]
    chosen = [one for at, one in enumerate(ids) if at % 7 == 0 or 40 < at < 70]
    assert await moved(redis, REPLAYING, chosen) == Moved(len(chosen), 0, chosen[-1], None)
    assert [as_text(entry_id) for entry_id, _ in await redis.xrange(DLQ)] == [one for one in ids if one not in chosen]
    assert [as_text(fields[b"replay_of"]) for _, fields in await redis.xrange(replay_stream())] == chosen


async def test_moved_letters_leave_the_index_and_the_others_stay(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = [
        one for _ in range(10) for name in ("pay", "ship") for one in await write_through_script(redis, handler=name)
    ]
    await moved(redis, DISCARDING, ids[5:12])
    assert sorted((group.handler, group.count) for group in (await queue.causes()).items) == [("pay", 7), ("ship", 6)]


async def test_one_step_moves_no_more_than_five_thousand(queue: DeadLetterQueue, redis: Redis) -> None:
    async with redis.pipeline(transaction=False) as pipeline:
        for _ in range(5_001):
            pipeline.xadd(DLQ, {"x": "y"})
        ids = [as_text(one) for one in await pipeline.execute()]
    found = await moved(redis, replace(DISCARDING, archive_maxlen=10_000), ids)
    assert (found.done, found.last) == (5_000, ids[4_999])
    assert await redis.zcard(letters_archived(DLQ)) == await redis.xlen(letters_archive(DLQ)) == 5_000
    assert await redis.xlen(DLQ) == 1


async def test_the_archive_keeps_to_its_bound(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = [await write(redis) for _ in range(30)]
    await moved(redis, replace(DISCARDING, archive_maxlen=7), ids)
    assert await redis.zcard(letters_archived(DLQ)) == await redis.xlen(letters_archive(DLQ)) == 7
    assert [(await queue.get(one)).state for one in ids[-7:]] == ["discarded"] * 7


# --- restored ones, and back ----------------------------------------------------------------------------------------


async def test_many_are_restored_with_their_history_and_moved_again(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = await write_through_script(redis, 60)
    await moved(redis, DISCARDING, ids)
    at = await places(redis, ids)

    assert await restored(redis, at) == Moved(60, 0, at[-1], None)

    assert await counted(redis) == (120, 0, at[-1])
    assert await redis.xlen(letters_archive(DLQ)) == await redis.zcard(letters_archived(DLQ)) == 0
    entries = [as_text(entry_id) for entry_id, _ in await redis.xrange(DLQ)]
    for one, entry in zip(ids, entries, strict=True):
        letter = await queue.get(one)
        assert (letter.state, [change.action for change in letter.history]) == ("dead", ["discarded", "restored"])
        assert (letter.history[1].entry_id, letter.history[1].operation) == (entry, "test")
    assert [group.count for group in (await queue.causes()).items] == [60]

    assert await moved(redis, REPLAYING, entries) == Moved(60, 0, entries[-1], None)
    for one in ids:
        actions = [change.action for change in (await queue.get(one)).history]
        assert actions == ["discarded", "restored", "replayed"]
    assert await redis.zcard(letters_restored(DLQ)) == 0
    replayed = [as_text(fields[b"replay_of"]) for _, fields in await redis.xrange(replay_stream())]
    assert replayed == ids


async def test_only_letters_whose_last_change_is_a_discard_are_restored(queue: DeadLetterQueue, redis: Redis) -> None:
    replayed, discarded, gone = [await write(redis) for _ in range(3)]
    await queue.replay(replayed)
    await queue.discard(discarded)
    await queue.discard(gone)
    at = await places(redis, [replayed, discarded, gone])
    await queue.restore(gone)
    assert await restored(redis, at) == Moved(1, 2, at[-1], None)
    assert [(await queue.get(one)).state for one in (replayed, discarded, gone)] == ["replayed", "dead", "dead"]
    assert await redis.xlen(DLQ) == 2


async def test_restoring_many_cuts_no_letters_away(queue: DeadLetterQueue, redis: Redis) -> None:
    ids = [await write(redis) for _ in range(20)]
    await moved(redis, DISCARDING, ids)
    kept = [await write(redis) for _ in range(5)]
    at = await places(redis, ids)
    assert await restored(redis, at, maxlen=12) == Moved(7, 0, at[6], (at[7], "full"))
    with pytest.raises(NoRoomError, match="dlq_maxlen=12"):
        await restored(redis, at[7:], maxlen=12)
    assert [(await queue.get(one)).state for one in (*kept, *ids)] == ["dead"] * 12 + ["discarded"] * 13
    assert (await queue.stats()).cut == 0


async def test_a_forged_history_is_not_believed_and_not_kept(queue: DeadLetterQueue, redis: Redis) -> None:
    forged = {b"rapids:history": b'[{"action":"restored"}]', b"rapids:letter_id": b"1-1", b"letter_id": b"1-1"}
    flat = letter_fields()
    one = as_text(
        await redis.execute_command("XADD", DLQ, "*", *flat, *(part for pair in forged.items() for part in pair))
    )
    assert (await queue.get(one)).history == ()
    await moved(redis, DISCARDING, [one])
    assert [change.action for change in (await queue.get(one)).history] == ["discarded"]
    await restored(redis, await places(redis, [one]))
    [(_, fields)] = await redis.xrange(DLQ)
    assert (fields[b"letter_id"], b"rapids:letter_id" in fields) == (one.encode(), False)
    assert [change.action for change in (await queue.get(one)).history] == ["discarded", "restored"]


@pytest.mark.parametrize(
    "spoilt", ["", "[]", "x", "{}", "[1]", '["x"]', "null", "[" * 20_000, "[" + "{}," * 9_000 + "{}]"]
)
async def test_a_damaged_history_does_not_prevent_a_move(queue: DeadLetterQueue, redis: Redis, spoilt: str) -> None:
    ids = [await write(redis) for _ in range(3)]
    for one in ids:
        await queue.discard(one)
        await queue.restore(one)
    rows = await redis.xrange(DLQ)
    for number, (entry_id, fields) in enumerate(rows):  # as only somebody at the command line could
        await redis.xdel(DLQ, entry_id)
        ms = int(entry_id.partition(b"-")[0])
        changed = await redis.xadd(DLQ, fields | {b"rapids:history": spoilt}, id=f"{ms + 1_000}-{number}")
        await redis.zadd(letters_restored(DLQ), {fields[b"letter_id"]: int(changed.partition(b"-")[0])})
    entries = [as_text(entry_id) for entry_id, _ in await redis.xrange(DLQ)]
    assert await moved(redis, DISCARDING, entries[:2]) == Moved(2, 0, entries[1], None)
    await queue.discard(ids[2])
    for one in ids:
        assert (await queue.get(one)).history[-1].action == "discarded"
    at = await places(redis, ids)
    assert await restored(redis, at) == Moved(3, 0, at[-1], None)


# --- what Lua sends and what Python sends -----------------------------------------------------------------------------

streams = st.sampled_from([STREAM, "{dv:events}:more", "a{dv:events}b}", "{dv:events}:other:dlq", "x}y{dv:events}"])
counts = st.sampled_from(["", "0", "7", "007", "x", "-1", "1.5", "\u0663", "9" * 15])
values = st.binary(max_size=20)
texts = st.text(max_size=20, alphabet=st.characters(codec="utf-8")).map(lambda text: text.encode())


@given(
    stream=streams,
    group=st.text(min_size=1, max_size=10, alphabet=st.characters(min_codepoint=33, max_codepoint=126)),
    handler=texts,
    count=counts,
    more=st.dictionaries(st.sampled_from([b"data", b"id", b"metadata", b"event_type", b"traceparent", b"x"]), values),
    original=values,
    scope=st.sampled_from(["handler", "group", "everyone"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_a_letter_replayed_with_others_gives_the_same_entry_as_alone(
    redis: Redis,
    stream: str,
    group: str,
    handler: bytes,
    count: str,
    more: dict[bytes, bytes],
    original: bytes,
    scope: str,
) -> None:
    await redis.flushdb()
    await redis.hset(OPERATION, mapping={"state": "running", "owner": "me"})  # type: ignore[misc]
    own = {b"original_stream": stream.encode(), b"original_group": group.encode(), b"handler": handler}
    own |= {b"replay_count": count.encode(), b"original_msg_id": original} | more
    letter = dict(zip(*[iter(letter_fields())] * 2, strict=True)) | own
    flat = [part for pair in letter.items() for part in (*pair,)]
    one = as_text(await redis.execute_command("XADD", DLQ, "*", *flat))

    assert (await moved(redis, replace(REPLAYING, scope=scope), [one])).done == 1

    stream_name("stream", stream)
    target = stream if scope == "everyone" else replay_stream_of(stream, group)
    name = LetterRead.of(flat).text(b"handler") if scope == "handler" else ""
    wanted = original_fields(flat) if scope == "everyone" else replay_fields(flat, handler=name, letter_id=one)
    [rows] = await SharedPool(redis, target).send([("XREVRANGE", target, "+", "-", "COUNT", 1)])
    assert list(rows[0][1]) == [part if isinstance(part, bytes) else str(part).encode() for part in wanted]
