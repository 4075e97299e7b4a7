"""The log of failures: one line for each failed delivery, and of many with one cause in a minute only their number."""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import ValidationError

from rapids._core.failures import Failure
from rapids.exceptions import RapidsError, without_input

__all__ = ["Cause", "FailureLog", "text_for_log"]

logger = logging.getLogger("rapids.worker")

LINES = 10
"""Lines about one cause in one window. The others are counted."""

WINDOW = 60.0
"""Seconds."""

MAX_CAUSES = 1_000
"""Causes that are counted separately; all further ones count as one."""

Cause: TypeAlias = tuple[str, str, str, str]
"""What happened, the event type, the handler, and the type of the error."""

OTHERS: Cause = ("a failure", "", "", "other causes")


@dataclass(slots=True)
class _Window:
    ends_at: float
    lines: int = 0
    left_out: int = 0
    timer: asyncio.TimerHandle | None = None


class FailureLog:
    """Writes lines about failures, and what it left out when the window of a cause ends."""

    def __init__(self, context: Mapping[str, object]) -> None:
        """`context`: the fields of every log record."""
        self._context = context
        self._windows: dict[Cause, _Window] = {}

    def write(
        self,
        level: int,
        cause: Cause,
        message: str,
        *args: object,
        extra: Mapping[str, object],
        error: BaseException | None = None,
    ) -> None:
        """Write a line, with the traceback of `error`, unless there were too many lines of this cause."""
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
        logger.log(level, message, *args, exc_info=_shown(error), extra=extra)

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


def text_for_log(error: BaseException | None, failure: Failure) -> str:
    """The error's text for the log: the dead letter keeps all of it, next to the payload that it may quote."""
    return without_input(error) if isinstance(error, ValidationError) else failure.message


def _shown(error: BaseException | None) -> BaseException | None:
    """The error whose traceback is shown: Pydantic's own text quotes the input, usually part of a payload."""
    if not isinstance(error, ValidationError):
        return error
    return RapidsError(f"ValidationError: {without_input(error)}").with_traceback(error.__traceback__)
