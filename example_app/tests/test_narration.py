"""What the demo prints, and from which sources."""

import asyncio
import io
import logging
import os
import signal
from collections.abc import Iterator
from typing import Any, TextIO

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from example_app.demo.narration import Narrator, RequestNarration, narrated_logs, wants_colour
from rapids import Delivery, GenericEvent
from rapids_fastapi import CorrelationMiddleware

EVENT = GenericEvent(raw_type="order.placed", correlation_id="0123456789")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def narrator(out: io.StringIO) -> Narrator:
    return Narrator(out, colour=False)


def delivery(**fields: Any) -> Delivery:
    known: dict[str, Any] = {
        "stream": "s",
        "group": "g",
        "consumer": "c",
        "entry_id": "1-0",
        "deliveries": 1,
        "attempt": 1,
    }
    return Delivery(event=EVENT, handler="take_payment", **{**known, **fields})


async def well(delivery: Delivery) -> None:
    pass


async def badly(delivery: Delivery) -> None:
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("out", "environment", "colour"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colours_are_only_for_terminals_that_allow_them(
    out: io.StringIO, environment: dict[str, str], colour: bool
) -> None:
    assert wants_colour(out, environment) is colour


async def test_without_colours_there_are_no_escapes_and_with_them_there_are(out: io.StringIO) -> None:
    for colour in (False, True):
        narrator = Narrator(out, colour=colour)
        narrator.chapter("One")
        narrator.verdict("all is well", "")
        assert ("\x1b[" in out.getvalue()) is colour


async def test_a_handler_that_finished_is_printed(narrator: Narrator, out: io.StringIO) -> None:
    await narrator.handler(delivery(), well)
    assert out.getvalue().startswith("  01234567  order.placed → take_payment ")
    assert "done in " in out.getvalue()


async def test_a_later_attempt_and_a_replay_are_printed(narrator: Narrator, out: io.StringIO) -> None:
    await narrator.handler(delivery(attempt=2, replay_of="7-0"), well)
    assert out.getvalue().endswith("(attempt 2) (replayed)\n")


async def test_a_failure_is_printed_and_raised_again(narrator: Narrator, out: io.StringIO) -> None:
    with pytest.raises(ValueError, match="no such thing"):
        await narrator.handler(delivery(), badly)
    assert out.getvalue().endswith("failed: ValueError: no such thing\n")


def test_dead_letters_are_printed_and_a_failed_attempt_only_once(narrator: Narrator, out: io.StringIO) -> None:
    log = logging.getLogger("rapids.test")
    known = {"handler": "take_payment", "correlation_id": "0123456789"}
    with narrated_logs(narrator):
        log.error("dead letter", extra=known)
        log.warning("attempt 1 failed", extra=known)
        log.warning("no connection")
        log.info("started")
    log.error("after it")
    assert [line.split() for line in out.getvalue().splitlines()] == [
        ["01234567", "take_payment", "dead", "letter"],
        ["rapids.test", "no", "connection"],
    ]


def test_loggers_are_restored_at_the_end(narrator: Narrator) -> None:
    log = logging.getLogger("rapids")
    before = (log.propagate, list(log.handlers))
    with narrated_logs(narrator):
        assert (log.propagate, list(log.handlers)) != before
    assert (log.propagate, list(log.handlers)) == before


async def test_answers_to_requests_that_change_something_are_printed(narrator: Narrator, out: io.StringIO) -> None:
    async def answer(request: Request) -> Response:
        return Response(status_code=202 if request.method == "POST" else 200)

    app = Starlette(routes=[Route("/orders", answer, methods=["GET", "POST"])])
    transport = httpx.ASGITransport(CorrelationMiddleware(RequestNarration(app, narrator)))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        await http.get("/orders")
        assert out.getvalue() == ""
        await http.post("/orders", headers={"X-Correlation-ID": "web-1"})
    assert out.getvalue().split() == ["web-1", "POST", "/orders", "answered", "202"]


@pytest.fixture
def nobody_reads() -> Iterator[TextIO]:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as out:
        yield out


async def test_without_a_reader_it_asks_to_stop_and_raises_nothing(nobody_reads: TextIO) -> None:
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
    try:
        narrator = Narrator(nobody_reads, colour=False)
        await narrator.handler(delivery(), well)
        await asyncio.wait_for(stopped.wait(), 30)
        narrator.say("more")
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
