"""Every Python block of the reference runs as printed, and does what it promises.

The reference lies next to the repository, not in it. Where it is not there, this module has no tests, and
`test_contract.py` holds what the reference names against the package by itself.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, ClassVar
from uuid import UUID

import httpx
import pytest
from pydantic import ValidationError, model_validator
from redis.asyncio import Redis

import rapids.events
from rapids import BaseEvent, EventEmitter, EventRouter, get_event_class
from rapids.exceptions import NonRetryableError, RapidsError
from tests.reference_reader import REFERENCE, Reader, WatchedRouter, client_class, finishing, python_blocks
from tests.support import eventually

__test__ = REFERENCE.is_file()

RUN_HERE: set[str] = set()
STAMP = "2026-11-23T20:54:46.528398+00:00"

Test = Callable[..., Awaitable[None]]


def block(*headings: str) -> Callable[[Test], Test]:
    """Marks a test as the one that runs these blocks."""
    RUN_HERE.update(headings)
    return lambda test: test


def test_every_block_is_run_by_a_test() -> None:
    assert set(python_blocks()) == RUN_HERE


# --- a session ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def reader(redis_url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    """A session in which nothing is defined yet, and every `Redis()` is a client of the tests' server."""
    made: list[Redis] = []
    monkeypatch.setattr(rapids.events, "_registry", {})
    monkeypatch.setattr("redis.asyncio.Redis", client_class(redis_url, made))
    yield Reader()
    for client in made:
        await client.aclose()


@pytest.fixture
async def session(reader: Reader, redis: Redis) -> Reader:
    """A session with what the blocks after the Quick Start take for granted."""
    await reader.types("1. Define Events")
    await reader.types("Event Inheritance")
    reader.names |= {
        "EventRouter": EventRouter,
        "redis": redis,
        "emitter": EventEmitter(redis=redis, stream="events:all"),
        "router": WatchedRouter(redis=redis, stream="events:all", group="readers", dlq_stream="events:dlq"),
    }
    return reader


async def entries(redis: Redis, stream: str = "events:all") -> list[dict[str, str]]:
    """The entries of a stream, as text."""
    return [
        {name.decode(): value.decode() for name, value in fields.items()} for _, fields in await redis.xrange(stream)
    ]


async def stored(redis: Redis, event_type: str, data: dict[str, Any], version: int = 1) -> None:
    """Append an entry as some other service wrote it."""
    fields = {"event_type": event_type, "schema_version": version, "data": json.dumps(data)}
    ids = {"id": "event-1", "timestamp": STAMP, "correlation_id": "", "causation_id": "", "metadata": "{}"}
    await redis.xadd("events:all", fields | ids)


async def read_back(session: Reader) -> Any:
    """The next event of the session's stream, as a handler gets it."""

    @session["router"].on("*")
    async def anything(event: Any) -> None: ...

    async with session.consuming() as handled:
        await eventually(lambda: handled)
    return session["router"].events[0]


# --- quick start ----------------------------------------------------------------------------------------------------


@block("1. Define Events")
async def test_events_are_named_after_their_classes(reader: Reader) -> None:
    await reader.types("1. Define Events")

    assert reader["UserCreated"].event_type == "user.created"
    assert reader["OrderPlaced"].event_type == "order.placed"
    assert get_event_class("user.created") is reader["UserCreated"]

    class S3ObjectUploaded(BaseEvent):
        pass

    assert S3ObjectUploaded.event_type == "s3_object.uploaded"


