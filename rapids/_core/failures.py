"""Failures: errors as text that can be stored, with the position in the code that they came from."""

import opcode
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType, TracebackType
from typing import Any, cast

from rapids._core.quoted_inputs import without_inputs
from rapids.exceptions import NonRetryableError, RetryAfter

__all__ = [
    "MAX_DELAY",
    "TRACEBACK_LIMIT",
    "Failure",
    "begin_in_users_code",
    "is_hopeless",
    "is_of_signal",
    "longest_wait",
    "storable",
    "traceback_of",
]

ERROR_LIMIT = 4_096
"""The longest error text in a dead letter, in characters."""

TRACEBACK_LIMIT = 16_384
"""The longest traceback in a dead letter, in characters: its end is kept, which has the error."""

POSITION_LIMIT = 200
"""The longest position, in characters."""


MAX_CHAINED = 100
"""How many errors that refer to one another are looked at."""

MAX_DELAY = 10 * 365 * 86_400.0
"""Seconds. A longer delay stands for no end, and would not fit into a time stamp."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as text of limited length that can be stored."""

    error_type: str
    message: str
    traceback: str = ""
    position: str = ""
    """The position in the code, by which failures are grouped: `module:line function`. It is the same in all processes
    and on all machines that run this code. Empty if there was no traceback."""

    @classmethod
    def of(cls, error: BaseException, home: str = "") -> "Failure":
        """The failure to store for `error`. A `NonRetryableError` with a cause is described by its cause.

        `home` is the handler's module: it counts as the user's code, wherever it is installed.
        """
        if isinstance(error, NonRetryableError) and error.cause is not None:
            error = error.cause
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        return cls(
            storable(name)[:ERROR_LIMIT],
            without_inputs(storable(_text_of(error)))[:ERROR_LIMIT],
            without_inputs(traceback_of(error))[-TRACEBACK_LIMIT:],
            storable(_position_of(error, home))[:POSITION_LIMIT],
        )


def storable(text: str) -> str:
    """`text` in which characters that UTF-8 cannot hold are written as escapes."""
    return text.encode(errors="backslashreplace").decode()


def _errors_in(error: BaseException) -> Iterator[BaseException]:
    """The errors in an exception group, at any depth; an error that is no group itself."""
    left = [error]
    while left:
        one = left.pop()
        if isinstance(one, BaseExceptionGroup):
            left += reversed(cast(Sequence[BaseException], one.exceptions))
        else:
            yield one


def longest_wait(error: BaseException) -> float | None:
    """The longest wait that a handler asked for, in seconds; None if it asked for none."""
    waits = [one.seconds for one in _errors_in(error) if isinstance(one, RetryAfter)]
    return min(max(waits), MAX_DELAY) if waits else None


def is_hopeless(error: BaseException, listed: Sequence[type[BaseException]]) -> bool:
    """Whether no other attempt may follow. `listed`: the errors after which one may; all if it is empty.

    Of an exception group that is not listed itself, every error must be listed.
    """
    errors, retried = tuple(_errors_in(error)), (*listed, RetryAfter)
    if any(isinstance(one, NonRetryableError) for one in errors):
        return True
    return bool(listed) and not isinstance(error, retried) and not all(isinstance(one, retried) for one in errors)


def is_of_signal(error: BaseException) -> bool:
    """Whether a signal handler raised an error, to end the program. The code that it interrupted did not fail.

    A `SystemExit` or `KeyboardInterrupt` of any other origin is an error of the code that raised it.
    """
    if not isinstance(error, KeyboardInterrupt | SystemExit):
        return False
    codes, last, at = set(_codes_of_signal_handlers()), None, error.__traceback__
    while at is not None:
        if at.tb_frame.f_code in codes:
            return True
        last, at = at, at.tb_next
    # Python's own handler of SIGINT has no frame: its error comes from whatever was done at that moment.
    return (
        isinstance(error, KeyboardInterrupt)
        and last is not None
        and opcode.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] != "RAISE_VARARGS"
    )


