"""Dead letters made safe to show: redacted, cut, and without text that JSON cannot hold."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict

from rapids import Attempt, DeadLetter
from rapids.dead_letters import Difference, ReplayOutcome
from rapids.dead_letters import ParseProblem as Problem
from rapids.dead_letters.letter import State
from rapids.dead_letters.parse_check import ELLIPSIS
from rapids.exceptions import json_pointer, pointer_parts
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.models import Answer, example
from rapids_fastapi.admin.payload import MAX_IN_DETAIL, MAX_IN_LIST, Payload, Shown, clean, cleaned, filled, show
from rapids_fastapi.admin.redaction import MASK, Redactor, TooDeepError

__all__ = [
    "Change",
    "DeadLetterDetail",
    "DeadLetterSummary",
    "MovedLetter",
    "ParseCheck",
    "ParseProblem",
    "WholeLetter",
    "detail_of",
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
    difference. Of a hidden value, it shows only that it was changed."""


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

    outcome: Literal["parses", "invalid", "unknown_type", "unreadable", "too_large"]
    """`invalid`: its class refuses it. `unknown_type`: this process has no class for it. `unreadable`: no class could
    read it. `too_large`: it has more than 1 MiB, and was not parsed."""
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
    payload, metadata = (show(raw, redactor, MAX_IN_LIST) for raw in (letter.data, letter.metadata))
    error = clean(redactor.redacted(letter.error, Shown.known(payload, metadata)))
    return filled(DeadLetterSummary, letter, error=error, payload=payload.payload)


def whole_of(letter: DeadLetter, dlq: str, redactor: Redactor) -> WholeLetter:
    """The letter for an export."""
    payload, metadata = (show(raw, redactor, MAX_IN_DETAIL) for raw in (letter.data, letter.metadata))
    return filled(WholeLetter, letter, dlq=dlq, **_redacted(letter, redactor, payload, metadata))


def detail_of(letter: DeadLetter, dlq: str, redactor: Redactor) -> DeadLetterDetail:
    """The letter with all details."""
    payload, metadata = (show(raw, redactor, MAX_IN_DETAIL) for raw in (letter.data, letter.metadata))
    return filled(
        DeadLetterDetail,
        letter,
        dlq=dlq,
        history=[
            filled(
                Change,
                change,
                reason=clean(change.reason, MAX_LONG_TEXT),
                data=show(change.data.encode(), redactor, MAX_IN_DETAIL).payload if change.data else None,
                diff=redacted_diff(change.diff, redactor),
            )
            for change in letter.history
        ],
        parse_check=_parse_check(letter, redactor, payload, metadata),
        **_redacted(letter, redactor, payload, metadata),
    )


def _redacted(letter: DeadLetter, redactor: Redactor, payload: Shown, metadata: Shown) -> dict[str, Any]:
    """The fields of a letter that redaction changes."""
    secrets = Shown.known(payload, metadata)
    attempts = [
        replace(one, error=redactor.redacted(one.error, secrets, was_cut=one.is_cut)) for one in letter.attempts
    ]
    return {
        "payload": payload.payload,
        "metadata": metadata.payload,
        "error": clean(redactor.redacted(letter.error, secrets), MAX_LONG_TEXT),
        "traceback": clean(redactor.redacted(letter.traceback, secrets), MAX_LONG_TEXT),
        "attempts": cleaned(tuple(attempts)),
    }


# --- parse checks ---------------------------------------------------------------------------------------------------


def _parse_check(letter: DeadLetter, redactor: Redactor, data: Shown, metadata: Shown) -> ParseCheck:
    """Whether the letter's event would parse. Its secrets are removed from the errors."""
    if len(letter.data) + len(letter.metadata) > MAX_CHECKED:
        return ParseCheck(outcome="too_large", event_class=None, problems=[], problem_count=0)
    check = letter.check_parsing()
    secrets = data.secrets | metadata.secrets
    # Pydantic reads values that orjson does not, such as NaN. Such data was not searched for secrets, and an error may
    # quote them.
    searched = all(part.payload.encoding == "json" or not part.payload.size for part in (data, metadata))
    are_known = searched or check.outcome != "invalid"
    return ParseCheck(
        outcome=check.outcome,
        event_class=check.event_class,
        problems=[redacted_problem(problem, redactor, secrets if are_known else None) for problem in check.problems],
        problem_count=check.problem_count,
    )


def redacted_problem(problem: Problem, redactor: Redactor, secrets: frozenset[str] | None) -> ParseProblem:
    """The problem with the event's secrets removed. `secrets` is None if they are not known."""
    location, hidden = problem.location, redactor.hidden_at(problem.location)
    if hidden is not None:  # the keys below it are hidden too, and the message may quote a part of the value
        location = location[: hidden + 1]
    is_unclear = hidden is not None or secrets is None or location[-1:] == (ELLIPSIS,)
    message = MASK
    if not (is_unclear and redactor.names):
        masked = redactor.text(problem.message, secrets or frozenset()).encode(errors="replace")
        message = clean(redactor.raw(masked).decode())
    return ParseProblem(pointer=clean(json_pointer(location), MAX_POINTER), message=message, type=clean(problem.type))


# --- differences ----------------------------------------------------------------------------------------------------


def redacted_diff(diff: Sequence[Difference], redactor: Redactor) -> tuple[Difference, ...]:
    """The differences. For hidden values, they show only that these were changed."""
    shown: dict[str, Difference] = {}
    for one in diff:
        location = pointer_parts(one.pointer)
        hidden = redactor.hidden_at(location)
        pointer = one.pointer if hidden is None else json_pointer(location[: hidden + 1])
        op = one.op if pointer == one.pointer else "replace"
        before, after, cut = one.before, one.after, one.cut
        if hidden is not None:
            before, after, cut = None if op == "add" else MASK, None if op == "remove" else MASK, False
        else:
            try:
                before, after = redactor.value(before, set()), redactor.value(after, set())
            except TooDeepError:
                before, after, cut = None, None, True
        shown[pointer] = Difference(clean(pointer, MAX_POINTER), op, before, after, cut)
    return tuple(shown.values())
