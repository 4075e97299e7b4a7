"""Failures: errors as text that can be stored, with the position in the code that they came from."""

import sys
import traceback
from asyncio import CancelledError
from dataclasses import dataclass
from types import FrameType, TracebackType

from rapids.exceptions import NonRetryableError

__all__ = ["Failure", "storable"]

ERROR_LIMIT = 4_096
"""The longest error text in a dead letter, in characters."""

TRACEBACK_LIMIT = 16_384
"""The longest traceback in a dead letter, in characters: its end is kept, which has the error."""

POSITION_LIMIT = 200
"""The longest position, in characters."""


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
            storable(_text_of(error))[:ERROR_LIMIT],
            storable(_traceback_of(error))[-TRACEBACK_LIMIT:],
            storable(_position_of(error, home))[:POSITION_LIMIT],
        )


def storable(text: str) -> str:
    """`text` in which characters that UTF-8 cannot hold are written as escapes."""
    return text.encode(errors="backslashreplace").decode()


# An error is user code: its text, notes or position may raise or be no text. The dead letter must still be written.


def _text_of(error: BaseException) -> str:
    try:
        return str(error) or type(error).__name__
    except (Exception, CancelledError) as broken:
        return f"{type(error).__name__} whose text could not be made: {type(broken).__name__}"


def _traceback_of(error: BaseException) -> str:
    at = _frames_of(error)
    try:
        return "".join(traceback.format_exception(type(error), error, _users_frames(at)))
    except (Exception, CancelledError) as broken:
        frames = "".join(traceback.format_tb(at))
        return f"{frames}{type(error).__name__} whose traceback could not be made: {type(broken).__name__}\n"


def _frames_of(error: BaseException) -> TracebackType | None:
    try:
        return error.__traceback__
    except (Exception, CancelledError):
        return None


def _cause_of(error: BaseException) -> BaseException | None:
    try:
        return error.__cause__
    except (Exception, CancelledError):
        return None


def _users_frames(frames: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of Rapids at its start, which do not help a reader."""
    at = frames
    while at is not None and _package_of(at.tb_frame) == "rapids":
        at = at.tb_next
    return at


def _position_of(error: BaseException, home: str) -> str:
    """The innermost frame of the user's code or, if there is none, the innermost of all frames.

    An error without a traceback, such as the time-out of an interrupted handler, has the position of its cause.
    """
    cause = _cause_of(error)
    frames = _frames_of(error) or (None if cause is None else _frames_of(cause))
    users: TracebackType | None = None
    last, at = frames, frames
    while at is not None:
        if _is_users(at.tb_frame, home.partition(".")[0]):
            users = at
        last, at = at, at.tb_next
    place = users or last
    if place is None:
        return ""
    return f"{_module_of(place.tb_frame)}:{place.tb_lineno} {place.tb_frame.f_code.co_qualname}"


# By module names, which costs very little. A frame's file is not opened, since it may no longer exist.
_LIBRARIES = sys.stdlib_module_names | {"rapids", "rapids_fastapi"}
_FOLDERS_OF_LIBRARIES = ("site-packages", "dist-packages")


def _is_users(frame: FrameType, home: str) -> bool:
    package = _package_of(frame)
    if home and package == home:
        return True  # also if the service itself is installed as a package
    return package not in _LIBRARIES and not any(name in frame.f_code.co_filename for name in _FOLDERS_OF_LIBRARIES)


def _package_of(frame: FrameType) -> str:
    return _module_of(frame).partition(".")[0]


def _module_of(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__")
    return name if isinstance(name, str) and name else "?"
