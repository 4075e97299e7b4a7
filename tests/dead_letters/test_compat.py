"""Letters of rapids-streams, which lack fields that an event needs (`rapids/_wire/compat.py`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, get_event_class
from rapids._wire.entry_format import StoredEvent
from rapids._wire.letter_format import original_fields
from tests.dead_letters.helpers import REFERENCE_FIELDS
from tests.worker.helpers import DLQ, STREAM, DvOrder, add, as_text, fields_of, replay_stream


@pytest.fixture
def queue(redis: Redis) -> DeadLetterQueue:
    return DeadLetterQueue(redis, DLQ)


def values_of(letter: list[bytes]) -> dict[bytes, bytes]:
    fields = original_fields(letter)
    return dict(zip(fields[::2], fields[1::2], strict=True))


def test_a_letter_of_rapids_streams_gets_what_an_event_must_have() -> None:
    theirs = [b"original_msg_id", b"1701234567890-0", b"event_type", b"order.placed", b"data", b"{}"]
    assert values_of(theirs) == {
        b"event_type": b"order.placed",
        b"schema_version": b"1",
        b"data": b"{}",
        b"id": b"1701234567890-0",
        b"timestamp": b"2023-11-29T05:09:27.890000+00:00",
        b"correlation_id": b"",
        b"causation_id": b"",
        b"metadata": b"{}",
    }


@pytest.mark.parametrize("entry_id", [b"", b"x", b"\xff", b"9" * 30 + b"-0", b"-1"])
def test_an_unreadable_entry_id_is_accepted(entry_id: bytes) -> None:
    assert values_of([b"original_msg_id", entry_id])[b"timestamp"] == b"1970-01-01T00:00:00+00:00"


async def test_a_letter_of_rapids_streams_is_read(queue: DeadLetterQueue, redis: Redis) -> None:
    entry_id = as_text(await redis.xadd(DLQ, REFERENCE_FIELDS))
    [letter] = (await queue.list()).items
    assert letter == await queue.get(entry_id)
    assert (letter.id, letter.entry_id, letter.handler) == (entry_id, "1701234567890-0", "call_external_api")
    assert letter.failed_at == datetime(2024, 11, 28, 12, tzinfo=UTC)
    assert letter.data == b'{"number":5,"text":"x"}'
    assert (letter.deliveries, letter.replay_count, letter.replay_of, letter.event_id) == (0, 0, None, "")


@pytest.mark.parametrize("more", [{}, {"id": "e-1", "timestamp": "2024-11-28T11:59:00+00:00", "correlation_id": "c"}])
async def test_a_letter_of_rapids_streams_is_replayed_as_an_event(
    queue: DeadLetterQueue, redis: Redis, more: dict[str, Any]
) -> None:
    letter_id = as_text(await redis.xadd(DLQ, REFERENCE_FIELDS | more))

    await queue.replay(letter_id)

    [(_, fields)] = await redis.xrange(replay_stream())
    event = StoredEvent.read([part for pair in fields.items() for part in pair]).decode()
    assert get_event_class("dv.order") is DvOrder
    assert isinstance(event, DvOrder)
    assert (event.number, event.text) == (5, "x")
    assert event.id == more.get("id", "1701234567890-0")
    assert event.timestamp.isoformat() == more.get("timestamp", "2023-11-29T05:09:27.890000+00:00")
    assert event.correlation_id == more.get("correlation_id")
    assert fields[b"replay_handler"] == b"call_external_api"


async def _replayed(redis: Redis, letter: dict[str, str]) -> dict[bytes, bytes]:
    letter_id = as_text(await redis.xadd(DLQ, letter))  # type: ignore[arg-type]
    await DeadLetterQueue(redis, DLQ).replay(letter_id)
    [(_, fields)] = await redis.xrange(replay_stream())
    return fields


async def test_missing_fields_of_an_old_letter_are_taken_from_its_entry(redis: Redis) -> None:
    event = DvOrder(number=5, text="x", correlation_id="c", metadata={"a": 1})
    entry = fields_of(event) | {b"schema_version": b"3"}
    entry_id = await add(redis, [part for pair in entry.items() for part in pair])
    letter = REFERENCE_FIELDS | {"original_msg_id": entry_id, "data": entry[b"data"].decode()}

    replayed = await _replayed(redis, letter)

    assert {name: replayed[name] for name in entry} == entry


@pytest.mark.parametrize("field", ["data", "event_type"])
async def test_another_event_s_entry_does_not_fill_it_in(redis: Redis, field: str) -> None:
    """A letter's entry id may be one that the stream has had since a flush."""
    entry = fields_of(DvOrder(number=5, text="x")) | {b"schema_version": b"3", field.encode(): b"another"}
    entry_id = await add(redis, [part for pair in entry.items() for part in pair])

    replayed = await _replayed(redis, REFERENCE_FIELDS | {"original_msg_id": entry_id})

    assert (replayed[b"schema_version"], replayed[b"id"]) == (b"1", entry_id.encode())


async def test_an_old_letter_whose_entry_is_gone_is_replayed_too(redis: Redis) -> None:
    assert (await _replayed(redis, REFERENCE_FIELDS))[b"schema_version"] == b"1"


async def test_an_old_letter_that_names_no_stream_for_its_entry_is_replayed_too(redis: Redis) -> None:
    await redis.set(STREAM, "a string")
    assert (await _replayed(redis, REFERENCE_FIELDS))[b"data"] == REFERENCE_FIELDS["data"].encode()
