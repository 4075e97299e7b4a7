"""Checks of options. Each raises `ValueError` or `TypeError` with the option, the value and what is allowed."""

import math
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction, signature
from types import FunctionType
from typing import Any

__all__ = [
    "actor_and_reason",
    "async_function",
    "at_least",
    "backoff",
    "flag",
    "fraction",
    "hash_tag",
    "instance",
    "middleware",
    "note",
    "observers",
    "one_of",
    "plain_function",
    "positive_seconds",
    "seconds",
    "stream_name",
    "telemetry",
    "text",
]

MAX_NUMBER = 2**63 - 1
"""The largest whole number that Redis accepts."""


def _number(option: str, value: object, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{option} must be {allowed}, not {value!r}")
    return value


def _finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # a whole number too large for a float
        return False


def seconds(option: str, value: float) -> float:
    """A finite number of seconds, zero or more."""
    allowed = "a finite number of seconds, 0 or more"
    if not (_finite(_number(option, value, allowed)) and value >= 0):
        raise ValueError(f"{option} must be {allowed}, not {value!r}")
    return value


def positive_seconds(option: str, value: float) -> float:
    """A finite number of seconds above zero."""
    allowed = "a finite number of seconds above 0"
    if not (_finite(_number(option, value, allowed)) and value > 0):
        raise ValueError(f"{option} must be {allowed}, not {value!r}")
    return value


def at_least(option: str, value: int, least: int, *, or_none: bool = False) -> int:
    """A whole number of `least` or more that Redis accepts.

    `or_none` only completes the message for options that also take None.
    """
    allowed = f"a whole number of {least} or more" + (", or None" if or_none else "")
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"{option} must be {allowed}, not {value!r}")
    if value < least:
        raise ValueError(f"{option} must be {allowed}, not {value!r}")
    if value > MAX_NUMBER:
        raise ValueError(f"{option} must be {allowed}, and at most 2**63 - 1, not {value!r}")
    return value


def fraction(option: str, value: float) -> float:
    """A number from 0 to 1."""
    allowed = "a number from 0 to 1"
    if not 0 <= _number(option, value, allowed) <= 1:  # NaN is neither
        raise ValueError(f"{option} must be {allowed}, not {value!r}")
    return value


def flag(option: str, value: bool) -> bool:
    """True or False."""
    if not isinstance(value, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"{option} must be True or False, not {value!r}")
    return value


def instance(option: str, value: object, kind: type | tuple[type, ...], allowed: str) -> None:
    """An instance of `kind`, or None. `allowed` describes it."""
    if value is not None and not isinstance(value, kind):
        raise TypeError(f"{option} must be {allowed}, not {value!r}")


def telemetry(option: str, value: Any) -> Any:
    """A telemetry, or None."""
    hooks = [getattr(value, name, None) for name in ("sending", "delivered", "processing", "settled", "gauges")]
    if value is not None and (isinstance(value, type) or not all(map(callable, hooks))):
        allowed = "a telemetry, such as rapids.telemetry.OpenTelemetry(), or None"
        raise TypeError(f"{option} must be {allowed}, not {value!r}")
    return value


def one_of(option: str, value: str, choices: Sequence[str], *, or_none: bool = False) -> str:
    """One of a few words.

    `or_none` only completes the message for options that also take None.
    """
    allowed = " or ".join([*map(repr, choices), *(["None"] if or_none else [])])
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"{option} must be {allowed}, not {value!r}")
    if value not in choices:
        raise ValueError(f"{option} must be {allowed}, not {value!r}")
    return value


def text(option: str, value: str) -> str:
    """A non-empty string that UTF-8 can hold."""
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"{option} must be a non-empty string, not {value!r}")
    if not value or not value.isprintable():
        raise ValueError(f"{option} must be a non-empty string of printable characters, not {value!r}")
    return value


