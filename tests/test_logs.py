"""What the log says: one line for each change of state, with what finds the entry, and never a payload."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, ValidationError
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from rapids.correlation import CorrelationScope
from rapids.exceptions import NonRetryableError
from rapids.logs import CorrelationLogFilter, EscapingLogFilter
from rapids.telemetry import OpenTelemetry
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, add, consumers, make_router, pending, running, until_settled

MARKER = "Kq7-payload-Zx9"
FINDS_THE_ENTRY = {"stream", "group", "consumer", "entry_id", "event_id", "correlation_id"}
STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class OuLogged(BaseEvent):
    text: str = MARKER
    amount: int = 0


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rapids")


def records(caplog: pytest.LogCaptureFixture, about: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if about in record.getMessage()]


def check_no_payload(caplog: pytest.LogCaptureFixture) -> None:
    formatter = logging.Formatter("%(message)s")
    for record in caplog.records:
        extra = {name: value for name, value in vars(record).items() if name not in STANDARD}
        assert MARKER not in formatter.format(record)
        assert MARKER not in repr(extra)
        assert MARKER not in repr(record.args)


async def emit(redis: Redis, **fields: Any) -> tuple[str, str, str]:
    """Emit one event: the ids of its entry, of itself, and its correlation."""
    event = OuLogged(**fields)
    with CorrelationScope("the-correlation"):
        return await EventEmitter(redis, STREAM).emit(event), event.id, "the-correlation"


def check_found(record: dict[str, Any], ids: tuple[str, str, str]) -> None:
    assert record.keys() >= FINDS_THE_ENTRY
    assert (record["entry_id"], record["event_id"], record["correlation_id"]) == ids
    assert (record["stream"], record["group"], record["consumer"]) == (STREAM, GROUP, "w")


# --- one line for each change of state ------------------------------------------------------------------------------


async def test_a_failed_attempt_and_delivery_and_a_dead_letter(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router = make_router(redis, consumer="w", max_deliveries=2, default_retries=1)

    @router.on(OuLogged, name="pay")
    async def pay(event: OuLogged) -> None:
        raise ValueError("no money")

    async with running(router):
        ids = await emit(redis)
        await until_settled(redis)

    attempts, kept, dead = (records(caplog, about) for about in ("attempt 1 of 2", "next one in", "dead letter"))
    assert [len(each) for each in (attempts, kept, dead)] == [2, 1, 1]
    for record in [*attempts, *kept, *dead]:
        check_found(record, ids)
        assert (record["handler"], record["error_type"]) == ("pay", "ValueError")
        assert record["event_type"] == "ou.logged"
        assert "ValueError: no money" in record["message"]
    assert [record["levelno"] for record in [*attempts, *kept, *dead]] == [logging.DEBUG] * 2 + [
        logging.WARNING,
        logging.ERROR,
    ]
    for record in [*kept, *dead]:
        assert "ou.logged" in record["message"]
        assert "in pay\n" in "".join(traceback.format_exception(record["exc_info"][1]))
    assert "2 attempts" in kept[0]["message"]
    assert len(caplog.records) == 4 + 2  # started, stopped
    check_no_payload(caplog)


async def test_one_attempt_is_one_attempt(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router, runs = make_router(redis, consumer="w"), list[int]()

    @router.on(OuLogged)
    async def pay(event: OuLogged) -> None:
        runs.append(1)
        if len(runs) == 1:
            raise ValueError("no money")

    async with running(router):
        await emit(redis)
        await until_settled(redis)
    assert "delivery 1, 1 attempt; next one in" in records(caplog, "failed")[0]["message"]


async def test_an_input_that_pydantic_quotes_is_in_no_line(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router, secret = make_router(redis, consumer="w", max_deliveries=2), "hidden"

    @router.on(OuLogged)
    async def pay(event: OuLogged) -> None:
        OuLogged.model_validate({"amount": secret})

    async with running(router):
        await emit(redis)
        await until_settled(redis)
    assert len(records(caplog, "ValidationError: amount: Input should be a valid integer")) == 2
    formatter = logging.Formatter("%(message)s")
    assert secret not in "".join(map(formatter.format, caplog.records))


@pytest.mark.parametrize("dead_letters", [True, False])
async def test_many_failures_of_one_cause_are_summed_up(
    redis: Redis, caplog: pytest.LogCaptureFixture, dead_letters: bool
) -> None:
    options = {} if dead_letters else {"dlq_stream": None}
    router = make_router(redis, consumer="w", max_deliveries=2, **options)

    @router.on(OuLogged, name="pay")
    async def pay(event: OuLogged) -> None:
        raise ValueError("no money") if event.amount % 2 else KeyError(event.amount)

    await EventEmitter(redis, STREAM).emit([OuLogged(amount=number) for number in range(50)])
    async with running(router):
        await eventually(lambda: router.counters.total("failed") == 100)
    failed = [record for record in records(caplog, "next one in") if record["error_type"] == "ValueError"]
    assert len(failed) == 10
    summed = {
        (record["message"].split(" of ")[0], record["error_type"]): record for record in records(caplog, "more in")
    }
    of_errors = {error_type for _, error_type in summed if _ == "a failed delivery"}
    assert of_errors == {"ValueError", "KeyError"}
    assert summed["a failed delivery", "ValueError"]["left_out"] == 15
    if dead_letters:
        assert summed["a dead letter", "KeyError"]["left_out"] == 15
    assert all(record["group"] == GROUP and record["stream"] == STREAM for record in summed.values())


async def test_an_event_that_is_handled_is_not_a_line(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router = make_router(redis, consumer="w")

    @router.on(OuLogged)
    async def handle(event: OuLogged) -> None: ...

    async with running(router):
        await emit(redis)
        await until_settled(redis)
    assert [record.getMessage() for record in caplog.records] == [
        f"started: router of group {GROUP!r} on stream {STREAM!r}, as consumer 'w'",
        "stopped",
    ]


async def test_a_parked_entry_is_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router = make_router(redis, consumer="w", dlq_stream=None)

    @router.on(OuLogged, name="pay")
    async def pay(event: OuLogged) -> None:
        raise NonRetryableError("never")

    async with running(router):
        ids = await emit(redis)
        await eventually(lambda: records(caplog, "parked"))
    [parked] = records(caplog, "parked")
    check_found(parked, ids)
    assert (parked["handlers"], parked["levelno"]) == (["pay"], logging.ERROR)
    check_no_payload(caplog)


async def test_a_lost_lease_is_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    router = make_router(redis, consumer="w", claim_min_idle_ms=1_000)

    @router.on(OuLogged)
    async def handle(event: OuLogged) -> None:
        begun.set()
        await go_on.wait()

    async with running(router):
        ids = await emit(redis)
        await begun.wait()
        await redis.xclaim(STREAM, GROUP, "another", 0, [ids[0]])
        await eventually(lambda: records(caplog, "lease"))
        go_on.set()
        await eventually(lambda: _nothing_is_pending(redis))
    [lost] = records(caplog, "lease")
    assert (lost["stream"], lost["group"], lost["consumer"], lost["entry_id"]) == (STREAM, GROUP, "w", ids[0])
    check_no_payload(caplog)


async def _nothing_is_pending(redis: Redis) -> bool:
    return await pending(redis) == []


async def test_a_trimmed_entry_is_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    ids = await emit(redis)
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    await redis.xtrim(STREAM, maxlen=0, approximate=False)
    async with running(make_router(redis, consumer="w", claim_min_idle_ms=1)):
        await eventually(lambda: records(caplog, "trimmed"))
    [ghost] = records(caplog, "trimmed")
    assert (ghost["lost"], ghost["stream"], ghost["group"], ghost["levelno"]) == ([ids[0]], STREAM, GROUP, 40)


async def test_a_release_at_a_stop_is_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()
    router = make_router(redis, consumer="w", shutdown_timeout=0.05)

    @router.on(OuLogged)
    async def handle(event: OuLogged) -> None:
        begun.set()
        await asyncio.sleep(60)

    async with running(router):
        await emit(redis)
        await begun.wait()
    assert (await consumers(redis))["rapids:waiting"] == 1
    [interrupted] = records(caplog, "interrupting")
    assert (interrupted["group"], interrupted["consumer"]) == (GROUP, "w")


# --- never a payload ------------------------------------------------------------------------------------------------

MARKED = MARKER.encode()
MALFORMED = {
    "no JSON": [b"event_type", b"ou.logged", b"data", b"{" + MARKED],
    "no object": [b"event_type", b"ou.logged", b"data", b'"' + MARKED + b'"'],
    "no UTF-8": [b"event_type", b"ou.logged", b"data", MARKED + b"\xff"],
    "not valid": [b"event_type", b"ou.logged", b"data", b'{"text":"%b","amount":"%b"}' % (MARKED, MARKED)],
    "no data": [b"event_type", b"ou.logged", b"other", MARKED],
    "a version": [b"event_type", b"ou.logged", b"schema_version", MARKED, b"data", b"{}"],
    "metadata": [b"event_type", b"ou.logged", b"data", b"{}", b"metadata", b"[" + MARKED],
    "a field's name": [b"event_type", b"ou.logged", b"data", b"[]", MARKED, b"x"],
    "a timestamp": [b"event_type", b"ou.logged", b"data", b"{}", b"timestamp", MARKED],
    "no type": [b"event_type", b"\xff" + MARKED, b"data", MARKED],
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
async def test_a_malformed_entry_is_logged_without_its_content(
    redis: Redis, caplog: pytest.LogCaptureFixture, raw: list[bytes]
) -> None:
    router = make_router(redis, consumer="w")

    @router.on(BaseEvent)
    async def handle(event: BaseEvent) -> None: ...

    async with running(router):
        entry_id = await add(redis, raw)
        await until_settled(redis)
    logged = records(caplog, "dead letter")
    assert len(logged) <= 1
    for record in logged:
        assert record.keys() >= FINDS_THE_ENTRY | {"handler"}
        assert record["entry_id"] == entry_id
    check_no_payload(caplog)


async def test_the_payload_is_not_logged_when_a_handler_validates_it_again(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """Pydantic's errors quote what they refuse."""
    router = make_router(redis, consumer="w", max_deliveries=2)

    @router.on(OuLogged)
    async def handle(event: OuLogged) -> None:
        OuLogged.model_validate({"amount": event.text})

    async with running(router):
        await emit(redis)
        await until_settled(redis)
    assert len(records(caplog, "dead letter")) == 1
    check_no_payload(caplog)