@block("2. Emit Events", "3. Consume Events")
async def test_quick_start(reader: Reader, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    await reader.types("1. Define Events")
    await reader.types("2. Emit Events")

    assert [(entry["event_type"], json.loads(entry["data"])) for entry in await entries(redis)] == [
        ("user.created", {"user_id": "123", "email": "user@example.com"}),
        ("order.placed", {"order_id": "order-1", "user_id": "123", "total": 99.99}),
        ("order.placed", {"order_id": "order-2", "user_id": "456", "total": 149.99}),
    ]

    printed = ""
    async with reader.typing("3. Consume Events"):
        while printed.count("\n") < 2:
            printed += await eventually(lambda: capsys.readouterr().out)

    assert printed == "Processing order order-1 for $99.99\nProcessing order order-2 for $149.99\n"
    assert (await redis.xinfo_groups("events:all"))[0]["name"] == b"order-service"
    assert (await redis.xpending("events:all", "order-service"))["pending"] == 0


# --- events ---------------------------------------------------------------------------------------------------------


@block("BaseEvent")
async def test_base_event(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    await reader.types("BaseEvent")

    event_id, timestamp, event_type = capsys.readouterr().out.splitlines()
    event = reader["event"]
    assert str(UUID(event_id)) == event_id == event.id
    assert timestamp == str(event.timestamp)
    assert timestamp.endswith("+00:00")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(timestamp)).total_seconds()) < 60
    assert event_type == "document.created"
    assert (event.correlation_id, event.causation_id) == ("request-abc", None)
    assert event.metadata == {"source": "api", "version": 2}
    with pytest.raises(ValidationError, match="frozen"):
        event.title = "Another Report"


@block("Event Inheritance")
async def test_event_inheritance(reader: Reader) -> None:
    await reader.types("1. Define Events")
    await reader.types("Event Inheritance")

    for name, event_type in (
        ("DocumentCreated", "document.created"),
        ("DocumentDeleted", "document.deleted"),
        ("DocumentArchived", "document.archived"),
    ):
        assert issubclass(reader[name], reader["DocumentEvent"])
        assert reader[name].event_type == event_type
        assert get_event_class(event_type) is reader[name]
        assert "doc_id" in reader[name].model_fields
    assert reader["DocumentEvent"].__doc__ == "Base class for all document events."


