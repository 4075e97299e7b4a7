"""Replaying dead letters: which handlers run, which fields stay, and what happens to those that fail again."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import field_validator
from redis.asyncio import Redis

from rapids import BaseEvent, DeadLetterQueue, Event, EventRouter, current_delivery
from rapids.exceptions import DeserializationError, LetterStateError
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    DvPayment,
    add,
    as_text,
    check_keys,
    fields_of,
    letters,
    make_emitter,
    make_router,
    replay_stream,
    running,
    until_settled,
)


class Moody:
    """A handler that fails as long as a test wants it to, and records what it received."""

    def __init__(self) -> None:
        self.works = False
        self.seen: list[Event] = []
        self.deliveries: list[Any] = []

    async def __call__(self, event: Event) -> None:
        self.seen.append(event)
        self.deliveries.append(current_delivery())
        if not self.works:
            raise ValueError("moody")


def moody_router(redis: Redis, *handlers: tuple[str, Moody], **options: Any) -> EventRouter:
    router = make_router(redis, **({"max_deliveries": 1} | options))
    for name, handler in handlers:
        router.on(DvOrder, name=name)(handler)
    return router


async def dead(redis: Redis, count: int = 1) -> list[str]:
    """Wait for so many letters, and return their ids, oldest first."""
    await eventually(lambda: _has_letters(redis, count))
    return [as_text(letter[b"letter_id"]) for letter in await letters(redis)]


async def _has_letters(redis: Redis, count: int) -> bool:
    return await redis.xlen(DLQ) == count


async def replayed(redis: Redis, group: str = GROUP) -> None:
    """Wait until the group has nothing left to replay, not even in the stream."""
    await eventually(lambda: _nothing_to_replay(redis, group))


async def _nothing_to_replay(redis: Redis, group: str) -> bool:
    stream = replay_stream(group=group)
    return await redis.xlen(stream) == 0 and (await redis.xinfo_groups(stream))[0]["pending"] == 0


# --- who gets it ----------------------------------------------------------------------------------------------------


async def test_only_the_handler_that_failed_runs_again(redis: Redis) -> None:
    failing, fine = Moody(), Moody()
    fine.works = True
    queue = DeadLetterQueue(redis, DLQ)
    async with running(moody_router(redis, ("fine", fine), ("failing", failing))):
        event = DvOrder(number=7, correlation_id="c", causation_id="b", metadata={"m": 1})
        await make_emitter(redis).emit(event)
        [letter_id] = await dead(redis)
        failing.works = True

        replay = await queue.replay(letter_id)
        await replayed(redis)

    assert (replay.letter_id, replay.scope, replay.stream) == (letter_id, "handler", replay_stream())
    assert failing.seen == [event, event]
    assert fine.seen == [event]
    again = failing.deliveries[-1]
    assert (again.replay_of, again.deliveries, again.entry_id) == (letter_id, 1, replay.entry_id)
    assert await letters(redis) == []
    assert (await queue.get(letter_id)).state == "replayed"
    await check_keys(redis)


async def test_scope_group_runs_every_handler_of_the_group(redis: Redis) -> None:
    failing, fine = Moody(), Moody()
    fine.works = True
    async with running(moody_router(redis, ("fine", fine), ("failing", failing))):
        await make_emitter(redis).emit(DvOrder())
        [letter_id] = await dead(redis)
        failing.works = True
        await DeadLetterQueue(redis, DLQ).replay(letter_id, scope="group")
        await replayed(redis)
    assert (len(fine.seen), len(failing.seen)) == (2, 2)


@pytest.mark.parametrize("scope", ["handler", "group"])
async def test_no_other_group_gets_a_replay(redis: Redis, scope: Any) -> None:
    failing, other = Moody(), Moody()
    other.works = True
    routers = [
        moody_router(redis, ("same name", failing)),
        moody_router(redis, ("same name", other), group=f"{GROUP}2"),
    ]
    async with running(*routers):
        await make_emitter(redis).emit(DvOrder())
        [letter_id] = await dead(redis)
        length = await redis.xlen(STREAM)
        failing.works = True
        await DeadLetterQueue(redis, DLQ).replay(letter_id, scope=scope)
        await replayed(redis)
        await until_settled(redis, group=f"{GROUP}2")
        assert await redis.xlen(STREAM) == length
    assert (len(failing.seen), len(other.seen)) == (2, 1)


async def test_scope_everyone_appends_to_the_event_stream(redis: Redis) -> None:
    failing, other = Moody(), Moody()
    other.works = True
    routers = [moody_router(redis, ("one", failing)), moody_router(redis, ("two", other), group=f"{GROUP}2")]
    async with running(*routers):
        event = DvOrder(number=3, correlation_id="c")
        await make_emitter(redis).emit(event)
        [letter_id] = await dead(redis)
        failing.works = True
        replay = await DeadLetterQueue(redis, DLQ).replay(letter_id, scope="everyone")
        await eventually(lambda: len(failing.seen) == len(other.seen) == 2)
    assert replay.stream == STREAM
    assert failing.seen == other.seen == [event, event]
    [first, second] = await redis.xrange(STREAM)
    assert list(first[1].items()) == list(second[1].items())


async def test_a_replay_waits_for_its_group_to_run_again(redis: Redis) -> None:
    failing = Moody()
    router = moody_router(redis, ("failing", failing))
    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        [letter_id] = await dead(redis)
    failing.works = True
    await DeadLetterQueue(redis, DLQ).replay(letter_id)
    async with running(router):
        await replayed(redis)
    assert len(failing.seen) == 2


# --- failing again --------------------------------------------------------------------------------------------------


async def test_a_replay_that_fails_again_is_a_new_letter_that_knows_where_it_comes_from(redis: Redis) -> None:
    failing, queue = Moody(), DeadLetterQueue(redis, DLQ)
    async with running(moody_router(redis, ("failing", failing))):
        entry_id = await make_emitter(redis).emit(DvOrder(correlation_id="c", causation_id="b"))
        [letter_id] = await dead(redis)
        original = await queue.get(letter_id)
        for count in (1, 2, 3):
            await queue.replay(letter_id)
            await eventually(lambda: _has_letters(redis, 1))
            before, [letter_id] = letter_id, await dead(redis)
            letter = await queue.get(letter_id)
            assert (letter.replay_of, letter.replay_count) == (before, count)
            assert (letter.entry_id, letter.stream, letter.group) == (entry_id, STREAM, GROUP)
            assert (letter.handler, letter.deliveries) == ("failing", 1)
            kept = ("event_id", "timestamp", "correlation_id", "causation_id", "data", "metadata", "event_type")
            assert [getattr(letter, name) for name in kept] == [getattr(original, name) for name in kept]
        await replayed(redis)
    await check_keys(redis)


async def test_a_replay_has_its_deliveries_like_any_other(redis: Redis) -> None:
    failing = Moody()
    async with running(moody_router(redis, ("failing", failing), max_deliveries=3)):
        await make_emitter(redis).emit(DvOrder())
        [letter_id] = await dead(redis)
        await DeadLetterQueue(redis, DLQ).replay(letter_id)
        await eventually(lambda: len(failing.seen) == 6)
        await dead(redis)
        await replayed(redis)
    assert [delivery.deliveries for delivery in failing.deliveries] == [1, 2, 3, 1, 2, 3]
    await check_keys(redis)


async def test_a_replay_for_a_removed_handler_becomes_a_letter_again_and_runs_nothing_else(redis: Redis) -> None:
    """Nor may the second letter forget its handler: replayed, it would run those that had no part in this."""
    failing, other, queue = Moody(), Moody(), DeadLetterQueue(redis, DLQ)
    other.works = True
    async with running(moody_router(redis, ("old name", failing))):
        entry_id = await make_emitter(redis).emit(DvOrder())
        [letter_id] = await dead(redis)
    await queue.replay(letter_id)
    async with running(moody_router(redis, ("new name", other))):
        [second] = await dead(redis)
        await replayed(redis)

    letter = await queue.get(second)
    assert letter.handler == "old name"
    assert (letter.replay_of, letter.replay_count, letter.entry_id) == (letter_id, 1, entry_id)
    assert "old name" in letter.error
    assert other.seen == []

    failing.works = True
    await queue.replay(second)
    async with running(moody_router(redis, ("old name", failing), ("new name", other))):
        await replayed(redis)
    assert (len(failing.seen), len(other.seen)) == (2, 0)


# --- entries that could not be read ---------------------------------------------------------------------------------


class DvPicky(BaseEvent):
    """Reads numbers only once it has learnt to read words."""

    number: int

    @field_validator("number", mode="before")
    @classmethod
    def _learnt(cls, value: Any) -> Any:
        return {"seven": 7}.get(value, value) if DvPicky.__dict__.get("learnt") else value


async def test_a_letter_is_replayed_once_its_class_can_read_it(redis: Redis) -> None:
    seen: list[Any] = []
    router = make_router(redis)

    @router.on(DvPicky)
    async def first(event: DvPicky) -> None:
        seen.append(("first", event.number))

    @router.on(DvPicky)
    async def second(event: DvPicky) -> None:
        seen.append(("second", event.number))

    raw = fields_of(DvPicky(number=1)) | {b"data": b'{"number": "seven"}'}
    queue = DeadLetterQueue(redis, DLQ)
    async with running(router):
        entry_id = await add(redis, [part for pair in raw.items() for part in pair])
        [letter_id] = await dead(redis)
        letter = await queue.get(letter_id)
        assert (letter.reason, letter.handler, letter.data) == ("deserialization_error", "", raw[b"data"])

        await queue.replay(letter_id)
        await replayed(redis)
        [again] = await dead(redis)
        letter = await queue.get(again)
        assert (letter.reason, letter.handler) == ("deserialization_error", "")
        assert (letter.replay_of, letter.replay_count) == (letter_id, 1)
        assert (letter.entry_id, letter.stream) == (entry_id, STREAM)

        DvPicky.learnt = True  # type: ignore[attr-defined]
        try:
            await queue.replay(again)
            await replayed(redis)
        finally:
            del DvPicky.learnt  # type: ignore[attr-defined]
    assert seen == [("first", 7), ("second", 7)]


IRREGULAR = [
    pytest.param([b"event_type", b"dv.order", b"data", b"{}"], id="missing fields"),
    pytest.param([b"data", b"\xff\xfe", b"event_type", b"dv.order"], id="other order"),
    pytest.param([b"event_type", b"dv.order", b"event_type", b"dv.payment", b"x", b""], id="repeated"),
    pytest.param([b"\xff\x00", b"\x00\xff", b"", b""], id="bytes"),
    pytest.param([b"original_fields", b"3:abc,", b"letter_id", b"1-1", b"a", b"b"], id="a letter's names"),
    pytest.param(
        [b"event_type", b"\xff", b"replay_handler", b"x", b"replay_of", b"1-1", b"replay_count", b"9" * 5_000],
        id="a replay's names",
    ),
    pytest.param([b"a", b"x" * 1_000_000], id="large"),
    pytest.param([part for number in range(3_000) for part in (b"f%d" % number, b"")], id="many"),
]


@pytest.mark.parametrize("raw", IRREGULAR)
async def test_the_entry_comes_back_byte_for_byte(redis: Redis, raw: list[bytes]) -> None:
    """However often it is replayed to no avail, and to everyone in the end."""
    router, queue = make_router(redis), DeadLetterQueue(redis, DLQ)
    router.on(DvOrder | DvPayment)(Moody())
    async with running(router):
        entry_id = await add(redis, raw)
        [letter_id] = await dead(redis)
        for count in (1, 2):
            await queue.replay(letter_id)
            await replayed(redis)
            before, [letter_id] = letter_id, await dead(redis)
            letter = await queue.get(letter_id)
            assert (letter.replay_of, letter.replay_count, letter.entry_id) == (before, count, entry_id)
        await queue.replay(letter_id, scope="everyone")
        await dead(redis)
    [first, second] = await redis.execute_command("XRANGE", STREAM, "-", "+", NEVER_DECODE=True)
    assert _flat(first[1]) == _flat(second[1])


def _flat(fields: Any) -> list[bytes]:
    return [part for pair in fields.items() for part in pair] if isinstance(fields, dict) else list(fields)


@pytest.mark.parametrize(
    "spoilt", [b"", b"9:abc", b"3:abc", b"3:abc,", b"-1:,", b"1:a,1:b,-8:,", b"x", b"9" * 5_000 + b":"]
)
async def test_a_letter_with_spoilt_original_fields_is_not_replayed(redis: Redis, spoilt: bytes) -> None:
    where = [b"original_stream", STREAM.encode(), b"original_group", GROUP.encode()]
    letter_id = await add(redis, [*where, b"original_fields", spoilt], DLQ)
    with pytest.raises(DeserializationError, match="original_fields"):
        await DeadLetterQueue(redis, DLQ).replay(letter_id)
    assert await redis.xlen(DLQ) == 1


# --- what is refused ------------------------------------------------------------------------------------------------


async def test_a_letter_is_replayed_once(redis: Redis) -> None:
    async with running(moody_router(redis, ("failing", Moody()))):
        await make_emitter(redis).emit(DvOrder())
        [letter_id] = await dead(redis)
    queue = DeadLetterQueue(redis, DLQ)
    await queue.replay(letter_id)
    with pytest.raises(LetterStateError) as caught:
        await queue.replay(letter_id)
    assert (caught.value.letter_id, caught.value.state, caught.value.needed) == (letter_id, "replayed", "dead")
    assert await redis.xlen(replay_stream()) == 1


async def test_an_unknown_scope_is_refused(redis: Redis) -> None:
    with pytest.raises(ValueError, match="handler, group, everyone"):
        await DeadLetterQueue(redis, DLQ).replay("1-1", scope="nobody")  # type: ignore[arg-type]
