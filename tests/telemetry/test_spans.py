"""Spans of emits, handler runs and decisions: what is the parent of what, and what they say."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, get_current_span
from redis.asyncio import Redis

from rapids import DeadLetterQueue, Delivery, Depends, EventEmitter, EventRouter
from rapids.dead_letters import LetterFilter, Selector
from rapids.delivery import CallNext
from rapids.exceptions import EmitError, NonRetryableError, SerializationError
from rapids.telemetry.conventions import Attribute, Metric
from tests.support import eventually
from tests.telemetry.recording import Recording, id_of, links_of, parent_of, trace_of
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    DvPayment,
    add,
    fields_of,
    letters,
    make_emitter,
    make_router,
    running,
    until_settled,
)

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traced_router(recording: Recording, redis: Redis, **options: Any) -> EventRouter:
    router = make_router(redis, **options)
    router.use_telemetry(recording.telemetry)
    return router


def traced_emitter(recording: Recording, redis: Redis, **options: Any) -> EventEmitter:
    emitter = make_emitter(redis, **options)
    emitter.use_telemetry(recording.telemetry)
    return emitter


def exceptions_of(span: Any) -> list[tuple[Any, Any]]:
    return [
        (one.attributes[Attribute.EXCEPTION_TYPE], one.attributes[Attribute.EXCEPTION_MESSAGE])
        for one in span.events
        if one.name == "exception"
    ]


async def test_a_request_its_emit_the_handlers_and_what_they_emit_are_one_trace(
    recording: Recording, redis: Redis
) -> None:
    seen: dict[str, str] = {}

    def note(where: str) -> None:
        seen[where] = get_current_span().attributes[Attribute.HANDLER]  # type: ignore[attr-defined]

    async def middleware(delivery: Delivery, call_next: CallNext) -> None:
        note(f"middleware of {delivery.handler}")
        await call_next(delivery)

    async def provided() -> AsyncIterator[int]:
        note("dependency")
        yield 1
        note("end of the dependency")

    def plain() -> int:
        note("dependency in a thread")
        return 2

    emitter = traced_emitter(recording, redis)
    router = traced_router(recording, redis, middleware=[middleware])

    @router.on(DvOrder)
    async def take(event: DvOrder, one: Annotated[int, Depends(provided)], two: Annotated[int, Depends(plain)]) -> None:
        note("handler")
        await asyncio.sleep(0.001)
        note("after an await")
        await asyncio.to_thread(note, "thread")
        await asyncio.create_task(asyncio.sleep(0))
        await emitter.emit(DvPayment(number=event.number))

    @router.on(DvPayment)
    async def pay(event: DvPayment) -> None:
        note("handler of what a handler emitted")

    async with running(router):
        with recording.tracer.start_as_current_span("request") as request:
            await emitter.emit(DvOrder(number=1))
        await until_settled(redis)
        await eventually(lambda: len(recording.of("process")) == 2)

    send, sent_by_handler = recording.of("send")
    taken, paid = recording.of("process")
    assert [parent_of(one) for one in (send, taken, sent_by_handler, paid)] == [
        request.get_span_context().span_id,
        id_of(send),
        id_of(taken),
        id_of(sent_by_handler),
    ]
    assert {trace_of(one) for one in recording.spans} == {request.get_span_context().trace_id}
    assert (send.name, send.kind, taken.name, taken.kind) == (
        f"send {STREAM}",
        SpanKind.PRODUCER,
        f"process {STREAM}",
        SpanKind.CONSUMER,
    )
    assert (
        seen.pop("handler of what a handler emitted")
        == seen.pop("middleware of pay")
        == paid.attributes["rapids.handler"]
    )
    assert set(seen.values()) == {taken.attributes["rapids.handler"]}
    assert len(seen) == 7
    assert (
        taken.attributes.items()
        >= {
            Attribute.SYSTEM: "redis",
            Attribute.OPERATION_TYPE: "process",
            Attribute.DESTINATION: STREAM,
            Attribute.GROUP: GROUP,
            Attribute.MESSAGE_ID: send.attributes[Attribute.MESSAGE_ID],
            Attribute.EVENT_TYPE: DvOrder.event_type,
            Attribute.DELIVERIES: 1,
            Attribute.RESULT: "done",
        }.items()
    )
    assert (taken.status.status_code, Attribute.ERROR_TYPE in taken.attributes) == (StatusCode.UNSET, False)


async def test_later_deliveries_and_replays_link_and_each_error_is_recorded_once(
    recording: Recording, redis: Redis
) -> None:
    router = traced_router(recording, redis, max_deliveries=2)
    fails = True

    @router.on(DvOrder, retries=1)
    async def take(event: DvOrder) -> None:
        if fails:
            raise ValueError("no stock")

    queue = DeadLetterQueue(redis, DLQ)
    async with running(router):
        with recording.tracer.start_as_current_span("request"):
            await traced_emitter(recording, redis).emit(DvOrder())
        await eventually(lambda: recording.of("dead_letter"))
        fails = False
        [letter] = (await queue.list()).items
        await queue.replay(letter.id)
        await eventually(lambda: recording.of("process", result="done"))
    [send] = recording.of("send")
    first, second, replay = recording.of("process")
    [dead] = recording.of("dead_letter")

    assert (parent_of(first), links_of(first)) == (id_of(send), [])
    assert (parent_of(second), links_of(second)) == (None, [id_of(send)])
    assert (parent_of(replay), links_of(replay)) == (None, [id_of(send)])
    assert len({trace_of(one) for one in (send, second, replay)}) == 3
    for span, result in ((first, "retry"), (second, "dead")):
        assert exceptions_of(span) == [("ValueError", "no stock")] * 2
        assert [one.attributes[Attribute.ATTEMPT] for one in span.events] == [1, 2]
        assert (span.attributes[Attribute.RESULT], span.attributes[Attribute.ERROR_TYPE]) == (result, "ValueError")
        assert span.status.status_code is StatusCode.ERROR
    assert parent_of(dead) == id_of(second)
    assert (dead.name, dead.kind) == (f"dead_letter {STREAM}", SpanKind.CLIENT)
    assert (
        dead.attributes.items()
        >= {
            Attribute.OPERATION_TYPE: "settle",
            Attribute.HANDLER: first.attributes[Attribute.HANDLER],
            Attribute.REASON: "max_deliveries_exceeded",
        }.items()
    )
    assert replay.attributes[Attribute.REPLAY_OF] == letter.id
    assert replay.attributes[Attribute.DESTINATION] == STREAM  # not the group's replay stream


async def test_with_link_every_run_is_the_root_of_a_trace(recording: Recording, redis: Redis) -> None:
    router = make_router(redis)
    router.use_telemetry(recording.telemetry_with(trace_parent="link"))

    @router.on(DvOrder)
    async def take(event: DvOrder) -> None: ...

    with recording.tracer.start_as_current_span("where the router starts"):
        async with running(router):
            await traced_emitter(recording, redis).emit(DvOrder())
            await eventually(lambda: recording.of("process"))
    [send], [run] = recording.of("send"), recording.of("process")
    assert (parent_of(run), links_of(run)) == (None, [id_of(send)])
    with pytest.raises(ValueError, match="trace_parent must be one of emit, link, not 'child'"):
        recording.telemetry_with(trace_parent="child")


async def test_a_list_has_one_span_and_events_keep_a_context_of_their_own(recording: Recording, redis: Redis) -> None:
    emitter = traced_emitter(recording, redis)
    own = {"traceparent": PARENT, "tracestate": "vendor=1"}
    assert await emitter.emit([]) == []
    await emitter.emit([DvOrder(), DvOrder(metadata=own), DvOrder(metadata={"traceparent": "no such"})])
    await emitter.emit([DvOrder(metadata=own)])

    mixed, forwarded = recording.of("send")
    assert mixed.attributes[Attribute.MESSAGE_COUNT] == 3
    assert Attribute.MESSAGE_ID not in mixed.attributes
    assert (links_of(mixed), links_of(forwarded)) == ([0xB7AD6B7169203331], [0xB7AD6B7169203331])
    assert (mixed.kind, forwarded.kind) == (SpanKind.PRODUCER, SpanKind.CLIENT)
    entries = [fields for _, fields in await redis.xrange(STREAM)]
    of_span = f"00-{trace_of(mixed):032x}-{id_of(mixed):016x}-03".encode()
    parents = [fields[b"traceparent"] for fields in entries]
    assert parents == [of_span, PARENT.encode(), of_span, PARENT.encode()]
    assert [fields.get(b"tracestate") for fields in entries] == [None, b"vendor=1", None, b"vendor=1"]
    [(labels, count)] = recording.points(Metric.SENT)
    assert (labels[Attribute.DESTINATION], count) == (STREAM, 4)


async def test_a_failed_emit_says_why(recording: Recording, redis: Redis) -> None:
    emitter = traced_emitter(recording, redis, max_retries=1)
    with pytest.raises(SerializationError):
        await emitter.emit(DvOrder(metadata={"not JSON": object()}))
    assert recording.points(Metric.SENT) == []
    await redis.set(STREAM, "not a stream")
    with pytest.raises(EmitError):
        await emitter.emit(DvOrder())

    unwritable, refused = recording.of("send")
    assert unwritable.attributes[Attribute.ERROR_TYPE] == "rapids.exceptions.SerializationError"
    assert refused.attributes[Attribute.ERROR_TYPE] == "rapids.exceptions.EmitError"
    assert [name for name, _ in exceptions_of(refused)] == ["rapids.exceptions.EmitError"]
    assert {one.status.status_code for one in (unwritable, refused)} == {StatusCode.ERROR}
    [(labels, count)] = recording.points(Metric.SENT)
    assert (labels[Attribute.ERROR_TYPE], count) == ("rapids.exceptions.EmitError", 1)


async def test_what_is_parked_or_released_has_a_span(recording: Recording, redis: Redis) -> None:
    router = traced_router(recording, redis, dlq_stream=None, shutdown_timeout=0.0)
    begun = asyncio.Event()

    @router.on(DvOrder)
    async def take(event: DvOrder) -> None:
        raise NonRetryableError("never")

    @router.on(DvPayment)
    async def wait(event: DvPayment) -> None:
        begun.set()
        await asyncio.Event().wait()

    emitter = traced_emitter(recording, redis)
    async with running(router):
        await emitter.emit(DvOrder())
        await eventually(lambda: recording.of("park"))
        await emitter.emit(DvPayment())
        await begun.wait()
    [parked], [released] = recording.of("park"), recording.of("release")
    of_order, of_payment = recording.of("process")
    assert (parent_of(parked), parent_of(released)) == (id_of(of_order), id_of(recording.of("send")[1]))
    assert of_payment.attributes[Attribute.RESULT] == "released"
    assert of_payment.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("parent", "state"),
    [
        (b"", b""),
        (b"\xff\x00\n[1m", b""),
        (b"00-" + b"0" * 32 + b"-b7ad6b7169203331-01", b""),
        (PARENT.encode() + b"-more", b""),
        (b"ff" + PARENT[2:].encode(), b""),
        (b"0" * 2_000, b""),
        (PARENT.upper().encode(), b""),
    ],
)
async def test_a_context_that_is_none_fails_no_entry(
    recording: Recording, redis: Redis, parent: bytes, state: bytes
) -> None:
    assert await _run_of_entry(recording, redis, parent, state) == (None, [], "")


@pytest.mark.parametrize(
    ("state", "read"),
    [
        (b"vendor=1,other@a=x y", "vendor=1,other@a=x y"),
        (b"vendor=1\n2026-01-01 CRITICAL forged", ""),
        (b"vendor=1,vendor=2", ""),
        (b"=" * 900, ""),
        (b"\xff=1", ""),
        (b",".join(b"k%d=1" % n for n in range(40)), ""),
    ],
)
async def test_a_state_that_is_none_is_left_out(
    recording: Recording, redis: Redis, caplog: pytest.LogCaptureFixture, state: bytes, read: str
) -> None:
    parent, _, found = await _run_of_entry(recording, redis, PARENT.encode(), state)
    assert (parent, found) == (0xB7AD6B7169203331, read)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def _run_of_entry(
    recording: Recording, redis: Redis, parent: bytes, state: bytes
) -> tuple[int | None, list[int], str]:
    """The parent and links of the run of an entry with such a context, and the state that its span has."""
    router = traced_router(recording, redis)

    @router.on(DvOrder)
    async def take(event: DvOrder) -> None: ...

    fields = [part for pair in fields_of(DvOrder()).items() for part in pair]
    async with running(router):
        await add(redis, [*fields, b"traceparent", parent, b"tracestate", state])
        await eventually(lambda: recording.of("process"))
    [run] = recording.of("process")
    assert run.attributes[Attribute.RESULT] == "done"
    return parent_of(run), links_of(run), run.context.trace_state.to_header()


async def test_letters_and_replays_keep_the_context(recording: Recording, redis: Redis) -> None:
    router = traced_router(recording, redis)
    fails = True

    @router.on(DvOrder)
    async def take(event: DvOrder) -> None:
        if fails:
            raise NonRetryableError("never")

    own = {"traceparent": PARENT, "tracestate": "vendor=1"}
    queue = DeadLetterQueue(redis, DLQ)
    async with running(router):
        await traced_emitter(recording, redis).emit([DvOrder(metadata=own) for _ in range(3)])
        await eventually(lambda: len(recording.of("dead_letter")) == 3)
        for letter in await letters(redis):
            assert (letter[b"traceparent"], letter[b"tracestate"]) == (PARENT.encode(), b"vendor=1")
            assert b"original_fields" not in letter
        fails = False
        [first, *_] = (await queue.list()).items
        await queue.replay(first.id)
        operation = await queue.operations.start("replay", Selector(filter=LetterFilter()))
        stopping = asyncio.Event()
        runner = asyncio.create_task(queue.operations.run(stopping))
        await eventually(lambda: len(recording.of("process", result="done")) == 3)
        stopping.set()
        await runner
    assert operation.kind == "replay"
    for run in recording.of("process", result="done"):
        assert (parent_of(run), links_of(run)) == (None, [0xB7AD6B7169203331])
        assert run.links[0].context.trace_state.to_header() == "vendor=1"


async def test_rapids_own_work_makes_no_spans_but_a_handlers_commands_do(recording: Recording, redis: Redis) -> None:
    router = traced_router(recording, redis)
    RedisInstrumentor().instrument(tracer_provider=recording.tracer_provider)
    try:

        @router.on(DvOrder)
        async def take(event: DvOrder) -> None:
            await redis.set("a key of the handler", "1")
            if event.number == 1:
                raise ValueError("again")

        async with running(router):
            await traced_emitter(recording, redis).emit([DvOrder(number=n) for n in range(3)])
            await eventually(lambda: recording.of("dead_letter"))
            assert (await router.get_consumer_lag()).pending_count == 0
            assert (await router.health()).ready
    finally:
        RedisInstrumentor().uninstrument()
    others = [span for span in recording.spans if Attribute.SYSTEM not in span.attributes]
    runs = {id_of(span) for span in recording.of("process")}
    assert others
    assert {(span.name, parent_of(span) in runs) for span in others} == {("SET", True)}


async def test_an_error_in_the_sdk_disturbs_nothing_and_is_logged_once(
    recording: Recording, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(SpanProcessor):
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            raise RuntimeError("a processor of the user's")

    recording.tracer_provider.add_span_processor(Broken())
    router, handled = traced_router(recording, redis), list[int]()

    @router.on(DvOrder)
    async def take(event: DvOrder) -> None:
        handled.append(event.number)

    async with running(router):
        await traced_emitter(recording, redis).emit([DvOrder(number=n) for n in range(3)])
        await until_settled(redis)
    assert handled == [0, 1, 2]
    assert len([record for record in caplog.records if "the telemetry raised" in record.getMessage()]) == 1


async def test_errors_on_spans_hide_what_the_log_hides(recording: Recording, redis: Redis) -> None:
    router = traced_router(recording, redis)
    router.use_log_redaction(lambda data, metadata, text: text.replace("4111", "[hidden]"))

    @router.on(DvOrder)
    async def take(event: DvOrder) -> None:
        number = 4111
        raise NonRetryableError(f"the card {number} is stolen")

    async with running(router):
        await traced_emitter(recording, redis).emit(DvOrder())
        await eventually(lambda: recording.of("dead_letter"))
    [run] = recording.of("process")
    [failed] = run.events
    assert failed.attributes[Attribute.EXCEPTION_MESSAGE] == "the card [hidden] is stolen"
    assert "the card [hidden] is stolen" in failed.attributes[Attribute.EXCEPTION_STACKTRACE]
    assert "4111" not in repr(dict(failed.attributes))


async def test_use_telemetry_takes_a_telemetry_only(recording: Recording, redis: Redis) -> None:
    router = make_router(redis)
    for wrong in (type(recording.telemetry), "otel"):
        with pytest.raises(TypeError, match=r"telemetry must be a telemetry, such as .*OpenTelemetry\(\), or None"):
            router.use_telemetry(wrong)  # type: ignore[arg-type]
    router.use_telemetry(recording.telemetry)
    router.use_telemetry(None)
