"""The emitter on a server that answers; tests/redis has the ones on a server that does not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, field_serializer
from redis.asyncio import Redis

from rapids import BaseEvent, Event, EventEmitter, GenericEvent, RapidsError, correlation_scope
from rapids.correlation import CorrelationScope
from rapids.exceptions import EmitError, NotConfiguredError, SerializationError


class DvEmitted(BaseEvent):
    number: int = 0


class DvAnything(BaseEvent):
    value: Any = None


async def stored(redis: Redis, stream: str = "events:all") -> list[dict[bytes, bytes]]:
    return [fields for _, fields in await redis.xrange(stream)]


async def numbers(redis: Redis) -> list[int]:
    return [orjson.loads(fields[b"data"])["number"] for fields in await stored(redis)]


async def the_one(redis: Redis) -> dict[bytes, bytes]:
    [fields] = await stored(redis)
    return fields


# --- what it stores -------------------------------------------------------------------------------------------------


async def test_one_event_is_one_entry_and_its_id_is_returned(redis: Redis) -> None:
    event = DvEmitted(number=7, metadata={"source": "api"})

    entry_id = await EventEmitter(redis, stream="dv:one").emit(event)

    [(stored_id, fields)] = await redis.xrange("dv:one")
    assert entry_id == stored_id.decode()
    assert list(fields) == [
        b"event_type",
        b"schema_version",
        b"data",
        b"id",
        b"timestamp",
        b"correlation_id",
        b"causation_id",
        b"metadata",
    ]
    assert fields[b"event_type"] == b"dv.emitted"
    assert orjson.loads(fields[b"data"]) == {"number": 7}
    assert fields[b"id"] == event.id.encode()
    assert orjson.loads(fields[b"metadata"]) == {"source": "api"}


async def test_a_list_is_stored_in_order_and_every_id_is_returned(redis: Redis) -> None:
    ids = await EventEmitter(redis).emit([DvEmitted(number=number) for number in range(5)])

    assert ids == [entry_id.decode() for entry_id, _ in await redis.xrange("events:all")]
    assert await numbers(redis) == list(range(5))


async def test_a_list_goes_out_in_one_round_trip(redis: Redis) -> None:
    emitter = EventEmitter(redis)
    await emitter.emit(DvEmitted())  # connects
    await redis.config_resetstat()
    before = (await redis.info("stats"))["total_reads_processed"]

    await emitter.emit([DvEmitted(number=number) for number in range(100)])

    # One read for the list, one for this INFO; a network may split a large write, so a few more are let pass.
    assert (await redis.info("stats"))["total_reads_processed"] - before <= 6


async def test_an_empty_list_is_nothing(redis: Redis) -> None:
    assert await EventEmitter(redis).emit([]) == []
    assert await redis.keys("*") == []


async def test_more_events_than_one_round_trip_takes(redis: Redis) -> None:
    ids = await EventEmitter(redis, maxlen=None).emit([DvEmitted(number=number) for number in range(2_501)])

    assert len(set(ids)) == 2_501
    assert await numbers(redis) == list(range(2_501))


async def test_emits_under_way_at_once_all_arrive(redis: Redis) -> None:
    """redis-py gives a client 100 connections and refuses the next one: more emits than that must wait their turn."""
    emitter = EventEmitter(redis)

    ids = await asyncio.gather(*(emitter.emit(DvEmitted(number=number)) for number in range(1_000)))

    assert len(set(ids)) == 1_000
    assert sorted(await numbers(redis)) == list(range(1_000))


async def test_emits_one_after_another_keep_their_order(redis: Redis) -> None:
    emitter = EventEmitter(redis)
    for number in range(50):
        await emitter.emit(DvEmitted(number=number))
    assert await numbers(redis) == list(range(50))


async def test_maxlen_trims_the_stream_as_it_grows(redis: Redis) -> None:
    await EventEmitter(redis, maxlen=100).emit([DvEmitted(number=number) for number in range(1_000)])

    left = await numbers(redis)
    assert 100 <= len(left) <= 250  # whole nodes of a hundred entries
    assert left[-1] == 999


async def test_maxlen_none_never_trims(redis: Redis) -> None:
    await EventEmitter(redis, maxlen=None).emit([DvEmitted(number=number) for number in range(1_000)])
    assert len(await stored(redis)) == 1_000


async def test_a_generic_event_is_forwarded_as_the_type_it_came_as(redis: Redis) -> None:
    event = GenericEvent(raw_type="legacy.thing", data={"a": [1, {"b": None}]}, metadata={"m": 1})

    await EventEmitter(redis).emit(event)

    fields = await the_one(redis)
    assert fields[b"event_type"] == b"legacy.thing"
    assert orjson.loads(fields[b"data"]) == {"a": [1, {"b": None}]}
    assert fields[b"id"] == event.id.encode()


async def test_a_stream_s_name_may_be_any_text(redis: Redis) -> None:
    await EventEmitter(redis, stream="événements:всё").emit(DvEmitted())
    assert await redis.xlen("événements:всё") == 1


# --- correlation and causation --------------------------------------------------------------------------------------


async def ids_of(redis: Redis, event: BaseEvent, caused_by: BaseEvent | None = None) -> tuple[str, str]:
    await EventEmitter(redis).emit(event, caused_by=caused_by)
    fields = await the_one(redis)
    return fields[b"correlation_id"].decode(), fields[b"causation_id"].decode()


async def test_an_event_without_a_scope_or_cause_has_neither_id(redis: Redis) -> None:
    assert await ids_of(redis, DvEmitted()) == ("", "")


async def test_a_scope_gives_its_correlation_id(redis: Redis) -> None:
    async with correlation_scope("request-1"):
        assert await ids_of(redis, DvEmitted()) == ("request-1", "")


async def test_caused_by_gives_both_ids_and_wins_over_the_scope(redis: Redis) -> None:
    cause = DvEmitted(correlation_id="of-the-cause")
    async with correlation_scope("of-the-scope"):
        assert await ids_of(redis, DvEmitted(), cause) == ("of-the-cause", cause.id)


async def test_a_cause_without_a_correlation_id_leaves_it_to_the_scope(redis: Redis) -> None:
    cause = DvEmitted()
    async with correlation_scope("of-the-scope"):
        assert await ids_of(redis, DvEmitted(), cause) == ("of-the-scope", cause.id)


async def test_a_cause_without_a_correlation_id_starts_one_where_there_is_no_scope(redis: Redis) -> None:
    cause = DvEmitted()
    assert await ids_of(redis, DvEmitted(), cause) == (cause.id, cause.id)


async def test_the_event_s_own_ids_win_over_everything(redis: Redis) -> None:
    event = DvEmitted(correlation_id="own", causation_id="own-cause")
    with CorrelationScope("of-the-scope", "of-the-handled-event"):
        assert await ids_of(redis, event, DvEmitted(correlation_id="of-the-cause")) == ("own", "own-cause")


async def test_while_an_event_is_handled_it_is_the_cause(redis: Redis) -> None:
    with CorrelationScope.handling("request-1", "event-1"):
        assert await ids_of(redis, DvEmitted()) == ("request-1", "event-1")


async def test_caused_by_wins_over_the_event_being_handled(redis: Redis) -> None:
    cause = DvEmitted(correlation_id="of-the-cause")
    with CorrelationScope.handling("request-1", "event-1"):
        assert await ids_of(redis, DvEmitted(), cause) == ("of-the-cause", cause.id)


async def test_every_event_of_a_list_gets_the_ids(redis: Redis) -> None:
    cause = DvEmitted(correlation_id="request-1")
    await EventEmitter(redis).emit([DvEmitted(), DvEmitted(correlation_id="own")], caused_by=cause)
    found = [(fields[b"correlation_id"], fields[b"causation_id"]) for fields in await stored(redis)]
    assert found == [(b"request-1", cause.id.encode()), (b"own", cause.id.encode())]


# --- what it refuses ------------------------------------------------------------------------------------------------


async def test_without_a_client_it_says_what_to_call() -> None:
    emitter = EventEmitter()
    assert not emitter.configured
    with pytest.raises(NotConfiguredError, match="configure") as caught:
        await emitter.emit(DvEmitted())
    assert isinstance(caught.value, RapidsError)
    assert isinstance(caught.value, RuntimeError)


async def test_configure_gives_it_a_client_and_may_be_called_again(redis_url: str) -> None:
    emitter = EventEmitter()
    for number in range(2):
        async with Redis.from_url(redis_url) as client:
            emitter.configure(client)
            assert emitter.configured
            await emitter.emit(DvEmitted(number=number))
            assert len(await numbers(client)) == number + 1


def test_configure_works_again_on_another_event_loop(redis_url: str) -> None:
    emitter = EventEmitter(stream="dv:loops")

    async def emit_in_a_loop() -> int:
        async with Redis.from_url(redis_url) as client:
            emitter.configure(client)
            await asyncio.gather(*(emitter.emit(DvEmitted()) for _ in range(150)))
            return await client.xlen("dv:loops")

    assert [asyncio.run(emit_in_a_loop()) for _ in range(3)] == [150, 300, 450]


@pytest.mark.parametrize("client", ["redis://localhost", 5, object()])
def test_only_an_asynchronous_client_will_do(client: Any) -> None:
    with pytest.raises(TypeError, match="redis"):
        EventEmitter(client)


@pytest.mark.parametrize("value", [object(), float("nan"), {1, object()}, "\ud800"])
async def test_data_that_json_cannot_hold_is_refused_before_anything_is_sent(redis: Redis, value: Any) -> None:
    with pytest.raises(SerializationError, match="value") as caught:
        await EventEmitter(redis).emit([DvEmitted(), DvAnything(value=value), DvEmitted()])
    assert (caught.value.event_type, caught.value.field) == ("dv.anything", "value")
    assert await redis.keys("*") == []


class DvGuarded(BaseEvent):
    password: str

    @field_serializer("password")
    def refused(self, value: str) -> str:
        raise ValueError(f"cannot encode {value}")


async def test_what_a_serializer_says_of_a_value_is_in_the_cause_only(redis: Redis) -> None:
    """The error itself is in logs and spans."""
    with pytest.raises(SerializationError, match="ValueError") as caught:
        await EventEmitter(redis).emit(DvGuarded(password="hunter2-x"))
    assert "hunter2-x" not in str(caught.value)
    assert "hunter2-x" in str(caught.value.__cause__)


async def test_metadata_that_json_cannot_hold_is_refused_by_name(redis: Redis) -> None:
    with pytest.raises(SerializationError, match="metadata"):
        await EventEmitter(redis).emit(DvEmitted(metadata={"x": object()}))


class DvNoEvent(BaseModel):
    number: int = 0


async def make_event() -> DvEmitted:
    return DvEmitted()


async def make_events() -> AsyncIterator[DvEmitted]:
    yield DvEmitted()


NO_EVENTS: dict[str, tuple[Callable[[], Any], str]] = {
    "class": (lambda: DvEmitted, r"the class DvEmitted: write DvEmitted\(\.\.\.\)$"),
    "other class": (lambda: int, "the class int$"),
    "none": (lambda: None, "None$"),
    "text": (lambda: "text", "'text'$"),
    "empty text": (lambda: "", "''$"),
    "bytes": (lambda: b"", "b''$"),
    "dict": (lambda: {"number": 1}, r"\{'number': 1\}$"),
    "empty dict": (dict, r"\{\}$"),
    "number": (lambda: 7, "7$"),
    "other model": (DvNoEvent, r"DvNoEvent\(number=0\)$"),
    "bare event": (lambda: Event(id="e-1"), r"Event\(id='e-1', "),
    "coroutine": (make_event, ".*make_event.*: await it first$"),
    "asynchronous generator": (make_events, r".*make_events.*: collect its events first, \[event async for event in"),
    "long": (lambda: "x" * 10_000, r"'x{199}\.\.\. \(str\)$"),
    "list with none": (lambda: [DvEmitted(), None], "None, which is at position 1$"),
    "list with a class": (lambda: [DvEmitted(), DvEmitted(), DvEmitted], "the class DvEmitted: .*, .* at position 2$"),
    "list of lists": (lambda: [[DvEmitted()]], r"\[DvEmitted\(.*, which is at position 0$"),
}


@pytest.mark.parametrize(("make", "described"), NO_EVENTS.values(), ids=NO_EVENTS)
async def test_what_is_no_event_is_refused_and_described(redis: Redis, make: Callable[[], Any], described: str) -> None:
    thing = make()
    with pytest.raises(TypeError, match=f"^only events can be emitted, not {described}"):
        await EventEmitter(redis).emit(thing)
    if asyncio.iscoroutine(thing):
        thing.close()
    assert await redis.keys("*") == []


async def test_events_may_come_from_anything_that_can_be_iterated(redis: Redis) -> None:
    emitter = EventEmitter(redis)
    await emitter.emit((DvEmitted(number=1), DvEmitted(number=2)))
    await emitter.emit(DvEmitted(number=number) for number in (3, 4))  # type: ignore[call-overload]
    assert await numbers(redis) == [1, 2, 3, 4]


@pytest.mark.parametrize("cause", ["e-1", DvEmitted, 7, b"", {}])
async def test_a_cause_that_is_no_event_is_refused_by_name(redis: Redis, cause: Any) -> None:
    with pytest.raises(TypeError, match=r"^caused_by must be an event or None, not "):
        await EventEmitter(redis).emit(DvEmitted(), caused_by=cause)
    assert await redis.keys("*") == []


async def test_an_answer_that_does_not_pass_is_not_tried_again(redis: Redis) -> None:
    await redis.set("dv:wrong", "a string")
    await redis.config_resetstat()
    events = [DvEmitted(), DvEmitted()]

    with pytest.raises(EmitError, match="WRONGTYPE") as caught:
        await EventEmitter(redis, stream="dv:wrong", max_retries=5).emit(events)

    error = caught.value
    assert (error.event_type, error.event_id, error.stream) == ("dv.emitted", events[0].id, "dv:wrong")
    assert error.attempts == 1
    assert (error.stored, error.not_stored, error.unknown) == ((), tuple(event.id for event in events), ())
    assert error.__cause__ is error.cause
    assert (await redis.info("commandstats")).get("cmdstat_xadd", {"calls": 0})["calls"] <= len(events)


async def test_the_error_names_the_events_stored_before_the_failure(redis: Redis) -> None:
    """The last id a stream can give out is used up in the middle of a list."""
    await redis.xadd("dv:full", {"a": "b"}, id=f"{2**64 - 1}-{2**64 - 3}")
    events = [DvEmitted(number=number) for number in range(4)]

    with pytest.raises(EmitError) as caught:
        await EventEmitter(redis, stream="dv:full").emit(events)

    ids = tuple(event.id for event in events)
    assert (caught.value.stored, caught.value.not_stored) == (ids[:2], ids[2:])
    assert caught.value.event_id == ids[2]
    assert await redis.xlen("dv:full") == 3


# --- cancellation ---------------------------------------------------------------------------------------------------


async def test_cancelled_emits_leave_the_connection_usable_and_its_answers_in_step(redis_url: str) -> None:
    chance = random.Random(7)
    async with Redis.from_url(redis_url, max_connections=1) as client:
        emitter = EventEmitter(client)
        for _ in range(150):
            emitting = asyncio.create_task(emitter.emit([DvEmitted() for _ in range(20)]))
            for _ in range(chance.randrange(12)):
                await asyncio.sleep(0)
            emitting.cancel()
            await asyncio.wait([emitting])
            await emitter.drain()  # the write goes on without its caller, on the only connection there is
            assert await client.echo("in step") == b"in step"

        entry_id = await asyncio.wait_for(emitter.emit(DvEmitted(number=1)), 30)
        assert (await client.xrevrange("events:all", count=1))[0][0].decode() == entry_id


async def test_a_cancelled_emit_does_not_disturb_the_others(redis_url: str) -> None:
    async with Redis.from_url(redis_url, max_connections=2) as client:
        emitter = EventEmitter(client, max_retries=1)
        emitting = [asyncio.create_task(emitter.emit(DvEmitted(number=number))) for number in range(200)]
        await asyncio.sleep(0)
        for task in emitting[::2]:
            task.cancel()
        await asyncio.wait(emitting)
        assert all(not task.cancelled() and task.exception() is None for task in emitting[1::2])
        assert set(range(1, 200, 2)) <= set(await numbers(client))
