"""A dead-letter stream of the user's own, which is in another slot than the stream: no script may have both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from redis.asyncio import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError

from rapids import DeadLetterQueue, NonRetryableError
from rapids._core.outcomes import Ledger
from rapids._core.settings import RouterSettings
from rapids._storage import letters_elsewhere, settlement
from rapids._storage.client.connections import SharedPool, run
from rapids._storage.keys import Source, letter_mover
from rapids._storage.settlement import Letter, SettleCall
from rapids._worker.settling import settle_all
from rapids.exceptions import LetterStateError
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    all_keys,
    check_keys,
    letters,
    make_emitter,
    make_router,
    replay_stream,
    running,
    until_settled,
)

SOURCE = Source(STREAM, GROUP)


async def test_the_slots_do_differ(client: RedisCluster) -> None:
    assert client.keyslot(STREAM) != client.keyslot(DLQ)


async def test_a_failure_is_a_letter_there_and_a_replay_reaches_its_handler_alone(client: RedisCluster) -> None:
    router = make_router(client, max_deliveries=2)
    ran: list[str] = []
    broken = True

    @router.on(DvOrder, name="bill")
    async def bill(event: DvOrder) -> None:
        ran.append("bill")
        if broken:
            raise ValueError("no")

    @router.on(DvOrder, name="ship")
    async def ship(event: DvOrder) -> None:
        ran.append("ship")

    queue = DeadLetterQueue(client, DLQ)
    async with running(router):
        await make_emitter(client).emit(DvOrder(number=1))
        await until_settled(client)
        (letter,) = (await queue.list()).items
        assert (letter.handler, letter.deliveries, letter.error_type) == ("bill", 2, "ValueError")
        assert sorted(ran) == ["bill", "bill", "ship"]
        broken = False
        await queue.replay(letter.id)
        await eventually(lambda: sorted(ran) == ["bill", "bill", "bill", "ship"])
        await eventually(lambda: _is_empty(client))
        assert (await queue.list()).items == ()
        assert (await queue.get(letter.id)).state == "replayed"
        with pytest.raises(LetterStateError, match="is replayed"):
            await queue.replay(letter.id)
    keys = await check_keys(client)
    assert letter_mover(DLQ, letter.id) not in keys


async def _is_empty(client: RedisCluster) -> bool:
    return await client.xlen(replay_stream()) == 0


async def test_what_waits_or_is_handed_back_keeps_the_letters_of_handlers_that_gave_up(client: RedisCluster) -> None:
    router = make_router(client, max_deliveries=3)
    ran: list[str] = []

    @router.on(DvOrder, name="gives up")
    async def gives_up(event: DvOrder) -> None:
        ran.append("gives up")
        raise NonRetryableError("never")

    @router.on(DvOrder, name="tries on")
    async def tries_on(event: DvOrder) -> None:
        ran.append("tries on")
        if ran.count("tries on") < 3:
            raise ValueError("not yet")

    async with running(router):
        await make_emitter(client).emit(DvOrder())
        await until_settled(client)
    assert ran == ["gives up", "tries on", "tries on", "tries on"]
    assert [letter[b"handler"] for letter in await letters(client)] == [b"gives up"]
    await check_keys(client)


async def _delivered(client: RedisCluster, consumer: str = "me") -> SettleCall:
    await client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    entry_id = await client.xadd(STREAM, {"a": "b"})
    await client.xreadgroup(GROUP, consumer, {STREAM: ">"})
    return SettleCall(SOURCE, entry_id, "ack", Ledger().dump(), delivery=1, letters=[Letter("h", [b"error", b"no"])])


async def _write(client: RedisCluster, *calls: SettleCall) -> Sequence[SettleCall | Exception]:
    here, there = SharedPool(client, STREAM), SharedPool(client, DLQ)
    return await letters_elsewhere.write(here, there, "me", calls, dlq=DLQ, maxlen=100)


async def test_a_letter_is_written_once_though_the_process_dies_before_it_settles(client: RedisCluster) -> None:
    call = await _delivered(client)
    for _ in range(2):  # the second is of whoever has the entry next
        (ready,) = await _write(client, call)
    assert len(await letters(client)) == 1
    assert isinstance(ready, SettleCall)
    replies = await settlement.settle(SharedPool(client, STREAM), "me", [ready], dlq=None, dlq_maxlen=None)
    assert replies == [b"acked"]
    await letters_elsewhere.settled(SharedPool(client, DLQ), [call], dlq=DLQ)
    await _write(client, call)  # of a process that stood still all the time: the entry is not its own any more
    assert len(await letters(client)) == 1
    ttls = [await client.pttl(key) for key in await all_keys(client) if ":written:" in key]
    assert len(ttls) == 1
    assert 0 < ttls[0] <= letters_elsewhere.SETTLED_MS


async def test_a_letter_is_written_once_though_its_handler_is_renamed_before_the_entry_is_settled(
    client: RedisCluster,
) -> None:
    await client.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    entry_id = await make_emitter(client).emit(DvOrder())
    await client.xreadgroup(GROUP, "me", {STREAM: ">"})
    letter = Letter("h", [b"error", b"no"])
    await _write(client, SettleCall(SOURCE, entry_id.encode(), "ack", b"", delivery=1, letters=[letter]))
    router = make_router(client, renamed_handlers={"h": "renamed", "renamed": "again"}, claim_min_idle_ms=100)

    @router.on(DvOrder)
    async def again(event: DvOrder) -> None:
        raise NonRetryableError("never")

    async with running(router):
        await until_settled(client)
    assert [letter[b"error"] for letter in await letters(client)] == [b"no"]


async def test_who_lost_the_entry_writes_no_letter(client: RedisCluster) -> None:
    call = await _delivered(client)
    await client.xclaim(STREAM, GROUP, "another", 0, [call.entry_id])
    (ready,) = await _write(client, call)
    assert await letters(client) == []
    assert isinstance(ready, SettleCall)
    settle = settlement.settle(SharedPool(client, STREAM), "me", [ready], dlq=None, dlq_maxlen=None)
    assert await settle == [b"lost"]


async def test_while_an_entry_is_not_settled_it_is_known_for_long_that_its_letter_is_written(
    client: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another consumer takes it between the two steps, and may be long about it."""
    call, settle = await _delivered(client), settlement.settle

    async def taken_first(*arguments: Any, **options: Any) -> list[Any]:
        await client.xclaim(STREAM, GROUP, "another", 0, [call.entry_id])
        return await settle(*arguments, **options)

    monkeypatch.setattr(settlement, "settle", taken_first)
    here, there = SharedPool(client, STREAM), SharedPool(client, DLQ)
    settings = RouterSettings(stream=STREAM, group=GROUP, dlq_stream=DLQ)
    member: Any = SimpleNamespace(commands=here, letters=there, settings=settings, name="me")
    assert await settle_all(member, [call]) == [b"lost"]
    assert len(await letters(client)) == 1
    (key,) = [key for key in await all_keys(client) if ":written:" in key]
    assert await client.pttl(key) > letters_elsewhere.SETTLED_MS


