"""The parse check: whether a dead letter's event can be parsed by the class that is registered now."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from rapids._wire.entry_format import MAX_FAULTS, Fields, StoredEvent, describe, faults_in, newer_version, validated
from rapids._wire.letter_format import original_fields
from rapids.events import BaseEvent, get_event_class
from rapids.exceptions import DeserializationError, ParseProblem

__all__ = [
    "ELLIPSIS",
    "ParseCheck",
    "ParseOutcome",
    "ParseProblem",
    "check_event",
    "check_parsing",
    "newer_problem",
    "problems_in",
]

MAX_PROBLEMS = 20
MAX_MESSAGE = 500
MAX_NAME = 100
MAX_LOCATION = 32

ELLIPSIS = "…"
"""Stands for the part of a text that was cut."""

_quoted_input = re.compile(r"input_value=.*?(?=, input_type=|\Z)", re.DOTALL)

Location: TypeAlias = tuple[str | int, ...]
ParseOutcome: TypeAlias = Literal["parses", "invalid", "newer_version", "unknown_type", "unreadable"]


@dataclass(frozen=True, slots=True)
class ParseCheck:
    """The result of parsing a dead letter's event by the class that is registered now."""

    outcome: ParseOutcome
    """`parses`; `invalid`: its class refuses it; `newer_version`: its schema version is newer than its class here, so
    that only another process can read it; `unknown_type`: this process has no class for it, and handlers of patterns
    would get it as a `GenericEvent`; `unreadable`: no class can read it as an event."""
    event_class: str | None
    """Module and name of the class registered for its type in this process; None if there is none."""
    problems: tuple[ParseProblem, ...] = ()
    """The first 20."""
    problem_count: int = 0
    """How many there are in all."""


def check_parsing(letter: Fields) -> ParseCheck:
    """Whether the event of a letter, given as stored, would parse by the class registered now."""
    try:
        fields = original_fields(letter)
    except Exception as error:  # the bytes may be any
        return _refused("unreadable", None, error)
    return check_event(fields)


def check_event(fields: Fields) -> ParseCheck:
    """Whether the event of an entry would parse by the class registered now."""
    name: str | None = None
    try:
        event = StoredEvent.read(fields)
        cls = get_event_class(event.event_type)
        if cls is None:
            event.generic()
            return ParseCheck("unknown_type", None)
        name = f"{cls.__module__}.{cls.__qualname__}"
        if (problem := newer_problem(cls, fields)) is not None:
            event.generic()
            return ParseCheck("newer_version", name, (problem,), 1)
        document = event.document(cls)
    except Exception as error:  # the bytes may be any, and migrations are the user's code
        return _refused("unreadable", name, error)
    try:
        validated(cls, document)
    except Exception as error:  # validators and migrations are the user's code, and may raise anything
        return _refused("unreadable" if _is_no_json(error) else "invalid", name, error)
    return ParseCheck("parses", name)


def newer_problem(cls: type[BaseEvent], event: Fields) -> ParseProblem | None:
    """The problem that an event has a newer schema version than its class in this process, if it has."""
    version = newer_version(cls, event)
    if version is None:
        return None
    message = f"its schema version is {version}, and the class of this process has {cls.schema_version}"
    return ParseProblem((), message, "newer_version")


def _is_no_json(error: Exception) -> bool:
    """Whether it is about the document itself: a field of type `Json` has a location."""
    if not isinstance(error, ValidationError) or error.error_count() != 1:
        return False
    try:
        fault = error.errors(include_url=False, include_input=False)[0]
    except Exception:  # a user's error may have a __str__ that raises
        return False
    return fault["type"] == "json_invalid" and not fault["loc"]


def _refused(outcome: ParseOutcome, event_class: str | None, error: Exception) -> ParseCheck:
    problems, count = problems_in(error)
    return ParseCheck(outcome, event_class, problems, count)


def problems_in(
    error: Exception, *, limit: int = MAX_PROBLEMS, place: Callable[[Any], Location] = lambda fault: fault["loc"]
) -> tuple[tuple[ParseProblem, ...], int]:
    """The first `limit` problems in an error, and how many there are in all.

    `place` gives the location of one of Pydantic's faults; by default Pydantic's own.
    """
    if not isinstance(error, ValidationError):
        return (_whole(error),), 1
    count = error.error_count()
    try:
        faults = faults_in(error)
    except Exception:  # a user's error may have a __str__ that raises
        return (_whole(error),), count
    problems = list[ParseProblem]()
    for fault in faults[:limit]:
        path = place(fault)
        location = tuple(_cut(part, MAX_NAME) if isinstance(part, str) else part for part in path[:MAX_LOCATION])
        if len(path) > MAX_LOCATION:
            location = (*location, ELLIPSIS)
        problems.append(ParseProblem(location, _message(fault["msg"]), _cut(fault["type"], MAX_NAME)))
    return tuple(problems), count if count > MAX_FAULTS else len(faults)


def _whole(error: Exception) -> ParseProblem:
    kind = type(error).__name__
    text = error.message if isinstance(error, DeserializationError) else describe(error).removeprefix(f"{kind}: ")
    return ParseProblem((), _message(text), _cut(kind, MAX_NAME))


def _message(text: str) -> str:
    """The text, cut, and without the input that Pydantic quotes if a validator raises another model's error."""
    return _quoted_input.sub(f"input_value={ELLIPSIS}", _cut(text, MAX_MESSAGE))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + ELLIPSIS
