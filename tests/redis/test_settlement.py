"""The settling script by itself: when it is repeated, late, or sent by a consumer that has lost the entry."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.outcomes import Ledger
from rapids._storage import groups, settlement
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source, default_dlq
from rapids._storage.reads import acknowledgement
from rapids._storage.settlement import Letter, SettleCall
from rapids._worker import settler
from rapids.exceptions import NonRetryableError
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    check_keys,
    consumers,
    letters,
    make_emitter,
    make_router,
    running,
    until_settled,
)

SOURCE = Source(STREAM, GROUP)
DLQ = default_dlq(STREAM)
"""In the stream's slot, as one script is to have both."""


async def given_to(redis: Redis, consumer: str) -> bytes:
    """One entry, pending for a consumer; its id."""
    [entry_id] = await make_emitter(redis).emit([DvOrder()])
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, consumer, {STREAM: ">"})
    return entry_id.encode()


async def given_again(redis: Redis, consumer: str) -> bytes:
    """Another one, of the group that is there."""
    [entry_id] = await make_emitter(redis).emit([DvOrder()])
    await redis.xreadgroup(GROUP, consumer, {STREAM: ">"})
    return entry_id.encode()


async def test_a_letter_is_written_with_the_largest_dlq_maxlen(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    one = SettleCall(SOURCE, entry_id, "ack", Ledger().dump(), letters=[Letter("h", [b"name", b"value"])])
    assert await settlement.settle(SharedPool(redis, STREAM), "me", [one], dlq=DLQ, dlq_maxlen=2**63 - 1) == [b"acked"]
    assert await redis.xlen(DLQ) == 1


async def settle(redis: Redis, entry_id: bytes, verb: Any = "ack", consumer: str = "me", **options: Any) -> str:
    ledger = options.pop("ledger", Ledger())
    one = SettleCall(SOURCE, entry_id, verb, ledger.dump(), **options)
    commands, maxlen = SharedPool(redis, STREAM), options.get("maxlen")
    [reply] = await settlement.settle(commands, consumer, [one], dlq=DLQ, dlq_maxlen=maxlen)
    if isinstance(reply, Exception):
        raise reply
    return as_text(reply)


def letter(handler: str) -> Letter:
    return Letter(handler, [b"handler", handler.encode(), b"data", b"\xff\x00"])


async def state_of(redis: Redis) -> dict[str, Any]:
    keys = {"ledger": SOURCE.ledger, "due": SOURCE.due, "parked": SOURCE.parked}
    return {name: await redis.exists(key) for name, key in keys.items()} | {"pending": await _pending(redis)}


async def _pending(redis: Redis) -> list[tuple[str, int]]:
    rows = await redis.xpending_range(STREAM, GROUP, "-", "+", 100)
    return [(as_text(row["consumer"]), row["times_delivered"]) for row in rows]


NOTHING = {"ledger": 0, "due": 0, "parked": 0, "pending": []}


async def test_a_letter_is_written_once_however_often_the_script_is_repeated(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    said = [await settle(redis, entry_id, letters=[letter("pay"), letter("ship")]) for _ in range(3)]
    assert said == ["acked", "gone", "gone"]
    assert [one[b"handler"] for one in await letters(redis, DLQ)] == [b"pay", b"ship"]
    assert await state_of(redis) == NOTHING


async def test_a_letter_of_a_kept_entry_is_written_once_too(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    ledger = Ledger(frozenset({"done"}), frozenset({"pay"}), recorded=1)
    for _ in range(2):
        assert await settle(redis, entry_id, "keep", ledger=ledger, letters=[letter("pay")], delay_ms=0) == "kept"
        await redis.xclaim(STREAM, GROUP, "me", 0, [entry_id], justid=True)
    assert len(await letters(redis, DLQ)) == 1
    assert await settle(redis, entry_id, letters=[letter("pay"), letter("ship")]) == "acked"
    assert [one[b"handler"] for one in await letters(redis, DLQ)] == [b"pay", b"ship"]
    assert await state_of(redis) == NOTHING


async def test_the_letter_s_id_is_its_entry_s_and_comes_last(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    await redis.xadd(DLQ, {"far": "ahead"}, id="9000000000000-5")  # of a clock that was wrong
    await settle(redis, entry_id, letters=[letter("pay"), letter("ship")])
    entries = (await redis.xrange(DLQ))[1:]
    assert [as_text(one) for one, _ in entries] == ["9000000000000-6", "9000000000000-7"]
    for letter_id, fields in entries:
        assert fields[b"letter_id"] == letter_id
        assert list(fields)[-1] == b"letter_id"
        assert fields[b"data"] == b"\xff\x00"


async def test_the_dead_letter_stream_is_trimmed(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    one = SettleCall(
        SOURCE, entry_id, "ack", Ledger().dump(), letters=[letter(f"h{number}") for number in range(1_000)]
    )
    await settlement.settle(SharedPool(redis, STREAM), "me", [one], dlq=DLQ, dlq_maxlen=100)
    assert await redis.xlen(DLQ) < 300


async def test_an_entry_whose_letter_cannot_be_written_stays_pending(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    await redis.set(DLQ, "a string")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await settle(redis, entry_id, letters=[letter("pay")])
    assert (await state_of(redis))["pending"] == [("me", 1)]
    await redis.delete(DLQ)
    assert await settle(redis, entry_id, letters=[letter("pay")]) == "acked"
    assert len(await letters(redis, DLQ)) == 1


# --- the lease was lost ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["keep", "park", "release"])
async def test_a_consumer_that_lost_an_entry_records_only_finished_handlers(redis: Redis, verb: str) -> None:
    entry_id = await given_to(redis, "another")
    ledger = Ledger(frozenset({"done"}), frozenset({"pay"}), recorded=7)

    assert await settle(redis, entry_id, verb, ledger=ledger, letters=[letter("pay")], delay_ms=99_999) == "lost"

    assert await state_of(redis) == {"ledger": 1, "due": 0, "parked": 0, "pending": [("another", 1)]}
    stored = orjson.loads((await redis.hgetall(SOURCE.ledger))[entry_id])
    assert (stored["done"], list(stored["dead"]), stored["n"]) == (["done"], [], 0)
    assert await letters(redis, DLQ) == []


async def test_a_consumer_that_lost_an_entry_but_finished_it_acknowledges_it(redis: Redis) -> None:
    entry_id = await given_to(redis, "another")
    assert await settle(redis, entry_id) == "lost"
    assert await state_of(redis) == NOTHING


async def test_a_consumer_that_lost_an_entry_writes_no_letter(redis: Redis) -> None:
    entry_id = await given_to(redis, "another")
    assert await settle(redis, entry_id, letters=[letter("pay")]) == "lost"
    assert await letters(redis, DLQ) == []
    assert (await state_of(redis))["pending"] == [("another", 1)]


# --- waiting, parked, released --------------------------------------------------------------------------------------


async def test_a_kept_entry_is_given_out_when_it_is_due(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    commands = SharedPool(redis, STREAM)
    await settle(redis, entry_id, "keep", delay_ms=60_000, ledger=Ledger(frozenset({"done"}), recorded=1))
    early = await groups.claim(commands, SOURCE, "other", ids=[entry_id], min_idle_ms=1, due=10)
    assert early.entries == []
    assert early.next_due_ms is not None
    assert 0 < early.next_due_ms <= 60_000

    await redis.zincrby(SOURCE.due, -60_000, entry_id)  # a minute later
    claims = await asyncio.gather(
        *(groups.claim(commands, SOURCE, f"c{number}", ids=(), min_idle_ms=0, due=10) for number in range(5))
    )
    [entry] = [entry for claimed in claims for entry in claimed.entries]
    assert (entry.entry_id, entry.deliveries) == (entry_id, 2)
    assert Ledger.load(entry.ledger).done == {"done"}


async def test_a_released_entry_is_due_at_once_and_its_delivery_does_not_count(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    assert await settle(redis, entry_id, "release", deliveries=0) == "released"
    claimed = await groups.claim(SharedPool(redis, STREAM), SOURCE, "other", ids=(), min_idle_ms=0, due=10)
    assert [(entry.entry_id, entry.deliveries) for entry in claimed.entries] == [(entry_id, 1)]


async def test_a_parked_entry_is_not_delivered(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    assert await settle(redis, entry_id, "park", why=b"because") == "parked"
    claimed = await groups.claim(SharedPool(redis, STREAM), SOURCE, "other", ids=[entry_id], min_idle_ms=0, due=10)
    assert claimed.entries == []
    assert await consumers(redis) == {"me": 0, "rapids:parked": 1}
    assert await redis.hgetall(SOURCE.parked) == {entry_id: b"because"}
    await check_keys(redis, settled=False)


@pytest.mark.parametrize("verb", ["keep", "park", "release"])
async def test_an_entry_that_was_trimmed_is_not_kept(redis: Redis, verb: str) -> None:
    entry_id = await given_to(redis, "me")
    await redis.xdel(STREAM, entry_id)
    assert await settle(redis, entry_id, verb, letters=[letter("ship")]) == "trimmed"
    assert await _pending(redis) == [("me", 1)], "what else there is to be written of it may yet fail"
    assert await settle(redis, entry_id, letters=[letter("pay"), letter("ship")]) == "acked"
    assert [row[b"handler"] for row in await letters(redis, DLQ)] == [b"ship", b"pay"]
    assert await state_of(redis) == NOTHING


def whole_letter(handler: str, entry_id: bytes, group: str = GROUP) -> Letter:
    fields = {"original_msg_id": entry_id, "original_group": group.encode(), "handler": handler.encode()}
    return Letter(handler, [part for name, value in fields.items() for part in (name.encode(), value)])


async def test_letters_of_a_trimmed_entry_are_written_once(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    await redis.xtrim(STREAM, maxlen=0, approximate=False)
    await redis.xack(STREAM, GROUP, entry_id)
    await redis.hset(SOURCE.ledger, entry_id, Ledger().dump())  # type: ignore[arg-type]
    others = [whole_letter("pay", b"1-1"), whole_letter("ship", entry_id), whole_letter("pay", entry_id, "another")]
    for other in others:
        await redis.execute_command("XADD", DLQ, "*", *other.fields)
    for _ in range(2):
        assert await settle(redis, entry_id, "bury", letters=[whole_letter("pay", entry_id)]) == "buried"
    assert len(await letters(redis, DLQ)) == len(others) + 1
    assert await state_of(redis) == NOTHING


async def test_letters_of_a_pending_entry_are_written_with_its_acknowledgement(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    assert await settle(redis, entry_id, "bury", letters=[letter("pay")]) == "acked"
    assert await settle(redis, entry_id, "bury", letters=[letter("pay")], consumer="another") == "buried"
    assert await state_of(redis) == NOTHING
    entry_id = await given_again(redis, "me")
    assert await settle(redis, entry_id, "bury", letters=[letter("pay")], consumer="another") == "lost"
    assert await _pending(redis) == [("me", 1)]


async def test_a_very_long_delay_is_accepted(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    assert await settle(redis, entry_id, "keep", delay_ms=round(1e300)) == "kept"
    claimed = await groups.claim(SharedPool(redis, STREAM), SOURCE, "other", ids=(), min_idle_ms=0, due=10)
    assert claimed.entries == []
    assert claimed.next_due_ms is None or claimed.next_due_ms > 10**9


# --- leases ---------------------------------------------------------------------------------------------------------


async def test_renewing_keeps_an_entry_young_and_its_count_as_it_is(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    await redis.xclaim(STREAM, GROUP, "me", 0, [entry_id], idle=3_600_000, justid=True)
    assert await groups.renew(SharedPool(redis, STREAM), SOURCE, "me", [entry_id]) == []
    [row] = await redis.xpending_range(STREAM, GROUP, "-", "+", 10)
    assert row["time_since_delivered"] < 3_600_000
    assert row["times_delivered"] == 1


async def test_renewing_takes_no_entry_of_another_consumer_and_keeps_trimmed_ones(redis: Redis) -> None:
    commands, entry_id = SharedPool(redis, STREAM), await given_to(redis, "another")
    assert await groups.renew(commands, SOURCE, "me", [entry_id, b"1-1"]) == [entry_id, b"1-1"]
    await redis.xdel(STREAM, entry_id)
    assert await groups.renew(commands, SOURCE, "another", [entry_id]) == []
    assert await _pending(redis) == [("another", 1)]


async def test_an_acknowledged_replay_is_deleted(redis: Redis) -> None:
    replays = SOURCE.replays()
    entry_id = await redis.xadd(replays.stream, {"a": "b"})
    await redis.xgroup_create(replays.stream, GROUP, "0")
    await redis.xreadgroup(GROUP, "me", {replays.stream: ">"})
    await SharedPool(redis, replays.stream).send(acknowledgement(replays, [entry_id]))
    assert await redis.xlen(replays.stream) == 0


# --- failed attempts ------------------------------------------------------------------------------------------------

FAILED = AttemptLog(
    (
        Attempt(1),
        *(
            Attempt(
                number, 2, datetime(2026, 1, 1, 12, 0, 0, 1_000 * number, tzinfo=UTC), "é/\x00", "a.B", '"\\\U0001f600'
            )
            for number in range(2, 60)
        ),
    )
)
LOGS = (
    ("", AttemptLog.of(Attempt(3))),
    ("1", AttemptLog.of(*FAILED.kept)),
    ("pay \x00é", AttemptLog.of(*FAILED.kept[:3])),
)


@pytest.mark.parametrize("verb", ["keep", "release", "park"])
async def test_failed_attempts_come_through_the_script_as_they_were(redis: Redis, verb: str) -> None:
    entry_id = await given_to(redis, "me")

    await settle(redis, entry_id, verb, ledger=Ledger(recorded=1, attempts=LOGS), letters=[letter("ship")])

    assert Ledger.load(await redis.hget(SOURCE.ledger, entry_id)).attempts == LOGS


async def test_a_consumer_that_lost_an_entry_keeps_the_recorded_attempts(redis: Redis) -> None:
    entry_id = await given_to(redis, "another")
    await redis.hset(SOURCE.ledger, entry_id, Ledger(recorded=1, attempts=LOGS).dump())

    late = Ledger(frozenset({"mail"}), recorded=1, attempts=(("pay", AttemptLog.of(Attempt(7))),))
    assert await settle(redis, entry_id, "keep", ledger=late) == "lost"

    assert Ledger.load(await redis.hget(SOURCE.ledger, entry_id)) == Ledger(
        frozenset({"mail"}), recorded=1, attempts=LOGS
    )


async def test_the_ledger_keeps_them_where_a_letter_is_written_and_the_next_one_cannot_be(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    await redis.hset(SOURCE.ledger, entry_id, Ledger(recorded=1, attempts=LOGS).dump())
    ledger = Ledger(recorded=2, attempts=LOGS[:1])
    too_many = Letter("mail", [b"x"] * 20_000)
    with pytest.raises(ResponseError):
        await settle(redis, entry_id, "keep", ledger=ledger, letters=[letter("ship"), too_many])
    stored = Ledger.load(await redis.hget(SOURCE.ledger, entry_id))
    assert (stored.dead, stored.attempts) == ({"ship"}, LOGS)


async def test_a_ledger_without_attempts_stays_without(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    await settle(redis, entry_id, "keep", ledger=Ledger(frozenset({"mail"}), recorded=1))
    assert b"attempts" not in await redis.hget(SOURCE.ledger, entry_id)


@pytest.mark.parametrize("stored", [{}, [], 7, "x", None, {"pay": {}}, {"pay": [[{"a": [None]}]]}], ids=repr)
async def test_an_entry_is_settled_whatever_its_stored_attempts_are(redis: Redis, stored: Any) -> None:
    entry_id = await given_to(redis, "me")
    ledger = {"n": 1, "done": [], "dead": [], "gave_up": [], "waits": {}, "attempts": stored}
    await redis.hset(SOURCE.ledger, entry_id, orjson.dumps(ledger))
    assert await settle(redis, entry_id, letters=[letter("pay")]) == "acked"
    assert await state_of(redis) == NOTHING


def test_a_flush_is_bounded() -> None:
    assert settler.MAX_FLUSH <= 1_000


# --- undone by a failover ---------------------------------------------------------------------------------------------

TAKEN_WITH = Ledger(done=frozenset({"mail"}), dead=frozenset({"pay"}), recorded=1)
"""As a master answered whose last moments are lost: `pay` had its dead letter."""


@pytest.mark.parametrize("verb", ["ack", "keep", "release", "park"])
async def test_an_entry_whose_dead_letter_a_failover_undid_is_not_settled_without_it(redis: Redis, verb: str) -> None:
    entry_id = await given_to(redis, "me")
    after = replace(TAKEN_WITH, done=frozenset({"mail", "ship"}))
    assert await settle(redis, entry_id, verb, ledger=after, taken_with=TAKEN_WITH.dump()) == "lost"
    assert await _pending(redis) == [("me", 1)]
    stored = Ledger.load(await redis.hget(SOURCE.ledger, entry_id))
    assert (stored.done, stored.dead) == ({"mail", "ship"}, set())


async def test_an_entry_whose_dead_letter_a_failover_undid_is_not_settled_by_another_consumer(redis: Redis) -> None:
    entry_id = await given_to(redis, "another")
    assert await settle(redis, entry_id, taken_with=TAKEN_WITH.dump()) == "lost"
    assert await _pending(redis) == [("another", 1)]


async def test_a_dead_letter_that_is_in_the_ledger_is_not_undone(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    await redis.hset(SOURCE.ledger, entry_id, TAKEN_WITH.dump())
    assert await settle(redis, entry_id, taken_with=TAKEN_WITH.dump()) == "acked"
    assert await state_of(redis) == NOTHING


async def test_a_handler_whose_dead_letter_a_failover_undid_runs_again(redis: Redis) -> None:
    """Else the entry was settled by a process that took it from the master of before, with no letter left of it."""
    runs = Counter[str]()
    router = make_router(redis, claim_min_idle_ms=200, dlq_stream=DLQ)

    @router.on(DvOrder)
    async def picky(event: DvOrder) -> None:
        runs["picky"] += 1
        raise NonRetryableError("not this one")

    @router.on(DvOrder)
    async def flaky(event: DvOrder) -> None:
        runs["flaky"] += 1
        if runs["flaky"] == 1:
            raise ConnectionError
        if runs["flaky"] == 2:  # as if another master had taken over, which does not know of the first delivery
            await redis.delete(SOURCE.ledger, DLQ)

    async with running(router):
        await make_emitter(redis).emit([DvOrder()])
        await until_settled(redis)
        await eventually(lambda: runs["picky"] == 2)
        await until_settled(redis)
    assert len(await letters(redis, DLQ)) == 1