async def test_what_has_no_letter_is_settled_while_the_node_for_letters_is_away(client: RedisCluster) -> None:
    class Away:
        async def send(self, commands: Sequence[Any]) -> list[Any]:
            raise RedisConnectionError("away")

    one = await _delivered(client)
    other_id = await client.xadd(STREAM, {"a": "b"})
    await client.xreadgroup(GROUP, "me", {STREAM: ">"})
    other = replace(one, entry_id=other_id, letters=())
    settings = RouterSettings(stream=STREAM, group=GROUP, dlq_stream=DLQ)
    member: Any = SimpleNamespace(commands=SharedPool(client, STREAM), letters=Away(), settings=settings, name="me")
    unwritten, acked = await settle_all(member, [one, other])
    assert isinstance(unwritten, RedisConnectionError)
    assert acked == b"acked"
    assert [row["message_id"] for row in await client.xpending_range(STREAM, GROUP, "-", "+", 10)] == [one.entry_id]


async def test_an_entry_that_comes_back_amid_it_is_not_settled_without_its_letter(client: RedisCluster) -> None:
    call = await _delivered(client, consumer="another")
    (ready,) = await _write(client, call)
    assert isinstance(ready, SettleCall)
    await client.xclaim(STREAM, GROUP, "me", 0, [call.entry_id], justid=True)
    settle = settlement.settle(SharedPool(client, STREAM), "me", [ready], dlq=None, dlq_maxlen=None)
    assert await settle == [b"unwritten"]
    assert len(await client.xpending_range(STREAM, GROUP, "-", "+", 10)) == 1