def _codes_of_signal_handlers() -> Iterator[object]:
    for number in signal.valid_signals():
        handler: object = signal.getsignal(number)
        while isinstance(handler, partial):  # asyncio's own
            handler = handler.func
        if (code := getattr(handler, "__code__", None)) is not None:
            yield code


# An error is user code: its text, notes or position may raise or be no text. The dead letter must still be written.


def _text_of(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except BaseException as broken:
        if is_of_signal(broken):
            raise
        return f"{type(error).__name__} whose text could not be made: {type(broken).__name__}"


def begin_in_users_code(error: BaseException, home: str) -> None:
    """Let the tracebacks of a handler's error, and of the errors that it refers to, begin in the user's code: what is
    before, frames of Rapids and of Python's own modules such as a thread's, is the same for every failure.

    No frame after the first one of other code is left out, and all are kept if there is none. `home`: the handler's
    module.
    """
    home = home.partition(".")[0]
    seen, left = set[int](), [error]
    while left and len(seen) < MAX_CHAINED:
        one = left.pop()
        seen.add(id(one))
        shown = whole = _attribute(one, "__traceback__")
        while (
            isinstance(shown, TracebackType)
            and (package := _package_of(shown.tb_frame)) in _LIBRARIES
            and package != home
        ):
            shown = shown.tb_next
        if isinstance(shown, TracebackType) and shown is not whole:
            BaseException.with_traceback(one, shown)
        for name in ("__cause__", "__context__"):
            other = _attribute(one, name)
            if isinstance(other, BaseException) and id(other) not in seen:
                left.append(other)


def traceback_of(error: BaseException) -> str:
    """The whole traceback, with all errors that it shows, in characters that UTF-8 can hold."""
    at = _attribute(error, "__traceback__")
    try:
        shown = at
        while shown is not None and _package_of(shown.tb_frame) == "rapids":  # its frames do not help a reader
            shown = shown.tb_next
        return storable("".join(traceback.format_exception(type(error), error, shown)))
    except BaseException as broken:
        if is_of_signal(broken):
            raise
        frames = "".join(traceback.format_tb(at))
        return storable(f"{frames}{type(error).__name__} whose traceback could not be made: {type(broken).__name__}\n")


def _attribute(error: BaseException, name: str) -> Any:
    try:
        return getattr(error, name)
    except BaseException as broken:
        if is_of_signal(broken):
            raise
        return None


def _position_of(error: BaseException, home: str) -> str:
    """The innermost frame of the user's code or, if there is none, the innermost of all frames.

    An error without a traceback, such as the time-out of an interrupted handler, has the position of its cause.
    """
    cause = _attribute(error, "__cause__")
    frames: TracebackType | None = _attribute(error, "__traceback__")
    if frames is None and cause is not None:
        frames = _attribute(cause, "__traceback__")
    home = home.partition(".")[0]
    users: TracebackType | None = None
    last, at = frames, frames
    while at is not None:
        package, file = _package_of(at.tb_frame), at.tb_frame.f_code.co_filename
        is_library = package in _LIBRARIES or any(name in file for name in _FOLDERS_OF_LIBRARIES)
        if not is_library or package == home != "":  # a service may itself be installed as a package
            users = at
        last, at = at, at.tb_next
    place = users or last
    if place is None:
        return ""
    return f"{_module_of(place.tb_frame)}:{place.tb_lineno} {place.tb_frame.f_code.co_qualname}"


# By module names, which costs very little. A frame's file is not opened, since it may no longer exist.
_LIBRARIES = sys.stdlib_module_names | {"rapids", "rapids_fastapi"}
_FOLDERS_OF_LIBRARIES = ("site-packages", "dist-packages")


def _package_of(frame: FrameType) -> str:
    return _module_of(frame).partition(".")[0]


def _module_of(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) and name else "?"
