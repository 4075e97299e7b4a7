"""The log of failures: one line for each failed delivery, and of many with one cause in a minute only their number.

With a redaction, no part of a record has what it hides: neither the message nor the error that handlers get.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError

from rapids._core.control_characters import indented
from rapids._core.failures import TRACEBACK_LIMIT, Failure, is_of_signal, traceback_of
from rapids._core.quoted_inputs import without_inputs
from rapids._core.settings import LogRedaction
from rapids._wire.entry_format import Fields, documents_in
from rapids.exceptions import RapidsError, without_input

__all__ = ["Cause", "FailureLog", "Raised"]

logger = logging.getLogger("rapids.worker")

LINES = 10
"""Lines about one cause in one window. The others are counted."""

WINDOW = 60.0
"""Seconds."""

MAX_CAUSES = 1_000
"""Causes that are counted separately; all further ones count as one."""

Cause: TypeAlias = tuple[str, str, str, str]
"""What happened, the event type, the handler, and the type of the error."""

Raised: TypeAlias = tuple[Failure, BaseException | None]
"""A failure, and the error that it was, if there was one and it is known."""

_GROUP = "Exception Group Traceback"
"""In the traceback of a group, which may leave some of its errors out."""

OTHERS: Cause = ("a failure", "", "", "other causes")


@dataclass(slots=True)
class _Window:
    ends_at: float
    lines: int = 0
    left_out: int = 0
    timer: asyncio.TimerHandle | None = None


class FailureLog:
    """Writes lines about failures, and what it left out when the window of a cause ends."""

    def __init__(self, context: Mapping[str, object], redaction: LogRedaction | None = None) -> None:
        """`context`: the fields of every log record. `redaction`: what hides secrets in texts of errors."""
        self._context = context
        self._redaction = redaction
        self._windows: dict[Cause, _Window] = {}

    def write(
        self,
        level: int,
        cause: Cause,
        message: str,
        *args: object,
        extra: Mapping[str, object],
        raised: Sequence[Raised] = (),
        fields: Fields = (),
    ) -> None:
        """Write a line, with the traceback of the first error, unless there were too many lines of this cause.

        `raised`: what failed; its text is the last argument of the message. `fields`: those of the entry.
        """
        now = time.monotonic()
        if cause not in self._windows and len(self._windows) >= MAX_CAUSES:
            for other, window in list(self._windows.items()):
                if window.ends_at <= now:
                    self._end(other)
            if len(self._windows) >= MAX_CAUSES:
                cause = OTHERS
        window = self._windows.get(cause)
        if window is None or window.ends_at <= now:
            if window is not None:
                self._end(cause)
            window = self._windows[cause] = _Window(now + WINDOW)
        if window.lines >= LINES:
            window.left_out += 1
            if window.timer is None:
                window.timer = asyncio.get_running_loop().call_later(window.ends_at - now, self._end, cause)
            return
        window.lines += 1
        if not logger.isEnabledFor(level):
            return
        texts = [self.text_of(one, fields) for one in raised]
        if texts:
            args = (*args, "; ".join(texts))
        first = next((at for at, one in enumerate(raised) if one[1] is not None), None)
        error, trace = (None, None) if first is None else self._shown(raised[first], texts[first], fields)
        # Not `logger.log`: the text of a traceback can only be given to a record.
        file, line, function, _ = logger.findCaller()
        about = None if error is None else (type(error), error, error.__traceback__)
        record = logger.makeRecord(logger.name, level, file, line, message, args, about, function, extra)
        record.exc_text = trace
        logger.handle(record)

    def text_of(self, raised: Raised, fields: Fields) -> str:
        """The type and the text of an error for the log. `fields`: those of the entry that it is about.

        The dead letter keeps all of the text, next to the payload that it may quote.
        """
        return _with_type(raised[0], self._redacted(_message_of(raised), fields))

    def texts_of(self, raised: Raised, fields: Fields) -> tuple[str, str]:
        """The text of an error and its traceback, as the log has them: what the log hides is hidden."""
        failure = raised[0]
        return self._redacted(_message_of(raised), fields), self._redacted(failure.traceback, fields)

    def close(self) -> None:
        """Write what was left out so far."""
        for cause in list(self._windows):
            self._end(cause)

    def _end(self, cause: Cause) -> None:
        window = self._windows.pop(cause)
        if window.timer is not None:
            window.timer.cancel()
        if window.left_out:
            what, event_type, handler, error_type = cause
            logger.warning(
                "%s of handler %r on %r with %s: ... %d more in the last %d s",
                what,
                handler,
                event_type,
                error_type,
                window.left_out,
                round(WINDOW - max(window.ends_at - time.monotonic(), 0)),
                extra={
                    **self._context,
                    "event_type": event_type,
                    "handler": handler,
                    "error_type": error_type,
                    "left_out": window.left_out,
                },
            )

    def _shown(self, raised: Raised, text: str, fields: Fields) -> tuple[BaseException | None, str | None]:
        """The error that log handlers get, and the text of its traceback if they must not make that themselves.

        If there is something to hide in an error, or in one that it refers to, another error with the given text is in
        its place.
        """
        error = raised[1]
        if isinstance(error, ValidationError):  # Pydantic's own text quotes the input, usually part of a payload
            error = RapidsError(f"ValidationError: {without_input(error)}").with_traceback(error.__traceback__)
        if error is None or self._redaction is None:
            return error, None
        whole = traceback_of(error)
        shown = self._redacted(without_inputs(whole)[-TRACEBACK_LIMIT:], fields)
        if shown == whole and _GROUP not in whole and text == _with_type(raised[0], _message_of(raised)):
            return error, None
        return RapidsError(text).with_traceback(error.__traceback__), indented(shown.rstrip())

    def _redacted(self, text: str, fields: Fields) -> str:
        if self._redaction is None:
            return text
        try:
            data, metadata = documents_in(fields)
            if isinstance(shown := self._redaction(data, metadata, text), str):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
                return shown
            why = f"returned a {type(shown).__name__}"
        except BaseException as error:  # it is user code
            if is_of_signal(error):
                raise
            why = f"raised {type(error).__name__}"
        return f"[withheld: the log redaction {why}]"


def _message_of(raised: Raised) -> str:
    failure, error = raised
    return without_input(error) if isinstance(error, ValidationError) else failure.message


def _with_type(failure: Failure, text: str) -> str:
    return f"{failure.error_type}: {text}" if failure.error_type else text
