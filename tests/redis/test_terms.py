"""The scripts of a group with one active consumer: what they do in its term, and what they refuse afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids._core.outcomes import NO_LEDGER, Ledger
from rapids._storage import groups, scripts, settlement, terms
from rapids._storage.client.connections import SharedPool, checked, run
from rapids._storage.keys import Source
from rapids._storage.settlement import Letter, SettleCall, Verb
from rapids._storage.terms import Term
from tests.worker.helpers import DLQ, GROUP, STREAM, calls, consumers, emit_orders, pending

SOURCE = Source(STREAM, GROUP)
REPLAYS = SOURCE.replays()
MINUTE = 60_000


@pytest.fixture
async def group(redis: Redis) -> SharedPool:
    """A connection to a group that has read nothing of its stream and of its replay stream."""
    for source in (SOURCE, REPLAYS):
        await redis.xgroup_create(source.stream, GROUP, "0", mkstream=True)
    return SharedPool(redis, STREAM)


async def hold(commands: SharedPool, token: str, next_token: str) -> str:
    holder, _ = await terms.hold(commands, Term(SOURCE, token), next_token, ttl_ms=MINUTE, remember=True)
    return holder


async def take(commands: SharedPool, token: str, consumer: str = "me", count: int = 10) -> Any:
    keys = (STREAM, REPLAYS.stream, *terms.keys_of(Term(SOURCE, token)))
    return checked((await run(commands, scripts.load("take"), [(keys, (GROUP, consumer, token, count))]))[0])


async def test_a_term_lasts_until_another_consumer_becomes_active(group: SharedPool, redis: Redis) -> None:
    assert await hold(group, "", "a1") == "a1"
    assert await hold(group, "", "a1") == "a1", "its answer was lost"
    assert await hold(group, "a1", "a2") == "a1"
    assert await hold(group, "", "b1") == "a1"
    await redis.delete(SOURCE.exclusive)  # it expired
    assert await hold(group, "a1", "a2") == "a1", "nobody was active in between"
    await redis.delete(SOURCE.exclusive)
    assert await hold(group, "", "b1") == "b1"
    assert await hold(group, "a1", "a2") == "b1"
    await redis.delete(SOURCE.exclusive)
    assert await hold(group, "a1", "a2") == "a2", "another one was active in between"
    await terms.end(group, Term(SOURCE, "a1"))
    assert await hold(group, "", "b2") == "a2", "a term that has ended ends no other"
    await terms.end(group, Term(SOURCE, "a2"))
    assert not await redis.exists(SOURCE.exclusive, SOURCE.term)


async def test_the_keys_of_a_term_expire(group: SharedPool, redis: Redis) -> None:
    for _ in range(2):
        await hold(group, "", "a1")
        assert 0 < await redis.pttl(SOURCE.exclusive) <= MINUTE
        assert MINUTE < await redis.pttl(SOURCE.term) <= terms.REMEMBERED_MS


async def test_new_entries_are_for_the_active_consumer_only(group: SharedPool, redis: Redis) -> None:
    ids = [entry_id.encode() for entry_id in await emit_orders(redis, *range(3))]
    assert await take(group, "a1") is None, "nobody is active"
    await hold(group, "", "a1")
    assert await take(group, "b1") is None
    assert await take(group, "") is None
    [[[stream, entries]]] = await take(group, "a1", count=2)
    assert (stream, [entry_id for entry_id, _ in entries]) == (STREAM.encode(), ids[:2])
    await redis.delete(SOURCE.exclusive)
    [[[_, entries]]] = await take(group, "a1")
    assert [entry_id for entry_id, _ in entries] == ids[2:], "its term lasts although its key expired"
    assert await take(group, "a1") == [[], ids[2], b"0-0"]
    await hold(group, "", "b1")
    assert await take(group, "a1") is None
    assert await consumers(redis) == {"me": 3}


async def test_a_take_of_a_lost_group_says_so(group: SharedPool, redis: Redis) -> None:
    await hold(group, "", "a1")
    await redis.xgroup_destroy(REPLAYS.stream, GROUP)
    with pytest.raises(ResponseError, match="NOGROUP"):
        await take(group, "a1")


async def test_both_streams_are_taken_from(group: SharedPool, redis: Redis) -> None:
    await hold(group, "", "a1")
    for stream in (STREAM, REPLAYS.stream):
        await redis.xadd(stream, {"data": stream})
    [taken] = await take(group, "a1")
    assert [stream for stream, _ in taken] == [STREAM.encode(), REPLAYS.stream.encode()]


async def test_abandoned_and_due_entries_are_for_the_active_consumer_only(group: SharedPool, redis: Redis) -> None:
    await emit_orders(redis, 0, 1)
    await hold(group, "", "a1")
    await take(group, "a1", "dead")
    [first, second] = [row["message_id"] for row in await pending(redis)]
    await _settle(group, first, "keep", "dead", "a1")

    async def claim(token: str) -> groups.Claimed | None:
        options: dict[str, Any] = {"ids": [second], "min_idle_ms": 1, "due": 10, "term": Term(SOURCE, token)}
        return await groups.claim(group, SOURCE, "me", **options)

    await hold(group, "", "b1")
    assert await claim("b1") is None
    assert (await consumers(redis))["dead"] == 1
    claimed = await claim("a1")
    assert claimed is not None
    assert {entry.entry_id for entry in claimed.entries} <= {first, second}


async def _settle(
    commands: SharedPool, entry_id: bytes, verb: Verb, consumer: str, token: str, ledger: Ledger = NO_LEDGER
) -> Any:
    letters = [Letter("h", [b"handler", b"h"])] if verb in ("ack", "bury") and not ledger.done else []
    call = SettleCall(SOURCE, entry_id, verb, ledger.dump(), letters=letters, term=Term(SOURCE, token))
    return (await settlement.settle(commands, consumer, [call], dlq=DLQ, dlq_maxlen=None))[0]


@pytest.mark.parametrize("verb", ["ack", "keep", "park", "release", "bury"])
async def test_nothing_is_settled_after_the_term(group: SharedPool, redis: Redis, verb: Verb) -> None:
    """Though the entry still belongs to the consumer whose term has ended: nobody has claimed it yet."""
    await emit_orders(redis, 0)
    await hold(group, "", "a1")
    await take(group, "a1")
    [row] = await pending(redis)
    await redis.delete(SOURCE.exclusive)
    await hold(group, "", "b1")
    if verb == "bury":
        await redis.xack(STREAM, GROUP, row["message_id"])
        await redis.xdel(STREAM, row["message_id"])
    assert await _settle(group, row["message_id"], verb, "me", "a1") == b"lost"
    assert await redis.exists(DLQ, SOURCE.due, SOURCE.parked, SOURCE.ledger) == 0
    assert len(await pending(redis)) == (0 if verb == "bury" else 1)


async def test_that_a_handler_is_done_is_written_after_the_term(group: SharedPool, redis: Redis) -> None:
    await emit_orders(redis, 0, 1)
    await hold(group, "", "a1")
    await take(group, "a1")
    [first, second] = [row["message_id"] for row in await pending(redis)]
    await redis.set(SOURCE.exclusive, "b1")
    ledger = Ledger(done=frozenset({"h"}))
    assert await _settle(group, first, "ack", "me", "a1", ledger) == b"lost"
    assert await _settle(group, second, "keep", "me", "a1", ledger) == b"lost"
    assert [row["message_id"] for row in await pending(redis)] == [second]
    assert b'"done":["h"]' in (await redis.hget(SOURCE.ledger, second) or b"")


@pytest.mark.parametrize("verb", ["ack", "keep", "park", "release"])
async def test_entries_are_settled_in_the_term(group: SharedPool, redis: Redis, verb: Verb) -> None:
    await emit_orders(redis, 0)
    await hold(group, "", "a1")
    await take(group, "a1")
    [row] = await pending(redis)
    await redis.delete(SOURCE.exclusive)  # it expired, and nobody else is there
    done = {"ack": b"acked", "keep": b"kept", "park": b"parked", "release": b"released"}
    assert await _settle(group, row["message_id"], verb, "me", "a1") == done[verb]


async def test_an_idle_consumer_asks_for_nothing_more_in_a_term(group: SharedPool, redis: Redis) -> None:
    """Its term is looked at only if there is something to take, and is seldom remembered for longer."""
    await hold(group, "", "a1")
    for _ in range(2):  # the scripts are known at the second time
        before = await calls(redis)
        options: dict[str, Any] = {"ids": [], "min_idle_ms": 0, "due": 10}
        assert await groups.claim(group, SOURCE, "me", **options, term=Term(SOURCE, "a1")) is not None
        await terms.hold(group, Term(SOURCE, "a1"), "a2", ttl_ms=MINUTE, remember=False)
        spent = await calls(redis) - before
    assert (spent["get"], spent["pexpire"]) == (1, 1)
