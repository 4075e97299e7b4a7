"""Dead letters made safe to show: redacted, cut, and without text that JSON cannot hold."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar, Literal, cast

from pydantic import ConfigDict

from rapids import Attempt, DeadLetter
from rapids.dead_letters import Difference, ReplayOutcome
from rapids.dead_letters import ParseProblem as Problem
from rapids.dead_letters.edit import differences
from rapids.dead_letters.letter import LetterChange, State
from rapids.dead_letters.parse_check import ELLIPSIS
from rapids.exceptions import json_pointer
from rapids.redaction import MASK, HiddenValues, Location, Redactor, Searched
from rapids.redaction.quoted_values import QuotedValues
from rapids.redaction.redactor import is_too_large
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.models import Answer, example
from rapids_fastapi.admin.payload import (
    MAX_IN_DETAIL,
    MAX_IN_LIST,
    MAX_SEARCHED,
    Payload,
    Shown,
    clean,
    cleaned,
    filled,
    show,
    show_event,
)

__all__ = [
    "Change",
    "DeadLetterDetail",
    "DeadLetterSummary",
    "MovedLetter",
    "ParseCheck",
    "ParseProblem",
    "WholeLetter",
    "detail_of",
    "names_place",
    "redacted_diff",
    "redacted_problem",
    "summary_of",
    "whole_of",
]

MAX_CHECKED = 1024 * 1024
"""Bytes of data and metadata. To validate more can block the process, also from a thread, and need a gigabyte."""

MAX_LONG_TEXT = 256 * 1024
"""Characters of an error and of a traceback in the details of one letter."""

MAX_POINTER = 4_000

MAX_ALWAYS = 100
"""Hidden values that are always in a diff."""


class DeadLetterSummary(Answer):
    """A dead letter in a list: long errors and payloads are cut. Texts are untrusted input: show them as text only."""

    id: str
    state: State
    event_type: str
    event_id: str
    handler: str
    """The handler that failed; empty if the entry could not be read as an event."""
    group: str
    stream: str
    reason: str
    error_type: str
    error: str
    deliveries: int
    failed_at: datetime | None
    correlation_id: str
    fingerprint: str
    """The same for all letters of one cause."""
    replay_count: int
    payload: Payload


class MovedLetter(Answer):
    """A letter that was moved, for a user without the permission `read`: nothing of what is in it."""

    model_config: ClassVar[ConfigDict] = {
        "extra": "forbid",
        **example(**{name: examples.DEAD_LETTER[name] for name in ("dlq", "id", "state")}),
    }

    dlq: str
    id: str
    state: State


class WholeLetter(DeadLetterSummary):
    """A dead letter with everything that was written when it failed."""

    dlq: str
    entry_id: str
    """The id of the entry that failed, in its own stream."""
    timestamp: str
    causation_id: str
    schema_version: str
    metadata: Payload
    traceback: str
    position: str
    """Where the error came from: module, line and function of the user's code; empty if that is not known."""
    attempts: tuple[Attempt, ...]
    """All failed attempts, oldest first. If there were more than 20: the first 5 and the last 15. Empty for letters of
    versions that did not record them."""
    attempts_left_out: int
    """How many attempts are left out between the fifth and the sixth one shown."""
    consumer: str
    replay_of: str | None


class Change(Answer):
    """A change of a dead letter."""

    action: str
    at: datetime
    actor: str
    reason: str
    scope: str
    """For a replay: the handlers that get the event."""
    stream: str
    """For a replay: the stream to which the event was appended."""
    entry_id: str
    operation: str
    """The id of the operation that made the change; empty if none did."""
    data: Payload | None
    """For a replay with changed data: that data, redacted; else null."""
    diff: tuple[Difference, ...]
    """The differences from the letter's data, at most 100. If there are more, the value around several of them is one
    difference. Hidden values are always among them, whether they were changed or not, so that nobody can guess them."""


class ParseProblem(Answer):
    """An error in an event."""

    pointer: str
    """Where: a JSON Pointer (RFC 6901) into the event with its own and the common fields; empty for the whole event.
    Within a union, parts of it name the member that was tried."""
    message: str
    type: str
    """The kind of the error: Pydantic's name, or the class name of another error."""