def observers(option: str, value: Sequence[Callable[[Any], None]]) -> Sequence[Callable[[Any], None]]:
    """A list or tuple of plain functions. Nothing would await the result of an async function."""
    allowed = "a list of plain functions of one detail"
    if not isinstance(value, list | tuple):
        raise TypeError(f"{option} must be {allowed}, not {value!r}")
    for one in value:  # pyright: ignore[reportUnknownVariableType] - users without a type checker
        plain_function(option, one, "a list of plain functions of one detail", shown=value)
    return value


def plain_function(option: str, value: object, allowed: str, *, arguments: int = 1, shown: object = None) -> None:
    """A function of so many arguments whose result is used at once: nothing would await that of an async function.

    `shown`: what the message shows instead of the function, such as the list that it is in.
    """
    if not callable(value) or _is_async(value) or not _takes(value, arguments):
        raise TypeError(f"{option} must be {allowed}, not {value if shown is None else shown!r}")


def async_function(option: str, value: object, arguments: int, allowed: str, *, shown: object = None) -> None:
    """An async function, or an object that is called like one, that can be called with so many arguments."""
    if not callable(value) or not _is_async(value) or not _takes(value, arguments):
        raise TypeError(f"{option} must be {allowed}, not {value if shown is None else shown!r}")


def middleware(option: str, value: Sequence[Callable[..., Any]]) -> Sequence[Callable[..., Any]]:
    """A list or tuple of async functions of a delivery and the next function to call."""
    allowed = "a list of async functions (delivery, call_next)"
    if not isinstance(value, list | tuple):
        raise TypeError(f"{option} must be {allowed}, not {value!r}")
    for one in value:  # pyright: ignore[reportUnknownVariableType] - users without a type checker
        async_function(option, one, 2, allowed, shown=value)
    return value


def _is_async(function: Callable[..., Any]) -> bool:
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - asks what calling it gives


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    """Whether a function can be called with so many positional arguments. Some built-in functions do not tell."""
    try:
        known = signature(function, follow_wrapped=False)  # a wrapper is called, not what it wraps
    except (TypeError, ValueError):
        return True
    try:
        known.bind(*[None] * arguments)
    except TypeError:
        return False
    return True


def note(option: str, value: str, most: int) -> str:
    """A string that UTF-8 can hold, possibly empty, of at most `most` characters."""
    allowed = f"a string of at most {most} characters"
    if not isinstance(value, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"{option} must be {allowed}, not {value!r}")
    if len(value) > most or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError(f"{option} must be {allowed}, not {value!r}")
    return value


def stream_name(option: str, value: str) -> str:
    """A stream's name. With braces it must have a hash tag that Redis Cluster recognises.

    Raises `ValueError` otherwise. A key's slot depends on the text between its first `{` and the next `}`, if that is
    not empty (https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags). Braces that do not
    form such a tag would put Rapids' own keys into another slot than the stream.
    """
    text(option, value)
    if ("{" in value or "}" in value) and hash_tag(value) is None:
        raise ValueError(f"{option} must have no braces or a valid hash tag such as '{{orders}}:events', not {value!r}")
    return value


def hash_tag(key: str) -> str | None:
    """The part of `key` that decides its slot on Redis Cluster, or None if the whole key decides."""
    _, opened, after = key.partition("{")
    tag, closed, _ = after.partition("}")
    return tag if opened and closed and tag else None


MAX_ACTOR, MAX_REASON = 200, 1_000


def actor_and_reason(actor: str, reason: str) -> None:
    """Who changes something, and why: at most 200 and 1,000 characters."""
    note("actor", actor, MAX_ACTOR)
    note("reason", reason, MAX_REASON)


def backoff(option: str, value: Callable[[int], float]) -> Callable[[int], float]:
    """A callable from the number of failed attempts to seconds."""
    allowed = "a backoff such as exponential(), or a plain function from the number of failed attempts to seconds"
    is_maker = isinstance(value, FunctionType) and value.__module__ == "rapids.backoff"
    if is_maker or isinstance(value, type):
        raise TypeError(f"{option} must be {allowed}, not {value!r}, which makes one when it is called")
    plain_function(option, value, allowed)
    return value
