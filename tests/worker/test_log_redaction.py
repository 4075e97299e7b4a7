"""The log of failures with `use_log_redaction`: what its function hides is in no part of a record."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventRouter
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError, RapidsError
from rapids.observers import Detail, HandlerFailed
from tests.support import eventually, ignore
from tests.worker.helpers import make_emitter, make_router, running, until_settled

SECRET = "hunter2"


class LrSecret(BaseEvent):
    text: str = SECRET
    number: int = 0


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "rapids")


def hide(data: bytes, metadata: bytes, text: str) -> str:
    """Knows what to hide from the data of the entry alone."""
    assert metadata == b'{"tenant":"acme"}'
    assert SECRET.encode() in data
    return text.replace(SECRET, "***")


def errors_in(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and all that log handlers find from it."""
    if error is not None:
        yield error
        yield from errors_in(error.__cause__)
        yield from errors_in(error.__context__)
        members: tuple[BaseException, ...] = getattr(error, "exceptions", ())
        for one in members:
            yield from errors_in(one)


def seen(record: logging.LogRecord) -> str:
    """All that handlers see of a record: of the standard library, of JSON, and of error trackers."""
    extra = {name: value for name, value in vars(record).items() if name != "exc_info"}
    errors = list(errors_in(record.exc_info[1])) if record.exc_info else []
    texts = [f"{one} {one!r} {vars(one)}" for one in errors]
    return "\n".join([logging.Formatter("%(message)s").format(record), repr(extra), *texts])


async def run(redis: Redis, router: EventRouter, *numbers: int) -> None:
    async with running(router):
        await make_emitter(redis).emit([LrSecret(number=at, metadata={"tenant": "acme"}) for at in numbers or (0,)])
        await until_settled(redis)


def raise_(how: str, text: str) -> None:
    match how:
        case "cause":
            raise RuntimeError("of another") from ValueError(text)
        case "context":
            try:
                raise ValueError(text)
            except ValueError:
                raise RuntimeError("of another")  # noqa: B904 - the context is the point
        case "note":
            error = ValueError("noted")
            error.add_note(text)
            raise error
        case "group":
            raise ExceptionGroup("several", [ValueError(number) for number in range(20)] + [ValueError(text)])
        case "permanent":
            raise NonRetryableError(text)
        case "long":
            raise ValueError("x" * 20_000 + text)
        case _:
            raise ValueError(text)


@pytest.mark.parametrize("how", ["", "cause", "context", "note", "group", "permanent", "long"])
async def test_no_part_of_a_record_has_what_is_hidden(redis: Redis, caplog: pytest.LogCaptureFixture, how: str) -> None:
    router = make_router(redis, max_deliveries=2, default_retries=1)
    router.use_log_redaction(hide)

    @router.on(LrSecret)
    async def pay(event: LrSecret) -> None:
        raise_(how, event.text)

    await run(redis, router)
    [letter] = [record for record in caplog.records if "dead letter" in record.getMessage()]
    assert all(SECRET not in seen(record) for record in caplog.records)
    assert letter.exc_info
    assert [frame.name for frame in traceback.extract_tb(letter.exc_info[2])] == ["pay", "raise_"]
    text = logging.Formatter("%(message)s").format(letter)
    assert all(line.startswith("  ") for line in text.splitlines()[1:])
    assert "in raise_" in text or how == "long", "of a long one, the end is shown"
    assert "***" in text or how == "group", "of a group, the first errors are shown"


