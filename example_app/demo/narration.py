"""Prints what happens: HTTP answers, handlers that ran, and log records."""

import logging
import os
import signal
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TextIO

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rapids import CallNext, Delivery, get_correlation_id

__all__ = ["Narrator", "RequestNarration", "narrated_logs", "wants_colour"]

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
SUBJECT_WIDTH = 40
ID_WIDTH = 8
READING = {"GET", "HEAD", "OPTIONS"}


def wants_colour(out: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether to use colours: on a terminal, unless the user turned them off (https://no-color.org)."""
    return out.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


class Narrator:
    """Writes the demo's output, line by line."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour

    def chapter(self, title: str) -> None:
        """A heading for what comes next."""
        self.say(f"\n{self._styled(title, 'bold')}")

    def say(self, text: str = "") -> None:
        """A line of text."""
        try:
            self._out.write(f"{text}\n")
            self._out.flush()
        except BrokenPipeError:
            # The reader is gone (`... | head`): stop as for Ctrl-C. Handlers call this, and must not fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())
            signal.raise_signal(signal.SIGINT)

    def seen(self, correlation_id: str, subject: str, what: str, style: str = "") -> None:
        """An event of the demo: its request, the place, and what happened."""
        mark = self._styled(f"{correlation_id[:ID_WIDTH]:{ID_WIDTH}}", "cyan")
        self.say(f"  {mark}  {subject:{SUBJECT_WIDTH}}  {self._styled(what, style)}")

    def verdict(self, what: str, wrong: str) -> None:
        """The result of a check: what was checked, and what is wrong, if anything."""
        mark = self._styled("wrong", "red") if wrong else self._styled("ok", "green")
        self.say(f"  {mark}  {what}{': ' if wrong else ''}{wrong}")

    async def handler(self, delivery: Delivery, call_next: CallNext) -> None:
        """Handler middleware: prints how each attempt of each handler ended."""
        began = time.perf_counter()
        try:
            await call_next(delivery)
        except BaseException as error:
            self._attempted(delivery, f"failed: {type(error).__name__}: {error}", "yellow")
            raise
        self._attempted(delivery, f"done in {(time.perf_counter() - began) * 1000:.0f} ms", "green")

    def _attempted(self, delivery: Delivery, what: str, style: str) -> None:
        if delivery.attempt > 1:
            what += f" (attempt {delivery.attempt})"
        if delivery.replay_of is not None:
            what += " (replayed)"
        event = delivery.event
        self.seen(event.correlation_id or event.id, f"{event.routing_key} → {delivery.handler}", what, style)

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{STYLES[style]}m{text}\x1b[0m" if self._colour and style else text


class RequestNarration:
    """ASGI middleware: prints the answers to requests that change something.

    It must run inside `CorrelationMiddleware`, which sets the correlation id.
    """

    def __init__(self, app: ASGIApp, narrator: Narrator) -> None:
        self.app = app
        self._narrator = narrator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and print the status of the answer."""
        if scope["type"] != "http" or scope["method"] in READING:
            await self.app(scope, receive, send)
            return

        async def send_and_tell(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answered(f"{scope['method']} {scope['path']}", message["status"])
            await send(message)

        await self.app(scope, receive, send_and_tell)

    def _answered(self, request: str, status: int) -> None:
        style = "bold" if status < 400 else "red"
        self._narrator.seen(get_correlation_id() or "", request, f"answered {status}", style)


class LogNarration(logging.Handler):
    """Prints log records: dead letters, postponed deliveries, outages."""

    def __init__(self, narrator: Narrator) -> None:
        super().__init__(logging.WARNING)
        self._narrator = narrator

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record. Rapids adds the handler and the correlation id as `extra`."""
        known = record.__dict__
        handler = str(known.get("handler", ""))
        if handler and record.levelno < logging.ERROR:
            return  # a failed attempt, which the middleware has printed
        style = "red" if record.levelno >= logging.ERROR else "yellow"
        self._narrator.seen(str(known.get("correlation_id", "")), handler or record.name, record.getMessage(), style)


@contextmanager
def narrated_logs(narrator: Narrator) -> Generator[None]:
    """Print the log records of Rapids and of the service during the block."""
    handler = LogNarration(narrator)
    loggers = [logging.getLogger(name) for name in ("rapids", "example_app")]
    before = [logger.propagate for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, propagated in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.propagate = propagated
