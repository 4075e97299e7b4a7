"""Lines nothing else would miss: each test fails when the line it names is broken."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from rapids._core.outcomes import Ledger
from rapids._storage import groups, scripts
from rapids._storage.client.connections import SharedPool, call
from rapids._worker import worker
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError
from tests.redis.proxy import proxy_to
from tests.redis.test_settlement import SOURCE, given_to, settle
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, calls, check_keys, letters, make_router, pending, running, until_settled


class RmEvent(BaseEvent):
    number: int = 0


class RmOther(BaseEvent):
    number: int = 0


async def emit(redis: Redis, *numbers: int) -> list[str]:
    return await EventEmitter(redis, STREAM).emit([RmEvent(number=number) for number in numbers])


async def test_what_who_lost_the_entry_had_done_is_not_forgotten_by_who_keeps_it(redis: Redis) -> None:
    """1a: settle.lua, `merged(known.done, ledger.done)` in the last write_ledger."""
    entry_id = await given_to(redis, "me")
    assert await settle(redis, entry_id, "keep", "other", ledger=Ledger(frozenset({"first"}))) == "lost"
    assert await settle(redis, entry_id, "keep", ledger=Ledger(frozenset({"second"}), recorded=1)) == "kept"
    stored = orjson.loads((await redis.hgetall(SOURCE.ledger))[entry_id])
    assert sorted(stored["done"]) == ["first", "second"]


async def test_an_entry_that_lost_its_handlers_goes_with_its_ledger(redis: Redis) -> None:
    """1e: Settler.acknowledge, `entry.ledger is None`."""
    router, failed = make_router(redis, redelivery_backoff=constant(0.2)), asyncio.Event()

    @router.on(RmEvent)
    async def handle(event: RmEvent) -> None:
        failed.set()
        raise ValueError

    async with running(router):
        await emit(redis, 0)
        await failed.wait()
    without = make_router(redis)

    @without.on(RmOther)
    async def handle_other(event: RmOther) -> None: ...

    async with running(without):
        await until_settled(redis)
    await check_keys(redis)


async def test_more_than_one_chunk_is_renewed(redis: Redis) -> None:
    """2f: Leases._renew, `ids[first : first + CHUNK]`."""
    holding, seen, go_on = make_router(redis, claim_min_idle_ms=400, batch_size=1_000), [], asyncio.Event()
    other = make_router(redis, claim_min_idle_ms=400)

    @holding.on(RmEvent)
    async def handle(event: RmEvent) -> None:
        seen.append(event.number)
        await go_on.wait()

    @other.on(RmEvent)
    async def handle_too(event: RmEvent) -> None:
        seen.append(-event.number)

    await emit(redis, *range(700))
    async with running(holding):
        await eventually(lambda: _count_pending(redis, 700))
        async with running(other):
            await eventually(lambda: _renewed_often(redis))
            go_on.set()
            await until_settled(redis)
    assert min(seen) == 0, "another took what this one held"


async def _count_pending(redis: Redis, count: int) -> bool:
    return len(await pending(redis)) == count


async def _renewed_often(redis: Redis) -> bool:
    """Whether a second and a half are over, by which time leases that are not renewed have long lapsed."""
    start = await redis.get("since")
    seconds, _ = await redis.time()
    if start is None:
        await redis.set("since", seconds)
        return False
    done = seconds >= int(start) + 2
    if done:
        await redis.delete("since")
    return done


async def test_an_entry_that_is_held_and_given_out_again_runs_once(redis: Redis) -> None:
    """2g: Inflight.add_new, `if entry.entry_id not in held`."""
    router, seen, begun, go_on = make_router(redis), [], asyncio.Event(), asyncio.Event()

    @router.on(RmEvent)
    async def handle(event: RmEvent) -> None:
        seen.append(event.number)
        begun.set()
        await go_on.wait()

    async with running(router):
        await emit(redis, 0)
        await begun.wait()
        await redis.xgroup_setid(STREAM, GROUP, "0")
        await emit(redis, 1)
        await eventually(lambda: _count_pending(redis, 2))
        go_on.set()
        await until_settled(redis)
    assert seen == [0, 1]


async def test_a_parked_entry_is_given_to_nobody_however_long_it_is_parked(redis: Redis) -> None:
    """3b: claim.lua, `entry[2] ~= 'rapids:parked'`. With a min_idle_ms of 0 the owner decides already."""
    entry_id = await given_to(redis, "me")
    assert await settle(redis, entry_id, "park", why=b"because") == "parked"
    await eventually(lambda: _is_idle(redis, 5))
    claimed = await groups.claim(SharedPool(redis, STREAM), SOURCE, "other", ids=[entry_id], min_idle_ms=5, due=10)
    assert claimed.entries == []


async def _is_idle(redis: Redis, ms: int) -> bool:
    return (await pending(redis))[0]["time_since_delivered"] >= ms


async def test_a_look_for_abandoned_entries_goes_to_the_end_of_the_list(redis: Redis) -> None:
    """3d: idle_entries, `while len(page) == PAGE`."""
    ids = await emit(redis, *range(250))
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=250)
    commands = SharedPool(redis, STREAM)
    consumers = await call(commands, *groups.consumers(SOURCE))
    found = await groups.idle_entries(commands, SOURCE, consumers, min_idle_ms=0)
    assert [entry_id.decode() for entry_id, _ in found] == ids


async def test_what_may_have_killed_twice_runs_with_nothing_beside_it(redis: Redis) -> None:
    """4f: Executor._take_over, `async with self._crew.solitude`."""
    ids = await emit(redis, 0)
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    await redis.xclaim(STREAM, GROUP, "dead", 0, ids, retrycount=3)
    router, inside, beside = make_router(redis, concurrency=4, claim_min_idle_ms=300), set[int](), set[int]()

    @router.on(RmEvent)
    async def handle(event: RmEvent) -> None:
        inside.add(event.number)
        if 0 in inside:
            beside.update(inside)
        await asyncio.sleep(0.1 if event.number == 0 else 0.005)
        inside.remove(event.number)

    async with running(router):
        await emit(redis, *range(1, 400))
        await until_settled(redis)
    assert beside == {0}


async def test_a_letter_whose_answer_was_lost_is_not_written_again(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """5d: Settler._is_missing, `if one.entry.entry_id in self._unsure`."""
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through)

        @router.on(RmEvent)
        async def handle(event: RmEvent) -> None:
            proxy.lose_reply_to(scripts.load("settle").sha.encode())
            raise NonRetryableError("no")

        await redis.script_load(scripts.load("settle").source)  # else the reply lost is NOSCRIPT
        async with running(router):
            await emit(redis, 0)
            await eventually(lambda: "Redis is back" in caplog.text)
        assert len(await letters(redis)) == 1


async def test_a_group_made_again_goes_on_to_where_another_had_read(redis: Redis) -> None:
    """7g: create_again.lua, `go_on_to`; and not where that is not known to have been given out."""
    _, second, third = await emit(redis, 0, 1, 2)
    commands = SharedPool(redis, STREAM)
    assert await groups.create_again(commands, SOURCE, "0-0", given_out=False)
    assert not await groups.create_again(commands, SOURCE, third, given_out=False)
    assert await _last_delivered(redis) == "0-0"
    assert not await groups.create_again(commands, SOURCE, third, given_out=True)
    assert await _last_delivered(redis) == third
    assert not await groups.create_again(commands, SOURCE, second, given_out=True)
    assert await _last_delivered(redis) == third


async def _last_delivered(redis: Redis) -> str:
    return (await redis.xinfo_groups(STREAM))[0]["last-delivered-id"].decode()


async def test_registering_takes_nothing_from_another(redis: Redis) -> None:
    """7h: register.lua, `pending[2] ~= ARGV[2]`."""
    entry_id = await given_to(redis, "another")
    assert await groups.register(SharedPool(redis, STREAM), SOURCE, "me", [entry_id]) == ([], [entry_id])
    assert [row["consumer"] for row in await pending(redis)] == [b"another"]


async def test_a_read_may_block_for_longer_than_other_answers_may_take(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """7o: Worker, `timeout=settings.block_ms / 1000 + ANSWER_TIMEOUT`."""
    monkeypatch.setattr(worker, "ANSWER_TIMEOUT", 0.3)
    router = make_router(redis, block_ms=700)

    @router.on(RmEvent)
    async def handle(event: RmEvent) -> None: ...

    await redis.config_resetstat()
    async with running(router):
        await eventually(lambda: _reads(redis, 4))
    assert "Redis does not" not in caplog.text


async def _reads(redis: Redis, count: int) -> bool:
    return (await calls(redis))["xreadgroup"] >= count


async def test_a_stop_lets_another_be_active_at_once(redis: Redis) -> None:
    """8h: Worker._let_name_go, `self._exclusivity.release()`."""
    router = make_router(redis, exclusive=True)

    @router.on(RmEvent)
    async def handle(event: RmEvent) -> None: ...

    async with running(router):
        await eventually(lambda: redis.exists(SOURCE.exclusive))
    assert not await redis.exists(SOURCE.exclusive)


async def test_an_entry_settled_by_another_is_told(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """9g: Settler._log, `case b"gone"`."""
    router, begun, go_on = make_router(redis, claim_min_idle_ms=150), asyncio.Event(), asyncio.Event()

    @router.on(RmEvent)
    async def handle(event: RmEvent) -> None:
        begun.set()
        await go_on.wait()
        raise ValueError

    async with running(router):
        [entry_id] = await emit(redis, 0)
        await begun.wait()
        await redis.xclaim(STREAM, GROUP, "another", 0, [entry_id])
        await eventually(lambda: "lease lost" in caplog.text)
        await redis.xack(STREAM, GROUP, entry_id)
        go_on.set()
        await eventually(lambda: "settled by another" in caplog.text)
    [record] = [record for record in caplog.records if "settled by another" in record.getMessage()]
    assert {"stream", "group", "consumer", "entry_id", "event_id"} <= vars(record).keys()
