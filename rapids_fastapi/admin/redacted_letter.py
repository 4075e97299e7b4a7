"""A dead letter as it may be shown: redacted, cut, and free of what JSON cannot hold."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from rapids import Attempt, DeadLetter
from rapids.dead_letters import Difference, ReplayOutcome
from rapids.dead_letters import ParseProblem as Problem
from rapids.dead_letters.letter import State
from rapids.dead_letters.parse_check import ELLIPSIS
from rapids.exceptions import json_pointer, pointer_parts
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.payload import MAX_IN_DETAIL, MAX_IN_LIST, Payload, Shown, clean, cleaned, filled, show
from rapids_fastapi.admin.redaction import MASK, Redactor, TooDeepError

__all__ = [
    "Change",
    "DeadLetterDetail",
    "DeadLetterSummary",
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
"""Bytes of data and metadata. Validating more can hold up the process, from a thread too, and take a gigabyte."""

MAX_LONG_TEXT = 256 * 1024
"""Characters of an error and of a traceback where one letter is shown."""

MAX_POINTER = 4_000


class DeadLetterSummary(Answer):
    """A dead letter as lists show it: long errors and payloads are cut. Texts are hostile input: show them as text."""

    id: str
    state: State
    event_type: str
    event_id: str
    handler: str
    """The handler that failed; empty where the entry could not be read as an event."""
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


class WholeLetter(DeadLetterSummary):
    """A dead letter with everything that was written of it."""

    dlq: str
    entry_id: str
    """The id of the entry that failed, in its own stream."""
    timestamp: str
    causation_id: str
    schema_version: str
    metadata: Payload
    traceback: str
    position: str
    """Where the error came from: module, line and function of the user's code; empty where that is not known."""
    attempts: tuple[Attempt, ...]
    """Every failed attempt, oldest first, the last one included; of more than 20 the first 5 and the last 15. Empty for
    letters of other versions."""
    attempts_left_out: int
    """How many are left out between the fifth and the sixth."""
    consumer: str
    replay_of: str | None


class Change(Answer):
    """Something done to a dead letter."""

    action: str
    at: datetime
    actor: str
    reason: str
    scope: str
    """For a replay: who gets the event."""
    stream: str
    """For a replay: where it was appended."""
    entry_id: str
    operation: str
    """The id of the operation that did it; empty for none."""
    data: Payload | None
    """For a replay with other data: those, redacted; else null."""
    diff: tuple[Difference, ...]
    """Where those differ from the letter's, in at most 100 places; with more, the value around them is one. A hidden
    value that was changed shows that it was changed, and not what it is."""


class ParseProblem(Answer):
    """One thing that is wrong with an event."""

    pointer: str
    """Where: a JSON Pointer (RFC 6901) into the event, its own and the common fields together; empty for the event as a
    whole. Within a union, parts of it name the member that was tried."""
    message: str
    type: str
    """What kind: Pydantic's name for it, or the name of the class of another error."""


class ParseCheck(Answer):
    """Whether the event, as stored, would parse today, by the classes of this process."""

    outcome: Literal["parses", "invalid", "unknown_type", "unreadable", "too_large"]
    """`invalid`: its class refuses it; `unknown_type`: this process has no class for it; `unreadable`: it is no event,
    whatever the class; `too_large`: it has more than 1 MiB, and was not parsed."""
    event_class: str | None
    """The class registered for its type; null where there is none."""
    problems: list[ParseProblem]
    """The first 20."""
    problem_count: int
    """How many there are in all."""


class DeadLetterDetail(WholeLetter):
    """A dead letter with everything that is known of it."""

    history: list[Change]
    """What was done to it, oldest first."""
    replays: tuple[ReplayOutcome, ...]
    """What became of its replay, once it was replayed."""
    parse_check: ParseCheck
    """Would it parse today? After a class is fixed, look here before replaying."""


def summary_of(letter: DeadLetter, redactor: Redactor) -> DeadLetterSummary:
    """The letter for a list."""
    payload, metadata = (show(raw, redactor, MAX_IN_LIST) for raw in (letter.data, letter.metadata))
    error = clean(redactor.redacted(letter.error, Shown.known(payload, metadata)))
    return filled(DeadLetterSummary, letter, error=error, payload=payload.payload)


def whole_of(letter: DeadLetter, dlq: str, redactor: Redactor) -> WholeLetter:
    """Everything that was written of the letter."""
    payload, metadata = (show(raw, redactor, MAX_IN_DETAIL) for raw in (letter.data, letter.metadata))
    return filled(WholeLetter, letter, dlq=dlq, **_redacted(letter, redactor, payload, metadata))


def detail_of(letter: DeadLetter, dlq: str, redactor: Redactor) -> DeadLetterDetail:
    """Everything that is known of the letter."""
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
    """What redaction changes of a letter."""
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


# --- would it parse? ------------------------------------------------------------------------------------------------


def _parse_check(letter: DeadLetter, redactor: Redactor, data: Shown, metadata: Shown) -> ParseCheck:
    """Whether the letter's event would parse, without what was hidden in its data and metadata."""
    if len(letter.data) + len(letter.metadata) > MAX_CHECKED:
        return ParseCheck(outcome="too_large", event_class=None, problems=[], problem_count=0)
    check = letter.check_parsing()
    secrets = data.secrets | metadata.secrets
    # What Pydantic reads and orjson does not, such as NaN, was not searched for secrets; validators may quote them.
    searched = all(part.payload.encoding == "json" or not part.payload.size for part in (data, metadata))
    are_known = searched or check.outcome != "invalid"
    return ParseCheck(
        outcome=check.outcome,
        event_class=check.event_class,
        problems=[redacted_problem(problem, redactor, secrets if are_known else None) for problem in check.problems],
        problem_count=check.problem_count,
    )


def redacted_problem(problem: Problem, redactor: Redactor, secrets: frozenset[str] | None) -> ParseProblem:
    """The problem, without the secrets of the event it is about; None where those are not known."""
    location, hidden = problem.location, redactor.hidden_at(problem.location)
    if hidden is not None:  # the keys below are hidden too, and a message may quote a part of the value
        location = location[: hidden + 1]
    is_unclear = hidden is not None or secrets is None or location[-1:] == (ELLIPSIS,)
    message = MASK
    if not (is_unclear and redactor.names):
        masked = redactor.text(problem.message, secrets or frozenset()).encode(errors="replace")
        message = clean(redactor.raw(masked).decode())
    return ParseProblem(pointer=clean(json_pointer(location), MAX_POINTER), message=message, type=clean(problem.type))


# --- what was changed? ----------------------------------------------------------------------------------------------


def redacted_diff(diff: Sequence[Difference], redactor: Redactor) -> tuple[Difference, ...]:
    """The differences. Of what is hidden, they show only whether it was changed."""
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