async def test_a_stream_that_takes_no_letters_keeps_its_entry_and_the_others_go_on(client: RedisCluster) -> None:
    router = make_router(client, max_deliveries=1)
    ran: list[int] = []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        ran.append(event.number)
        if event.number == 0:
            raise ValueError("no")

    await client.set(DLQ, "not a stream")
    async with running(router):
        await make_emitter(client).emit([DvOrder(number=number) for number in range(3)])
        await eventually(lambda: ran == [0, 1, 2])
        await eventually(lambda: _pending_count(client, 1))
        await client.delete(DLQ)
        await until_settled(client)
    assert ran == [0, 1, 2]
    assert len(await letters(client)) == 1


async def _pending_count(client: RedisCluster, count: int) -> bool:
    return len(await client.xpending_range(STREAM, GROUP, "-", "+", 10)) == count


async def _dead_letter(client: RedisCluster) -> str:
    router = make_router(client, max_deliveries=1)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        raise ValueError("no")

    async with running(router):
        await make_emitter(client).emit(DvOrder())
        await until_settled(client)
    ((entry_id, _),) = await client.xrange(DLQ)
    return entry_id.decode()


async def _breaks_off(commands: Any, script: Any, calls: Any) -> Any:
    if b"Move a dead letter" in script.source:
        raise RedisConnectionError("gone")
    return await run(commands, script, calls)


async def test_a_replay_that_broke_off_before_the_letter_was_moved_is_not_sent_twice(
    client: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id, queue = await _dead_letter(client), DeadLetterQueue(client, DLQ)
    with monkeypatch.context() as patched:
        patched.setattr("rapids._storage.letter_moves.run", _breaks_off)
        with pytest.raises(RedisConnectionError):
            await queue.replay(letter_id)
    assert (await queue.get(letter_id)).state == "dead"
    assert await client.xlen(replay_stream()) == 1
    replay = await queue.replay(letter_id)
    ((entry_id, fields),) = await client.xrange(replay_stream())
    assert replay.entry_id == entry_id.decode()
    assert fields[b"replay_of"] == letter_id.encode()
    assert (await queue.get(letter_id)).state == "replayed"


@pytest.mark.parametrize(
    ("first", "second"), [({"number": 8}, None), (None, {"number": 8}), ({"number": 8}, {"number": 9})]
)
async def test_what_a_replay_that_broke_off_had_sent_is_what_the_history_tells(
    client: RedisCluster, monkeypatch: pytest.MonkeyPatch, first: Any, second: Any
) -> None:
    letter_id, queue = await _dead_letter(client), DeadLetterQueue(client, DLQ)
    with monkeypatch.context() as patched:
        patched.setattr("rapids._storage.letter_moves.run", _breaks_off)
        with pytest.raises(RedisConnectionError):
            await queue.replay(letter_id, data=first)

    with pytest.raises(LetterStateError, match="is replayed"):
        await queue.replay(letter_id, data=second)

    ((entry_id, fields),) = await client.xrange(replay_stream())
    [change] = (await queue.get(letter_id)).history
    assert change.entry_id == entry_id.decode()
    assert change.data.encode() == (fields[b"data"] if first else b"")
    assert [one.after for one in change.diff[:1]] == ([first["number"]] if first else [])


async def test_a_letter_that_another_process_replays_is_waited_for(client: RedisCluster) -> None:
    letter_id, queue = await _dead_letter(client), DeadLetterQueue(client, DLQ)
    await client.set(letter_mover(DLQ, letter_id), "another's", px=300)
    await queue.discard(letter_id)
    assert (await queue.get(letter_id)).state == "discarded"
    assert await client.xlen(replay_stream()) == 0


async def test_a_letter_that_another_process_goes_on_replaying_is_left_to_it(
    client: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids.dead_letters.queue.MOVER_LOOKS", 2)
    letter_id, queue = await _dead_letter(client), DeadLetterQueue(client, DLQ)
    await client.set(letter_mover(DLQ, letter_id), "another's", px=60_000)
    for attempt in (queue.replay(letter_id), queue.discard(letter_id)):
        with pytest.raises(LetterStateError, match="is being replayed"):
            await attempt
    assert (await queue.get(letter_id)).state == "dead"
    assert await client.xlen(replay_stream()) == 0
