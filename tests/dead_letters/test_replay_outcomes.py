"""The outcome of a replay, as far as it is known."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue
from rapids._storage import archive, keys
from rapids._storage.client.connections import Commands
from rapids._storage.keys import letters_failed_again
from rapids.dead_letters.letter import ReplayOutcome
from rapids.exceptions import LetterNotFoundError
from tests.dead_letters.helpers import write
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    check_keys,
    make_router,
    replay_stream,
    running,
)

EVENT_FIELDS = tuple(b"event_type schema_version data id timestamp correlation_id causation_id metadata".split())


async def add_replay(redis: Redis, letter_id: str, event: dict[Any, Any]) -> None:
    """Append an entry as a replay is appended: with these fields at its end, in this order."""
    replay = {"replay_handler": "pay", "replay_of": letter_id, "replay_count": 1, "original_msg_id": "1-1"}
    await redis.xadd(replay_stream(), event | replay)


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


async def outcome_of(queue: DeadLetterQueue, letter_id: str) -> ReplayOutcome:
    [replay] = (await queue.get(letter_id)).replays
    return replay


async def until(queue: DeadLetterQueue, letter_id: str, outcome: str) -> ReplayOutcome:
    """Wait until the replay has this outcome."""

    async def has() -> bool:
        return (await outcome_of(queue, letter_id)).outcome == outcome

    await eventually(has)
    return await outcome_of(queue, letter_id)


def failing(redis: Redis, *names: str, works: Callable[[], bool] = lambda: False, **options: Any) -> Any:
    router = make_router(redis, **({"max_deliveries": 1} | options))

    def register(name: str) -> None:
        @router.on(DvOrder, name=name)
        async def handle(event: DvOrder) -> None:
            if not works():
                raise ValueError(name)

    for name in names:
        register(name)
    return router


async def test_a_letter_that_was_not_replayed_has_no_replays(queue: DeadLetterQueue, redis: Redis) -> None:
    dead, discarded = await write(redis), await write(redis)
    await queue.discard(discarded)
    for letter_id in (dead, discarded):
        assert (await queue.get(letter_id)).replays == ()


async def test_a_replay_is_followed_until_it_was_handled_which_is_inferred(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    letter_id = await write(redis)
    replay = await queue.replay(letter_id)
    seen = await outcome_of(queue, letter_id)
    assert (seen.outcome, seen.scope, seen.letters, seen.is_inferred) == ("undelivered", "handler", (), False)
    assert (seen.stream, seen.entry_id) == (replay.stream, replay.entry_id)
    gate = asyncio.Event()
    router = make_router(redis)

    @router.on(DvOrder, name="pay")
    async def pay(event: DvOrder) -> None:
        await gate.wait()

    async with running(router):
        await until(queue, letter_id, "pending")
        gate.set()
        seen = await until(queue, letter_id, "handled")
    assert (seen.is_inferred, seen.letters) == (True, ())


async def test_a_replay_that_failed_again_names_the_letter_it_became(queue: DeadLetterQueue, redis: Redis) -> None:
    first = await write(redis)
    await queue.replay(first)
    async with running(failing(redis, "pay")):
        seen = await until(queue, first, "failed_again")
        [second] = seen.letters
        assert (await queue.get(second)).replay_of == first
        await queue.replay(second)
        [third] = (await until(queue, second, "failed_again")).letters
    assert (await queue.get(third)).replay_of == second
    assert (await outcome_of(queue, first)).letters == (second,)
    assert not seen.is_inferred
    await check_keys(redis)


async def test_a_failed_replay_is_linked_only_to_a_letter_that_is_archived(
    queue: DeadLetterQueue, redis: Redis
) -> None:
    dead, archived = await write(redis), await write(redis)
    await queue.discard(archived)
    for claimed in ("1-1", "", "x", f"1-1 {archived}", dead, archived):
        await add_replay(redis, claimed, dict.fromkeys(EVENT_FIELDS, "") | {b"event_type": "dv.order", b"data": "{"})
    async with running(failing(redis, "pay")):
        await eventually(lambda: has_length(redis, 7))
    assert await redis.hkeys(letters_failed_again(DLQ)) == [archived.encode()]


async def has_length(redis: Redis, letters: int) -> bool:
    return await redis.xlen(DLQ) == letters


async def test_a_replay_for_the_group_names_the_letter_of_each_handler(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    await queue.replay(letter_id, scope="group")
    async with running(failing(redis, "pay", "ship", "bill")):
        seen = await until(queue, letter_id, "failed_again")
    handlers = {(await queue.get(one)).handler for one in seen.letters}
    assert handlers == {"pay", "ship", "bill"}


async def test_a_waiting_or_parked_replay_is_pending(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    await queue.replay(letter_id)
    async with running(failing(redis, "pay", dlq_stream=None)):
        await until(queue, letter_id, "pending")
        parked = f"{{dv:events}}:rapids:replay:{GROUP}:rapids:parked:{GROUP}"

        async def is_parked() -> bool:
            return await redis.hlen(parked) == 1  # type: ignore[misc]

        await eventually(is_parked)
        assert (await outcome_of(queue, letter_id)).outcome == "pending"


async def test_a_replay_to_everyone_has_no_outcome(queue: DeadLetterQueue, redis: Redis) -> None:
    letter_id = await write(redis)
    await queue.replay(letter_id, scope="everyone")
    seen = await outcome_of(queue, letter_id)
    assert (seen.outcome, seen.stream, seen.is_inferred) == ("sent", STREAM, False)


@pytest.mark.parametrize("how", ["deleted", "something else", "made again"])
async def test_a_replay_in_another_stream_has_no_outcome(queue: DeadLetterQueue, redis: Redis, how: str) -> None:
    letter_id = await write(redis)
    await queue.replay(letter_id)
    await redis.delete(replay_stream())
    if how == "something else":
        await redis.set(replay_stream(), "x")
    if how == "made again":
        await redis.xadd(replay_stream(), {"a": "b"}, id="1-1")
    seen = await outcome_of(queue, letter_id)
    assert (seen.outcome, seen.is_inferred) == ("unknown", False)


async def test_the_outcome_of_a_replay_expires_with_the_letter(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ, archive_maxlen=1)
    first = await write(redis)
    await queue.replay(first)
    async with running(failing(redis, "pay")):
        [second] = (await until(queue, first, "failed_again")).letters
    assert {as_text(one) for one in await redis.hkeys(letters_failed_again(DLQ))} == {first}  # type: ignore[misc]
    assert await redis.pttl(letters_failed_again(DLQ)) > 0
    await queue.discard(second)
    with pytest.raises(LetterNotFoundError):
        await queue.get(first)
    assert not await redis.exists(letters_failed_again(DLQ))


async def test_a_replay_that_fails_again_during_the_look_is_not_reported_as_handled(
    queue: DeadLetterQueue, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter_id = await write(redis)
    replay = await queue.replay(letter_id)
    look = archive.replay_state
    again = "1800000000000-0"

    async def fails_first(commands: Commands, stream: str, group: str, entry_id: str) -> archive.ReplayState:
        await redis.hset(keys.letters_failed_again(DLQ), letter_id, again)
        await redis.xdel(replay.stream, replay.entry_id)
        return await look(commands, stream, group, entry_id)

    monkeypatch.setattr(archive, "replay_state", fails_first)
    [outcome] = (await queue.get(letter_id)).replays
    assert (outcome.outcome, outcome.letters) == ("failed_again", (again,))
