"""Dead letters of one kind, used by the other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from rapids import DeadLetterQueue, LetterFilter
from tests.mixed_fleet.fleet import DLQ, GROUP, STREAM, Fleet
from tests.support import eventually
from tests.worker.helpers import settled

OLD_FIELDS = {
    *("original_msg_id", "original_stream", "original_group", "reason", "error", "handler", "failed_at"),
    *("event_type", "data", "id", "timestamp", "correlation_id", "causation_id", "metadata"),
}
COMMON = {"id": "e-1", "correlation_id": "request-7", "causation_id": "order-3", "metadata": {"source": "test"}}


async def test_an_old_letter_is_listed_and_shown(fleet: Fleet, redis: Redis) -> None:
    old = await fleet.old()
    [emitted] = await old.emit(("FleetTask", {"number": 7, "deeds": {"old": "refuse"}} | COMMON))
    await eventually(fleet.letters)

    page = await DeadLetterQueue(redis, DLQ).list(LetterFilter(handler="work", reason="non_retryable", q="request-7"))
    [letter] = page.items
    [(entry_id, _)] = await redis.xrange(DLQ)

    assert letter == await DeadLetterQueue(redis, DLQ).get(letter.id)
    assert letter.id == entry_id.decode()
    assert (letter.state, letter.stream, letter.group, letter.handler) == ("dead", STREAM, GROUP, "work")
    assert (letter.entry_id, letter.event_id) == (emitted["entries"][0], "e-1")
    assert (letter.event_type, letter.correlation_id, letter.causation_id) == ("fleet.task", "request-7", "order-3")
    assert letter.error == "not here"
    assert letter.metadata == b'{"source":"test"}'
    assert letter.failed_at is not None
    assert abs(datetime.now(UTC) - letter.failed_at) < timedelta(minutes=1)
    assert (letter.error_type, letter.traceback, letter.deliveries, letter.schema_version) == ("", "", 0, "")


async def test_an_old_letter_is_replayed_to_the_handler_that_failed(fleet: Fleet, redis: Redis) -> None:
    """Only services on Rapids read the replay."""
    both = {"one": "FleetTask", "two": "FleetTask"}
    old = await fleet.old(handlers=both)
    await old.emit(("FleetTask", {"number": 7, "deeds": {"old.two": "refuse"}} | COMMON))
    await eventually(fleet.letters)
    new = await fleet.new(handlers=both)
    letters = DeadLetterQueue(redis, DLQ)
    [letter] = (await letters.list()).items

    await letters.replay(letter.id, actor="ada")
    await eventually(new.done)

    [report] = new.reports("began")
    assert report["handler"] == "two"
    assert {name: report["event"][name] for name in COMMON} == COMMON
    assert old.done("two") == []
    assert (await letters.get(letter.id)).state == "replayed"
    assert await fleet.letters() == []


async def test_a_replay_to_everyone_reaches_old_ones_too(fleet: Fleet, redis: Redis) -> None:
    old = await fleet.old()
    await old.emit(("FleetTask", {"number": 7, "deeds": {"old": "refuse"}} | COMMON))
    await eventually(fleet.letters)
    letters = DeadLetterQueue(redis, DLQ)
    [letter] = (await letters.list()).items

    await letters.replay(letter.id, scope="everyone")
    await eventually(lambda: len(old.began()) == 2)

    first, second = old.reports("began")
    assert second["event"] == first["event"]


async def test_an_old_letter_that_fails_again_says_so(fleet: Fleet, redis: Redis) -> None:
    old = await fleet.old()
    await old.tasks(7, star="refuse")
    await eventually(fleet.letters)
    await fleet.new()
    letters = DeadLetterQueue(redis, DLQ)
    [first] = (await letters.list()).items

    await letters.replay(first.id)
    await eventually(lambda: fleet.letters())

    [again] = (await letters.list()).items
    assert (again.replay_of, again.replay_count, again.entry_id) == (first.id, 1, first.entry_id)
    assert again.error_type.endswith("Refused")


async def test_an_old_letter_without_a_handler_is_replayed_to_all_of_its_group(fleet: Fleet, redis: Redis) -> None:
    """What it made of an entry that failed too often names no handler."""
    old = await fleet.old(claim_min_idle_ms=50, max_deliveries=2)
    await old.tasks(7, old="fail")
    [raw] = await eventually(fleet.letters)
    new = await fleet.new()
    letters = DeadLetterQueue(redis, DLQ)
    [letter] = (await letters.list()).items

    await letters.replay(letter.id)
    await eventually(new.done)

    assert (raw[b"reason"], raw[b"handler"]) == (b"max_deliveries_exceeded", b"")


async def test_an_old_letter_of_an_unreadable_entry_is_shown_and_replayed(fleet: Fleet, redis: Redis) -> None:
    await fleet.old()
    await redis.xadd(STREAM, {"event_type": "fleet.task", "data": '{"number": "many"}', "id": "x"})
    await eventually(fleet.letters)
    await fleet.new()
    letters = DeadLetterQueue(redis, DLQ)
    [letter] = (await letters.list(LetterFilter(reason="deserialization_error"))).items
    assert letter.data == b'{"number": "many"}'

    await letters.replay(letter.id)
    await eventually(lambda: fleet.letters())

    [again] = (await letters.list()).items
    assert (again.reason, again.data, again.replay_of) == ("deserialization_error", letter.data, letter.id)


async def test_an_old_letter_is_discarded_and_restored(fleet: Fleet, redis: Redis) -> None:
    old = await fleet.old()
    await old.tasks(7, star="refuse")
    await eventually(fleet.letters)
    letters = DeadLetterQueue(redis, DLQ)
    [letter] = (await letters.list()).items

    assert (await letters.discard(letter.id)).state == "discarded"
    assert await fleet.letters() == []
    assert (await letters.restore(letter.id)).id == letter.id
    assert [restored.id for restored in (await letters.list()).items] == [letter.id]


async def test_a_replay_of_an_old_letter_states_the_version_its_event_has(fleet: Fleet, redis: Redis) -> None:
    """The letter leaves it out, the entry has it while it is in the stream: as version 1 it would be migrated again."""
    old = await fleet.old(handlers={"take": "FleetMove"})
    await old.emit(("FleetMove", {"path": "/new", "deeds": {"old": "refuse"}}))
    await eventually(fleet.letters)
    new = await fleet.new(handlers={"take": "FleetMove"})
    letters = DeadLetterQueue(redis, DLQ)
    [letter] = (await letters.list()).items

    await letters.replay(letter.id)
    await eventually(new.done)

    [report] = new.reports("began")
    assert report["event"]["path"] == "/new"


async def test_a_new_letter_has_every_field_of_an_old_one(fleet: Fleet, redis: Redis) -> None:
    for start in (fleet.old, fleet.new):
        service = await start()
        await service.tasks(7, star="refuse")
        await eventually(lambda: all_settled(fleet))
        await service.stop()

    by_old, by_new = await fleet.letters()

    assert {name.decode() for name in by_old} == OLD_FIELDS
    assert set(by_old) < set(by_new)
    same = (b"original_stream", b"original_group", b"reason", b"error", b"handler", b"event_type", b"data", b"metadata")
    assert {name: by_new[name] for name in same} == {name: by_old[name] for name in same}


async def test_both_write_into_one_dead_letter_stream_and_one_queue_lists_them(fleet: Fleet, redis: Redis) -> None:
    old, new = await fleet.old(), await fleet.new()
    for number in range(40):
        await (old, new)[number % 2].tasks(number, star="refuse")
    await eventually(lambda: all_settled(fleet))
    letters = DeadLetterQueue(redis, DLQ)

    page = await letters.list(limit=100)

    assert len(page.items) == 40
    assert {letter.consumer for letter in page.items} == {"", "new-1"}
    assert len({letter.id for letter in page.items}) == 40


async def all_settled(fleet: Fleet) -> bool:
    return await settled(fleet.redis, STREAM, GROUP)


async def test_without_a_dead_letter_stream_an_old_one_drops_what_a_new_one_parks(fleet: Fleet) -> None:
    old = await fleet.old(dlq_stream=None)
    await old.tasks(1, star="refuse")
    await eventually(lambda: all_settled(fleet))
    assert "dropping failed message" in old.complaints
    await old.stop()
    new = await fleet.new(dlq_stream=None)
    await new.tasks(2, star="refuse")

    await eventually(lambda: fleet.redis.exists("{fleet:events}:rapids:parked:fleet"))

    assert await fleet.pending() == {"rapids:parked": 1}