class ParseCheck(Answer):
    """Whether the stored event would parse now, with the event classes of this process."""

    outcome: Literal["parses", "invalid", "newer_version", "unknown_type", "unreadable", "too_large"]
    """`invalid`: its class refuses it. `newer_version`: its class here is older. `unknown_type`: this process has no
    class for it. `unreadable`: no class could read it. `too_large`: it has more than 1 MiB or 250,000 values, and was
    not parsed."""
    event_class: str | None
    """The class that is registered for its type; null if there is none."""
    problems: list[ParseProblem]
    """The first 20 errors."""
    problem_count: int
    """How many errors there are."""


class DeadLetterDetail(WholeLetter):
    """A dead letter with all details."""

    model_config: ClassVar[ConfigDict] = example(**examples.DEAD_LETTER)

    history: list[Change]
    """The changes of the letter, oldest first."""
    replays: tuple[ReplayOutcome, ...]
    """The outcomes of its replay, if it was replayed."""
    parse_check: ParseCheck
    """Whether it would parse now. Look here after you fixed a class, before you replay the letter."""


def summary_of(letter: DeadLetter, redactor: Redactor) -> DeadLetterSummary:
    """The letter for a list."""
    payload, metadata = show_event(letter.data, letter.metadata, redactor, MAX_IN_LIST)
    error = clean(redactor.text(letter.error, redactor.hidden(payload.searched, metadata.searched), MAX_SEARCHED))
    return filled(DeadLetterSummary, letter, error=error, payload=payload.payload)


def whole_of(letter: DeadLetter, dlq: str, redactor: Redactor) -> WholeLetter:
    """The letter for an export."""
    return filled(WholeLetter, letter, dlq=dlq, **_redacted(letter, redactor, *_shown(letter, redactor)))


def detail_of(letter: DeadLetter, dlq: str, redactor: Redactor) -> DeadLetterDetail:
    """The letter with all details."""
    payload, metadata = _shown(letter, redactor)
    return filled(
        DeadLetterDetail,
        letter,
        dlq=dlq,
        history=[_change(change, redactor, payload.searched, metadata.searched) for change in letter.history],
        parse_check=_parse_check(letter, redactor, redactor.hidden(payload.searched, metadata.searched)),
        **_redacted(letter, redactor, payload, metadata),
    )


def _shown(letter: DeadLetter, redactor: Redactor) -> tuple[Shown, Shown]:
    return show_event(letter.data, letter.metadata, redactor, MAX_IN_DETAIL)


def _redacted(letter: DeadLetter, redactor: Redactor, payload: Shown, metadata: Shown) -> dict[str, Any]:
    """The fields of a letter that redaction changes."""
    hidden = redactor.hidden(payload.searched, metadata.searched)
    attempts = [replace(one, error=redactor.text(one.error, hidden, MAX_SEARCHED)) for one in letter.attempts]
    return {
        "payload": payload.payload,
        "metadata": metadata.payload,
        "error": clean(redactor.text(letter.error, hidden, MAX_LONG_TEXT), MAX_LONG_TEXT),
        "traceback": clean(redactor.text(letter.traceback, hidden, MAX_LONG_TEXT), MAX_LONG_TEXT),
        "attempts": cleaned(tuple(attempts)),
    }


def _change(change: LetterChange, redactor: Redactor, before: Searched | None, metadata: Searched | None) -> Change:
    also = [value for one in (before, metadata) if one is not None for value in one.values]
    changed = show(change.data.encode(), redactor, MAX_IN_DETAIL, also=also) if change.data else None
    after = changed.searched if changed else None
    return filled(
        Change,
        change,
        reason=clean(change.reason, MAX_LONG_TEXT),
        data=changed.payload if changed else None,
        diff=redacted_diff(change.diff, redactor, before, after, metadata) if change.data else (),
    )


# --- parse checks ---------------------------------------------------------------------------------------------------


