"""What an emitter counts and reports: each event once, whatever happens to its answer and its caller."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter, GenericEvent
from rapids.counters import OTHER
from rapids.exceptions import EmitError, SerializationError
from rapids.observers import Detail, EmitFailed, Emitted
from tests.redis.proxy import Proxy
from tests.support import eventually

STREAM = "dv:counted"


class EcSent(BaseEvent):
    number: int = 0
    text: str = ""


class EcOther(BaseEvent):
    anything: Any = None


def counted(emitter: EventEmitter) -> dict[tuple[str, ...], float]:
    """What it counted: by event type, and by outcome where that was not that it is stored."""
    for sample in emitter.counters:
        assert sample.labels["stream"] == STREAM
    return {tuple(sample.labels.values())[1:]: sample.value for sample in emitter.counters if sample.value}


async def test_each_event_is_counted_by_its_type(redis: Redis) -> None:
    emitter = EventEmitter(redis, STREAM)
    await emitter.emit(EcSent())
    await emitter.emit([EcSent(), EcOther(), *(EcSent() for _ in range(2_500))])
    await emitter.emit(GenericEvent(raw_type="foreign.thing"))

    assert counted(emitter) == {("ec.sent",): 2_502, ("ec.other",): 1, ("foreign.thing",): 1}
    assert emitter.counters.total("emitted") == await redis.xlen(STREAM) == 2_504


async def test_the_number_of_counted_types_is_bounded(redis: Redis) -> None:
    emitter = EventEmitter(redis, STREAM)
    await emitter.emit([GenericEvent(raw_type=f"made.up{number}") for number in range(1_500)])
    assert emitter.counters.total("emitted", event_type=OTHER) == 500
    assert emitter.counters.total("emitted") == 1_500


async def test_counters_continue_with_another_client(redis: Redis) -> None:
    emitter = EventEmitter(redis, STREAM)
    await emitter.emit(EcSent())
    emitter.configure(redis)
    await emitter.emit(EcSent())
    assert counted(emitter) == {("ec.sent",): 2}


async def test_an_event_that_was_never_stored_is_counted_as_not_stored(proxy: Proxy, through: Redis) -> None:
    await proxy.refuse()
    emitter = EventEmitter(through, STREAM, max_retries=3, retry_delay=0.001)
    with pytest.raises(EmitError):
        await emitter.emit([EcSent(), EcSent(), EcOther()])
    assert counted(emitter) == {("ec.sent", "not_stored"): 2, ("ec.other", "not_stored"): 1}


async def test_an_answer_that_was_lost_and_looked_up_counts_once(proxy: Proxy, through: Redis, redis: Redis) -> None:
    emitter = EventEmitter(through, STREAM, retry_delay=0.001)
    await emitter.emit(EcSent())
    proxy.lose_reply_to(b"XADD")
    await emitter.emit([EcSent(number=number) for number in range(10)])
    assert counted(emitter) == {("ec.sent",): 11}
    assert await redis.xlen(STREAM) == 11


async def test_an_answer_that_was_lost_for_good_is_unknown(proxy: Proxy, through: Redis) -> None:
    emitter = EventEmitter(through, STREAM, max_retries=1)
    await emitter.emit(EcSent())
    proxy.lose_reply_to(b"XADD")
    with pytest.raises(EmitError):
        await emitter.emit(EcSent())
    assert counted(emitter) == {("ec.sent",): 1, ("ec.sent", "unknown"): 1}


async def test_the_numbers_are_those_of_the_error(proxy: Proxy, through: Redis) -> None:
    """A list of several chunks, of which the second fails: the first is stored, the third never sent."""
    emitter = EventEmitter(through, STREAM, max_retries=1, maxlen=None)
    proxy.lose_reply_to(b'{"number":1500,')
    with pytest.raises(EmitError) as raised:
        await emitter.emit([EcSent(number=number) for number in range(2_700)])
    error = raised.value
    assert (len(error.stored), len(error.unknown), len(error.not_stored)) == (1_000, 1_000, 700)
    assert counted(emitter) == {
        ("ec.sent",): 1_000,
        ("ec.sent", "unknown"): 1_000,
        ("ec.sent", "not_stored"): 700,
    }


async def test_one_refused_event_of_many_fails_alone(proxy: Proxy, through: Redis) -> None:
    emitter = EventEmitter(through, STREAM)
    await emitter.emit(EcSent())

    def refuse_first(reply: bytes) -> bytes:
        return b"$".join([b"-ERR not this one\r\n", *reply.split(b"$")[2:]])

    proxy.rewrite_reply_to(b"XADD", refuse_first)
    with pytest.raises(EmitError):
        await emitter.emit([EcOther(), EcSent(), EcSent()])
    assert counted(emitter) == {("ec.sent",): 3, ("ec.other", "not_stored"): 1}


async def test_events_with_an_answer_are_not_counted_again_when_others_are_retried(
    proxy: Proxy, through: Redis
) -> None:
    emitter = EventEmitter(through, STREAM, retry_delay=0.001)
    proxy.hold_up(b"XADD")
    emits = [asyncio.create_task(emitter.emit(EcSent()))]
    await eventually(lambda: proxy.holds)
    emits += [asyncio.create_task(emitter.emit(EcSent())) for _ in range(3)]
    await asyncio.sleep(0)

    def refuse_last(reply: bytes) -> bytes:
        return b"$".join([*reply.split(b"$")[:-1], b""])[:-1] + b"-OOM for now\r\n"

    proxy.rewrite_reply_to(b"XADD", refuse_last)
    proxy.let_through()
    await asyncio.gather(*emits)
    assert counted(emitter) == {("ec.sent",): 4}


@pytest.mark.standalone("there is no replica")
async def test_an_event_too_few_replicas_confirmed_is_counted_as_stored_and_failed(redis: Redis) -> None:
    emitter = EventEmitter(redis, STREAM, replicas=1)
    with pytest.raises(EmitError):
        await emitter.emit([EcSent(), EcSent()])
    assert counted(emitter) == {("ec.sent",): 2, ("ec.sent", "unreplicated"): 2}


async def test_an_event_json_cannot_hold_is_counted_as_failed(redis: Redis) -> None:
    emitter = EventEmitter(redis, STREAM)
    with pytest.raises(SerializationError):
        await emitter.emit(EcOther(anything=object()))
    with pytest.raises(SerializationError):
        await emitter.emit(GenericEvent(raw_type="\ud800"))
    assert counted(emitter) == {("ec.other", "unwritable"): 1, ("\\ud800", "unwritable"): 1}


async def test_a_cancelled_emit_is_counted_only_if_it_was_written(proxy: Proxy, through: Redis, redis: Redis) -> None:
    emitter = EventEmitter(through, STREAM)
    proxy.hold_up(b"XADD")
    written = asyncio.create_task(emitter.emit(EcSent()))
    await eventually(lambda: proxy.holds)
    waiting = [asyncio.create_task(emitter.emit(EcSent())) for _ in range(3)]
    await asyncio.sleep(0)
    written.cancel()
    waiting[1].cancel()
    await asyncio.wait([written, waiting[1]])
    proxy.let_through()
    await asyncio.gather(waiting[0], waiting[2])
    await emitter.drain()
    assert counted(emitter) == {("ec.sent",): 3}
    assert await redis.xlen(STREAM) == 3


async def test_emits_of_a_closed_event_loop_are_counted_as_unknown_or_not_stored(proxy: Proxy, through: Redis) -> None:
    emitter = EventEmitter(through, STREAM)
    proxy.hold_up(b"XADD")
    emits = [asyncio.create_task(emitter.emit(EcSent()))]
    await eventually(lambda: proxy.holds)
    emits += [asyncio.create_task(emitter.emit(EcSent())) for _ in range(3)]
    await asyncio.sleep(0)
    emits[-1].cancel()
    [writer] = [task for task in asyncio.all_tasks() if task.get_name() == f"rapids:{STREAM}:writer"]
    writer.cancel()
    await asyncio.wait([writer, *emits])
    assert counted(emitter) == {("ec.sent", "unknown"): 1, ("ec.sent", "not_stored"): 2}


# --- observers ------------------------------------------------------------------------------------------------------


async def test_each_event_is_reported_once_with_its_entry(redis: Redis) -> None:
    reported: list[Detail] = []
    emitter = EventEmitter(redis, STREAM, observers=[reported.append])
    events = [EcSent(), EcOther()]
    ids = await emitter.emit(events)

    for detail, event, entry_id in zip(reported, events, ids, strict=True):
        assert isinstance(detail, Emitted)
        assert (detail.stream, detail.event_type) == (STREAM, event.event_type)
        assert (detail.event_id, detail.entry_id) == (event.id, entry_id)
        assert 0 < detail.seconds < 60
    assert counted(emitter) == {("ec.sent",): 1, ("ec.other",): 1}


async def test_a_failure_is_reported_with_the_state_of_the_event(proxy: Proxy, through: Redis) -> None:
    reported: list[Detail] = []
    emitter = EventEmitter(through, STREAM, max_retries=1, observers=[reported.append])
    await emitter.emit(EcSent())
    proxy.lose_reply_to(b"XADD")
    event = EcSent()
    with pytest.raises(EmitError) as raised:
        await emitter.emit(event)
    with pytest.raises(SerializationError) as unwritable:
        await emitter.emit(bad := EcOther(anything=object()))

    assert reported[1:] == [
        EmitFailed(STREAM, "ec.sent", event.id, "unknown", raised.value.cause),  # type: ignore[arg-type]
        EmitFailed(STREAM, "ec.other", bad.id, "unwritable", unwritable.value),
    ]


async def test_an_observer_that_raises_keeps_no_event_from_its_stream(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(detail: Detail) -> None:
        raise asyncio.CancelledError

    emitter = EventEmitter(redis, STREAM, observers=[broken])
    await asyncio.gather(*(emitter.emit(EcSent()) for _ in range(50)))
    assert await redis.xlen(STREAM) == emitter.counters.total("emitted") == 50
    assert (
        len([one for one in caplog.records if "an observer" in one.getMessage() or "observer 1" in one.getMessage()])
        == 1
    )