async def test_what_is_parked_and_summed_up_is_hidden(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router = make_router(redis, max_deliveries=1, dlq_stream=None)
    router.use_log_redaction(hide)

    @router.on(LrSecret)
    async def pay(event: LrSecret) -> None:
        raise ValueError(f"{event.text} of {event.number}")

    async with running(router):
        await make_emitter(redis).emit([LrSecret(number=at, metadata={"tenant": "acme"}) for at in range(12)])
        await eventually(lambda: router.counters.total("parked") == 12)
    lines = [record.getMessage() for record in caplog.records]
    assert sum("failed for good in" in line and "ValueError: *** of" in line for line in lines) == 10
    assert [line for line in lines if "2 more in" in line and "with ValueError: ..." in line]
    assert all(SECRET not in seen(record) for record in caplog.records)


@pytest.mark.parametrize("how", ["quoted", "cause"])
async def test_an_error_of_an_observer_is_logged_without_its_text(
    redis: Redis, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    def count_failures(detail: Detail) -> None:
        if isinstance(detail, HandlerFailed):
            raise LookupError(f"no metric for {detail}" if how == "quoted" else "no metric") from detail.error

    router = make_router(redis, max_deliveries=1, observers=[count_failures])
    router.use_log_redaction(hide)

    @router.on(LrSecret)
    async def pay(event: LrSecret) -> None:
        raise ValueError(event.text)

    await run(redis, router)
    [line] = [record for record in caplog.records if record.name == "rapids.observers"]
    assert all(SECRET not in seen(record) for record in caplog.records)
    text = logging.Formatter("%(message)s").format(line)
    assert "observer 1 raised on HandlerFailed" in text
    assert "in count_failures" in text
    assert "LookupError, whose text may quote what is hidden" in text


async def test_an_error_with_nothing_to_hide_is_logged_as_it_is(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router, raised = make_router(redis, max_deliveries=1), KeyError("no such order")
    router.use_log_redaction(hide)

    @router.on(LrSecret)
    async def pay(event: LrSecret) -> None:
        raise raised from ValueError("why")

    await run(redis, router)
    [letter] = [record for record in caplog.records if "dead letter" in record.getMessage()]
    assert letter.exc_info
    assert letter.exc_info[1] is raised
    assert [frame.name for frame in traceback.extract_tb(raised.__traceback__)] == ["pay"]
    assert "ValueError: why" in logging.Formatter().format(letter)


def broken(data: bytes, metadata: bytes, text: str) -> str:
    raise ValueError(text)


def no_text(data: bytes, metadata: bytes, text: str) -> Any:
    return None


def ends(data: bytes, metadata: bytes, text: str) -> str:
    raise SystemExit(text)


@pytest.mark.parametrize("function", [broken, no_text, ends])
async def test_the_text_is_withheld_if_the_function_fails(
    redis: Redis, caplog: pytest.LogCaptureFixture, function: Any
) -> None:
    router = make_router(redis, max_deliveries=2, default_retries=1)
    router.use_log_redaction(function)

    @router.on(LrSecret)
    async def pay(event: LrSecret) -> None:
        raise ValueError(event.text)

    await run(redis, router)
    failed = [record for record in caplog.records if "ValueError: [withheld: " in record.getMessage()]
    assert len(failed) == 4, "two attempts, a delivery, a letter"
    assert all(SECRET not in seen(record) for record in caplog.records)


async def test_it_is_asked_only_for_what_is_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rapids")
    router, asked = make_router(redis, max_deliveries=1, default_retries=1), list[str]()

    def count(data: bytes, metadata: bytes, text: str) -> str:
        asked.append(text)
        return text

    router.use_log_redaction(count)

    @router.on(LrSecret)
    async def pay(event: LrSecret) -> None:
        if event.number:
            raise ValueError("no money")

    await run(redis, router, 0)
    assert asked == []
    await run(redis, router, *range(1, 31))
    assert len(asked) == 10 * 2, "the message and the traceback of ten letters"


async def test_without_it_the_text_is_logged_as_it_is(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router = make_router(redis, max_deliveries=1)

    @router.on(LrSecret)
    async def pay(event: LrSecret) -> None:
        raise ValueError(event.text)

    await run(redis, router)
    assert f"ValueError: {SECRET}" in caplog.text


async def later(data: bytes, metadata: bytes, text: str) -> str:
    return text


@pytest.mark.parametrize("function", [None, "password", later, constant(1.0), lambda: ""])
def test_anything_but_a_plain_function_of_three_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match=r"redaction must be a plain function \(data, metadata, text\), not "):
        EventRouter().use_log_redaction(function)


async def test_it_comes_before_the_start(redis: Redis) -> None:
    router = make_router(redis)
    router.on(LrSecret)(ignore)
    async with running(router):
        with pytest.raises(RapidsError, match=r"use_log_redaction\(\) must come before"):
            router.use_log_redaction(hide)