@block("GenericEvent")
async def test_generic_event(session: Reader, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    await session.types("GenericEvent")
    await stored(redis, "partner.thing_happened", {"a": [1, 2]})

    async with session.consuming() as handled:
        await eventually(lambda: handled)

    assert capsys.readouterr().out == "Unknown type: partner.thing_happened\nRaw data: {'a': [1, 2]}\n"
    assert handled == [("handle_unknown", "partner.thing_happened")]


@block("Forward Compatibility")
async def test_forward_compatibility(session: Reader, redis: Redis) -> None:
    old = session["UserCreated"]
    await session.types("Forward Compatibility")
    assert get_event_class("user.created") is session["UserCreated"] is not old

    # An old consumer ignores the new field, a new one does without it.
    new = session["UserCreated"](user_id="1", email="a@b.c", display_name="Ann")
    assert old.model_validate(new.model_dump()).email == "a@b.c"
    await stored(redis, "user.created", {"user_id": "1", "email": "a@b.c"})
    event = await read_back(session)
    assert type(event) is session["UserCreated"]
    assert event.display_name is None


@block("Breaking Changes with Migrations")
async def test_breaking_changes_with_migrations(session: Reader, redis: Redis) -> None:
    await session.types("Breaking Changes with Migrations", before="from datetime import datetime")
    assert session["UserCreated"].schema_version == 2

    await stored(redis, "user.created", {"user_id": "1", "email": "a@b.c"}, version=1)
    event = await read_back(session)

    assert type(event) is session["UserCreated"]
    assert event.created_at == event.timestamp == datetime.fromisoformat(STAMP)


async def test_an_event_of_the_current_version_is_not_migrated(session: Reader, redis: Redis) -> None:
    await session.types("Breaking Changes with Migrations", before="from datetime import datetime")
    moment = datetime(2020, 1, 1, tzinfo=UTC)

    await session["emitter"].emit(session["UserCreated"](user_id="1", email="a@b.c", created_at=moment))
    event = await read_back(session)

    assert event.created_at == moment
    assert (await entries(redis))[0]["schema_version"] == "2"


@block("Multiple Version Migrations")
@pytest.mark.parametrize(
    ("version", "data", "total", "currency"),
    [
        (1, {"total": 99.99}, "99.99", "USD"),
        (2, {"total": "99.90"}, "99.90", "USD"),
        (3, {"total": "99.90", "currency": "EUR"}, "99.90", "EUR"),
    ],
)
async def test_multiple_version_migrations(
    session: Reader, redis: Redis, version: int, data: dict[str, Any], total: str, currency: str
) -> None:
    session.names |= {"ClassVar": ClassVar, "Decimal": Decimal, "model_validator": model_validator}
    await session.types("Multiple Version Migrations")

    await stored(redis, "order.placed", {"order_id": "order-1", "user_id": "1", **data}, version)
    event = await read_back(session)

    assert (event.total, event.currency) == (Decimal(total), currency)


# --- emitting -------------------------------------------------------------------------------------------------------


@block("EventEmitter")
async def test_event_emitter(session: Reader, redis: Redis) -> None:
    session.names |= {f"event{n}": session["UserCreated"](user_id=str(n), email="") for n in (1, 2, 3)}
    await session.types("EventEmitter")

    ids = [entry_id.decode() for entry_id, _ in await redis.xrange("events:all")]
    assert [session["msg_id"], *session["msg_ids"]] == ids
    assert [json.loads(entry["data"])["user_id"] for entry in await entries(redis)] == ["123", "1", "2", "3"]


@block("Causation Chains")
async def test_causation_chains(session: Reader, redis: Redis) -> None:
    class DocumentIndexed(BaseEvent):
        doc_id: str

    session.names["DocumentIndexed"] = DocumentIndexed
    await session.types("Causation Chains")
    cause = session["DocumentCreated"](doc_id="d-1", title="t", author="a", correlation_id="request-1")
    await session["emitter"].emit(cause)

    async with session.consuming() as handled:
        await eventually(lambda: handled)

    indexed = (await entries(redis))[1]
    assert (indexed["event_type"], json.loads(indexed["data"])) == ("document.indexed", {"doc_id": "d-1"})
    assert (indexed["causation_id"], indexed["correlation_id"]) == (cause.id, "request-1")


# --- routing --------------------------------------------------------------------------------------------------------


@block("Basic Setup")
async def test_basic_setup(session: Reader, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    session.names.pop("router")
    await session["emitter"].emit(session["UserCreated"](user_id="1", email="ann@example.com"))

    async with session.typing("Basic Setup"):
        printed = await eventually(lambda: capsys.readouterr().out)
        consumers = await redis.xinfo_consumers("events:all", "my-service")

    assert printed == "New user: ann@example.com\n"
    assert b"worker-1" in [consumer["name"] for consumer in consumers]


async def emit_one_of_each(session: Reader) -> None:
    await session["emitter"].emit(
        [
            session["UserCreated"](user_id="1", email="a@b.c"),
            session["DocumentCreated"](doc_id="d-1", title="t", author="a"),
            session["DocumentDeleted"](doc_id="d-2", deleted_by="eve"),
            session["DocumentArchived"](doc_id="d-3", archive_location="attic"),
            session["OrderPlaced"](order_id="o-1", user_id="1", total=1),
        ]
    )
    await stored(session["redis"], "partner.thing", {})


async def handled_of_each(session: Reader) -> list[tuple[str, str]]:
    """Which handlers ran for one event of each kind, once a last handler has seen the last of them."""

    @session["router"].on("**", name="last")
    async def last(event: Any) -> None: ...

    await emit_one_of_each(session)
    async with session.consuming() as handled:
        await eventually(lambda: ("last", "partner.thing") in handled)
    return [(handler, event_type) for handler, event_type in handled if handler != "last"]


@block("Exact Type Match")
async def test_exact_type_match(session: Reader) -> None:
    await session.types("Exact Type Match")
    assert await handled_of_each(session) == [("handle_user_created", "user.created")]


@block("Base Class Match")
async def test_base_class_match(session: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    await session.types("Base Class Match")
    await handled_of_each(session)
    assert capsys.readouterr().out.splitlines() == [
        "Document d-1: document.created",
        "Document d-2: document.deleted",
        "Document d-3: document.archived",
    ]


@block("Union Types")
async def test_union_types(session: Reader) -> None:
    await session.types("Union Types")
    assert await handled_of_each(session) == [
        ("handle_lifecycle", "document.created"),
        ("handle_lifecycle", "document.deleted"),
    ]


@block("Glob Patterns")
async def test_glob_patterns(session: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    await session.types("Glob Patterns")

    everything = [
        "user.created",
        "document.created",
        "document.deleted",
        "document.archived",
        "order.placed",
        "partner.thing",
    ]
    assert sorted(await handled_of_each(session)) == sorted(
        [
            ("handle_all_user_events", "user.created"),
            ("handle_all_document_events", "document.created"),
            ("handle_all_document_events", "document.deleted"),
            ("handle_all_document_events", "document.archived"),
            *(("log_everything", event_type) for event_type in everything),
        ]
    )
    assert capsys.readouterr().out.splitlines() == [f"Event: {event_type}" for event_type in everything]


@block("Multiple Handlers")
async def test_multiple_handlers(session: Reader) -> None:
    await session.types("Multiple Handlers")
    handled = await handled_of_each(session)
    assert [handler for handler, event_type in handled if event_type == "order.placed"] == [
        "send_confirmation",
        "update_inventory",
        "record_metrics",
    ]
    assert [handler for handler, event_type in handled if event_type != "order.placed"] == ["record_metrics"] * 5


# --- correlation ----------------------------------------------------------------------------------------------------


@block("Correlation Scope")
async def test_correlation_scope(session: Reader, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    class UploadStarted(BaseEvent):
        filename: str

    class UploadCompleted(BaseEvent):
        doc_id: str

    async def parse(file: Any) -> Any:
        return SimpleNamespace(id=f"parsed-{file.name}")

    session.names |= {"UploadStarted": UploadStarted, "UploadCompleted": UploadCompleted, "parse": parse}
    session.names["DocumentCreated"] = session["DocumentEvent"]  # the block gives it nothing but a doc_id
    await session.types("Correlation Scope")
    await session["process_upload"](SimpleNamespace(name="report.pdf"))

    sent = await entries(redis)
    assert [entry["event_type"] for entry in sent] == ["upload.started", "document.event", "upload.completed"]
    (correlation_id,) = {entry["correlation_id"] for entry in sent}
    assert str(UUID(correlation_id)) == correlation_id
    assert capsys.readouterr().out == f"All events have correlation_id: {correlation_id}\n"


@block("Explicit Correlation")
async def test_explicit_correlation(session: Reader, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    class PaymentProcessed(BaseEvent):
        order_id: str

    session.names["PaymentProcessed"] = PaymentProcessed
    await session.types("Explicit Correlation")
    order = session["OrderPlaced"](
        order_id="o-1", user_id="1", total=1, correlation_id="request-1", causation_id="click-1"
    )
    await session["emitter"].emit(order)

    async with session.consuming() as handled:
        await eventually(lambda: handled)

    assert capsys.readouterr().out == "Correlation: request-1\nCausation: click-1\n"
    payment = (await entries(redis))[1]
    assert (payment["event_type"], payment["correlation_id"]) == ("payment.processed", "request-1")
    assert payment["causation_id"] == order.id
    assert session["get_correlation_id"]() is session["get_causation_id"]() is None


# --- errors and retries ---------------------------------------------------------------------------------------------


class ExternalApi:
    """What the block leaves out: a client of an API out there, and the API."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, Any]] = []
        self.AsyncClient = lambda: self

    async def __aenter__(self) -> ExternalApi:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def post(self, url: str, json: Any) -> None:
        self.posted.append((url, json))
        if len(self.posted) == 1:
            raise ConnectionError("Connection refused")


def external_api_event() -> type[BaseEvent]:
    class ExternalApiEvent(BaseEvent):
        request: str

    return ExternalApiEvent


@block("Handler-Level Configuration")
async def test_handler_level_configuration(session: Reader) -> None:
    session.names |= {"ExternalApiEvent": external_api_event(), "httpx": ExternalApi()}
    await session.types("Handler-Level Configuration")
    event = session["ExternalApiEvent"](request="r-1")
    await session["emitter"].emit(event)

    async with session.consuming() as handled:
        await eventually(lambda: handled)

    # The first attempt failed; the second came after the backoff, in the same delivery.
    url, posted = session["httpx"].posted[-1]
    assert len(session["httpx"].posted) == 2
    assert (url, posted["request"], posted["id"]) == ("https://api.example.com", "r-1", event.id)
    assert (await session["router"].get_consumer_lag()).pending_count == 0


@block("Backoff Strategies")
async def test_backoff_strategies(reader: Reader) -> None:
    await reader.types("Backoff Strategies")

    exponential, linear, constant = (reader[name] for name in ("exponential", "linear", "constant"))
    delays = exponential(base=2.0, max_delay=60.0, jitter=False)
    assert [delays(attempt) for attempt in range(1, 7)] == [2, 4, 8, 16, 32, 60]
    assert [linear(delay=1.0, max_delay=60.0)(attempt) for attempt in range(1, 6)] == [1, 2, 3, 4, 5]
    assert [constant(delay=5.0)(attempt) for attempt in range(1, 5)] == [5, 5, 5, 5]
    jittered = exponential(base=2.0, max_delay=60.0, jitter=True)
    assert len({jittered(5) for _ in range(20)}) > 1


LETTER_FIELDS = {
    "original_msg_id",
    "original_stream",
    "original_group",
    "reason",
    "error",
    "handler",
    "failed_at",
    "event_type",
    "data",
}


async def delivered_in_vain(redis: Redis, times: int) -> None:
    """Let a consumer, now dead, have got the stream's entries so many times."""
    await redis.xgroup_create("events:all", "my-service", "0")
    taken = await redis.xreadgroup("my-service", "crashed", {"events:all": ">"})
    ids = [entry_id for entry_id, _ in taken[0][1]]
    await redis.xclaim("events:all", "my-service", "crashed", 0, ids, idle=120_000, retrycount=times)


@block("Dead-Letter Queue (DLQ)")
async def test_dead_letter_queue(session: Reader, redis: Redis) -> None:
    await session.types("Dead-Letter Queue (DLQ)")
    external_api_event()

    @session["router"].on("external_api.event")
    async def call_external_api(event: Any) -> None:
        if event.request == "declined":
            raise NonRetryableError("declined")
        raise ConnectionError("Connection refused")

    await stored(redis, "external_api.event", {"request": "r-1"})
    await delivered_in_vain(redis, 4)
    await stored(redis, "external_api.event", {"request": "declined"})
    await stored(redis, "external_api.event", {"no": "request"})
    ids = [entry_id.decode() for entry_id, _ in await redis.xrange("events:all")]

    async with finishing(asyncio.create_task(session["router"].start())):

        async def three_letters() -> bool:
            return await redis.xlen("events:dlq") == 3

        await eventually(three_letters)
        await session["router"].stop()

    letters = {letter["original_msg_id"]: letter for letter in await entries(redis, "events:dlq")}
    assert set(letters) == set(ids)
    for letter in letters.values():
        assert set(letter) >= LETTER_FIELDS
        assert (letter["original_stream"], letter["original_group"]) == ("events:all", "my-service")
        assert letter["event_type"] == "external_api.event"
        assert datetime.fromisoformat(letter["failed_at"]).utcoffset() is not None
    found = [(letters[entry_id]["reason"], letters[entry_id]["handler"]) for entry_id in ids]
    assert found == [
        ("max_deliveries_exceeded", "call_external_api"),
        ("non_retryable", "call_external_api"),
        ("deserialization_error", ""),
    ]
    assert letters[ids[0]]["error"] == "Connection refused"
    assert json.loads(letters[ids[0]]["data"]) == {"request": "r-1"}
    assert (await redis.xpending("events:all", "my-service"))["pending"] == 0


@block("Exception Types")
async def test_exception_types(reader: Reader) -> None:
    await reader.types("Exception Types")

    for name in (
        "EmitError",
        "DeserializationError",
        "HandlerTimeoutError",
        "MaxRetriesExceededError",
        "NonRetryableError",
    ):
        assert issubclass(reader[name], reader["RapidsError"])
    assert reader["RapidsError"] is RapidsError


# --- options --------------------------------------------------------------------------------------------------------


@block("GroupStartPosition")
async def test_group_start_position(reader: Reader) -> None:
    await reader.types("GroupStartPosition")

    position = reader["GroupStartPosition"]
    assert (position.BEGINNING, position.LATEST) == ("0", "$")
    assert EventRouter(group_start_id=position.LATEST).group == "default"


@block("Handler Decorator")
async def test_handler_decorator(session: Reader) -> None:
    await session.types("Backoff Strategies")
    session.names["target"] = session["OrderPlaced"]
    await session.types("Handler Decorator", after="async def handle_order(event): pass")
    assert await handled_of_each(session) == [("handle_order", "order.placed")]


# --- whole programs -------------------------------------------------------------------------------------------------


@block("Complete Example")
async def test_complete_example(reader: Reader, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    await reader.types("Complete Example")
    order = reader["OrderPlaced"](order_id="o-1", user_id="1", items=["book"], total=12.5, correlation_id="request-1")
    printed: list[str] = []

    def has_shipped() -> bool:
        printed.extend(capsys.readouterr().out.splitlines())
        return any(line.startswith("[AUDIT] order.shipped") for line in printed)

    service = asyncio.create_task(reader["main"]())
    try:
        await EventEmitter(redis=redis, stream="orders:events").emit(order)
        await eventually(has_shipped)
    finally:
        service.cancel()  # as asyncio.run does on Ctrl-C
        with suppress(asyncio.CancelledError):
            await service

    placed, paid, shipped = await entries(redis, "orders:events")
    assert printed == [
        "Starting order fulfillment service...",
        "Processing payment for order o-1",
        f"[AUDIT] order.placed: {order.id}",
        "Shipping order o-1",
        f"[AUDIT] order.shipped: {shipped['id']}",
    ]
    assert json.loads(paid["data"]) == {"order_id": "o-1", "payment_id": "pay-o-1", "amount": 12.5}
    assert json.loads(shipped["data"]) == {"order_id": "o-1", "tracking_number": "1Z999AA10123456784"}
    assert {entry["correlation_id"] for entry in (placed, paid, shipped)} == {"request-1"}
    assert (paid["causation_id"], shipped["causation_id"]) == (placed["id"], paid["id"])
    assert (await redis.xpending("orders:events", "fulfillment-service"))["pending"] == 0
    assert await redis.exists("orders:dlq") == 0


@block("FastAPI")
@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # redis-py's, about redis.close()
async def test_fastapi(reader: Reader, redis: Redis, capsys: pytest.CaptureFixture[str]) -> None:
    await reader.types("FastAPI")
    app = reader["app"]

    async with app.router.lifespan_context(app):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client:
            answer = await client.post("/users", params={"email": "ann@example.com"})
        printed = await eventually(lambda: capsys.readouterr().out)

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert printed == "New user: ann@example.com\n"
    assert [entry["event_type"] for entry in await entries(redis, "events")] == ["user.created"]
    assert not reader["router"].running