def _parse_check(letter: DeadLetter, redactor: Redactor, hidden: HiddenValues) -> ParseCheck:
    """Whether the letter's event would parse. Hidden values are removed from the errors."""
    if len(letter.data) + len(letter.metadata) > MAX_CHECKED or is_too_large(letter.data):
        return ParseCheck(outcome="too_large", event_class=None, problems=[], problem_count=0)
    check = letter.check_parsing()
    return ParseCheck(
        outcome=check.outcome,
        event_class=check.event_class,
        problems=[redacted_problem(problem, redactor, hidden) for problem in check.problems],
        problem_count=check.problem_count,
    )


def redacted_problem(problem: Problem, redactor: Redactor, hidden: HiddenValues) -> ParseProblem:
    """The problem with the event's hidden values removed."""
    location, hidden_at = problem.location, redactor.hidden_at(problem.location)
    if hidden_at is not None:  # the keys below it are hidden too, and the message may quote a part of the value
        location = location[: hidden_at + 1]
    is_unclear = hidden_at is not None or location[-1:] == (ELLIPSIS,)
    message = MASK
    if not (is_unclear and redactor.names):
        message = clean(redactor.text(problem.message, hidden, MAX_SEARCHED))
    if not hidden.are_known:  # a location names keys of the data
        location = location[:1]
    else:
        location = tuple(MASK if isinstance(part, str) and hidden.are_quoted_by(part) else part for part in location)
    pointer = clean(json_pointer(location), MAX_POINTER)
    return ParseProblem(pointer=pointer, message=message, type=clean(problem.type))


# --- differences ----------------------------------------------------------------------------------------------------


def redacted_diff(
    diff: Sequence[Difference],
    redactor: Redactor,
    before: Searched | None,
    after: Searched | None,
    metadata: Searched | None,
    *,
    patch: Mapping[str, Any] | None = None,
) -> tuple[Difference, ...]:
    """The differences between two data, without hidden values.

    Compared is what is shown of the data, so that nothing in the result depends on whether hidden values are equal: who
    guesses one would see it. A hidden value that is in both is always a difference, the last ones. If the `patch` is
    known, it is one if the patch names it.
    """
    if not redactor.names:
        return tuple(replace(one, pointer=clean(one.pointer, MAX_POINTER)) for one in diff)
    if before is None or after is None:  # which of its places differ could say what is in them
        return (Difference("", "replace", None, None, cut=True),)
    hidden = redactor.hidden(before, after, metadata)
    shown = [
        replace(
            one,
            pointer=clean(one.pointer, MAX_POINTER),
            **{name: _without(getattr(one, name), hidden) for name in ("before", "after")},
        )
        for one in differences(before.shown, after.shown)
    ]
    both = sorted(before.places & after.places, key=str)
    always = [one for one in both if patch is None or names_place(patch, one)][:MAX_ALWAYS]
    quoted = QuotedValues.of(value for one in (before, after, metadata) if one is not None for value in one.values)
    pointers = [clean(json_pointer(quoted.without(list(place))), MAX_POINTER) for place in always]
    return (*shown, *(Difference(pointer, "replace", MASK, MASK) for pointer in pointers))


def names_place(patch: object, place: Location) -> bool:
    """Whether a patch changes the value at a place, or anything around it or in it."""
    for part in place:
        if not isinstance(patch, dict):
            return True
        if part not in patch:
            return False
        patch = cast("dict[str | int, object]", patch)[part]
    return True


def _without(value: Any, hidden: HiddenValues) -> Any:
    """A value without the hidden values that its texts and numbers quote as a whole.

    Not parts of them: somebody who edits a letter could guess a value letter by letter.
    """
    match value:
        case str():
            return hidden.text(value, may_be_cut=False)
        case bool() | None:
            return value
        case int() | float():
            return value if hidden.text(str(value), may_be_cut=False) == str(value) else MASK
        case dict():
            members = cast("dict[str, Any]", value)
            return {hidden.text(name, may_be_cut=False): _without(member, hidden) for name, member in members.items()}
        case _:
            return [_without(item, hidden) for item in cast("list[Any]", value)]