async def test_the_payload_is_not_logged_when_an_emit_fails(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    await redis.set(STREAM, "no stream")
    with pytest.raises(Exception, match="WRONGTYPE") as caught:
        await emit(redis)
    assert MARKER not in f"{caught.value} {caught.value!r}"
    check_no_payload(caplog)


# --- the filter -----------------------------------------------------------------------------------------------------


def test_the_filter_takes_the_scope_s_ids_or_none() -> None:
    record = logging.makeLogRecord({})
    assert CorrelationLogFilter().filter(record)
    assert (vars(record)["correlation_id"], vars(record)["causation_id"]) == ("-", "-")
    with CorrelationScope("c-1"):
        inside = logging.makeLogRecord({})
        CorrelationLogFilter().filter(inside)
    assert vars(inside)["correlation_id"] == "c-1"


def test_the_filter_leaves_a_record_its_own_id() -> None:
    record = logging.makeLogRecord({"correlation_id": "its own"})
    with CorrelationScope("c-1"):
        CorrelationLogFilter().filter(record)
    assert vars(record)["correlation_id"] == "its own"


async def test_inside_a_handler_any_logger_s_record_gets_them(redis: Redis) -> None:
    router, lines, log = make_router(redis), list[str](), logging.getLogger("somebody.else")

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    kept = Kept()
    kept.addFilter(CorrelationLogFilter())
    kept.setFormatter(logging.Formatter("%(message)s %(correlation_id)s %(causation_id)s"))
    log.addHandler(kept)

    @router.on(OuLogged)
    async def handle(event: OuLogged) -> None:
        log.warning("working")

    try:
        async with running(router):
            _, event_id, correlation_id = await emit(redis)
            await until_settled(redis)
    finally:
        log.removeHandler(kept)
    assert lines == [f"working {correlation_id} {event_id}"]


# --- control characters ---------------------------------------------------------------------------------------------


def test_every_logger_of_rapids_escapes_control_characters() -> None:
    named = {
        name
        for path in (*Path("rapids").rglob("*.py"), *Path("rapids_fastapi").rglob("*.py"))
        for name in re.findall(r'getLogger\("(rapids[^"]*)"\)', path.read_text())
    }
    assert len(named) > 4
    for name in named:
        assert any(isinstance(one, EscapingLogFilter) for one in logging.getLogger(name).filters), name


def test_no_text_forges_a_line(caplog: pytest.LogCaptureFixture) -> None:
    forged = "a\nERROR forged\x1b[2J\r\x85\u2028\u202e"
    shown = forged.encode("unicode_escape").decode()
    try:
        raise ValueError(forged)
    except ValueError as error:
        extra = {"event_id": forged}
        logging.getLogger("rapids.worker").error(
            "failed: %s %s %r %d", forged, error, 1, 2, exc_info=error, extra=extra
        )
        logging.getLogger("rapids").warning("of %(this)s", {"this": forged})
    assert [record.getMessage() for record in caplog.records] == [f"failed: {shown} {shown} 1 2", f"of {shown}"]
    assert vars(caplog.records[0])["event_id"] == shown
    text = logging.Formatter("%(message)s").format(caplog.records[0])
    assert all(line.startswith(("failed: ", "  ")) for line in text.splitlines())
    assert not set(text) & set("\x1b\r\x85\u2028\u202e")


def test_an_id_does_not_forge_a_line() -> None:
    record = logging.makeLogRecord({"msg": "x"})
    with CorrelationScope("a\nb"):
        CorrelationLogFilter().filter(record)
    assert vars(record)["correlation_id"] in ("a\\nb", "-")


class OuInner(BaseModel):
    amount: int


def raised(how: str, text: str) -> None:
    try:
        OuInner.model_validate({"amount": text})
    except ValidationError as error:
        match how:
            case "cause":
                raise RuntimeError("bad") from error
            case "context":
                raise RuntimeError("bad")  # noqa: B904 - the context is the point
            case "group":
                raise ExceptionGroup("several", [error, ValueError("other")]) from error
            case "permanent":
                raise NonRetryableError("bad") from error
            case "quoted":
                raise ValueError(f"bad: {error}") from None
            case _:
                error.add_note(f"also {error}")
                raise


@pytest.mark.parametrize("how", ["", "cause", "context", "group", "permanent", "quoted"])
async def test_no_line_has_what_pydantic_quotes(redis: Redis, caplog: pytest.LogCaptureFixture, how: str) -> None:
    router = make_router(redis, consumer="w", max_deliveries=1)

    @router.on(OuLogged)
    async def pay(event: OuLogged) -> None:
        raised(how, event.text)

    async with running(router):
        await emit(redis)
        await until_settled(redis)

    assert records(caplog, "dead letter")
    check_no_payload(caplog)
    assert "unable to parse" in caplog.text  # what is wrong, and where, is there
    assert "in raised" in caplog.text


def test_the_filter_adds_the_ids_of_the_current_span() -> None:
    record = logging.makeLogRecord({})
    CorrelationLogFilter().filter(record)
    assert (record.trace_id, record.span_id) == ("-", "-")  # type: ignore[attr-defined]
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("a library").start_as_current_span("work") as span:
        inside, own = logging.makeLogRecord({}), logging.makeLogRecord({"trace_id": "t", "span_id": "s"})
        assert CorrelationLogFilter().filter(inside)
        assert CorrelationLogFilter().filter(own)
    context = span.get_span_context()
    assert (inside.trace_id, inside.span_id) == (f"{context.trace_id:032x}", f"{context.span_id:016x}")  # type: ignore[attr-defined]
    assert (own.trace_id, own.span_id) == ("t", "s")  # type: ignore[attr-defined]


async def test_lines_about_a_failure_have_the_ids_of_its_span(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    router = make_router(redis, max_deliveries=2)
    router.use_telemetry(OpenTelemetry(tracer_provider=provider))
    caplog.handler.addFilter(traced := CorrelationLogFilter())

    @router.on(OuLogged)
    async def fail(event: OuLogged) -> None:
        raise ValueError("never")

    async with running(router):
        await emit(redis)
        await eventually(lambda: records(caplog, "dead letter of handler"))
    caplog.handler.removeFilter(traced)
    runs = [span.context for span in exporter.get_finished_spans() if span.name.startswith("process")]
    lines = [*records(caplog, "next one in"), *records(caplog, "dead letter of handler")]
    assert [(line["trace_id"], line["span_id"]) for line in lines] == [
        (f"{run.trace_id:032x}", f"{run.span_id:016x}") for run in runs
    ]
