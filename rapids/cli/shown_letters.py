"""Dead letters as commands show them: with hidden values masked, by the names of fields that the admin uses."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from rapids import Attempt, DeadLetter
from rapids.cli.root import fail
from rapids.dead_letters import ReplayOutcome
from rapids.environment import Environment
from rapids.redaction import HiddenValues, Redactor, Searched

__all__ = ["ShownLetter", "ShownLetterDetail", "ShownPayload", "detail_of", "redactor", "shown_event", "shown_of"]

MAX_PAYLOAD = 1024 * 1024
"""Bytes of a payload that is searched for hidden values; a larger one is not shown."""

MAX_TEXT = 256 * 1024
"""Characters of an error or a traceback."""

MAX_SHORT = 8_000


@dataclass(frozen=True, slots=True)
class ShownPayload:
    """The data or the metadata of an event."""

    encoding: Literal["json", "omitted", "withheld"]
    """`omitted`: larger than 1 MiB. `withheld`: it is not JSON, so that it is not known what to hide."""
    value: Any
    size: int
    """Bytes as stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownLetter:
    """A letter with what was written when it failed."""

    dlq: str
    id: str
    state: str
    event_type: str
    event_id: str
    handler: str
    group: str
    stream: str
    entry_id: str
    reason: str
    error_type: str
    error: str
    traceback: str
    position: str
    deliveries: int
    consumer: str
    failed_at: datetime | None
    timestamp: str
    correlation_id: str
    causation_id: str
    schema_version: str
    fingerprint: str
    replay_of: str | None
    replay_count: int
    attempts: tuple[Attempt, ...]
    attempts_left_out: int
    payload: ShownPayload
    metadata: ShownPayload


@dataclass(frozen=True, slots=True)
class ShownChange:
    """What somebody did to a letter."""

    action: str
    at: datetime
    actor: str
    reason: str
    scope: str
    stream: str
    entry_id: str
    operation: str


@dataclass(frozen=True, slots=True)
class ShownProblem:
    """Why an event would not parse."""

    pointer: str
    message: str
    type: str


@dataclass(frozen=True, slots=True)
class ShownCheck:
    """Whether the event would parse with the classes of this process."""

    outcome: str
    event_class: str | None
    problems: tuple[ShownProblem, ...]
    problem_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownLetterDetail(ShownLetter):
    """A letter with everything."""

    history: tuple[ShownChange, ...]
    replays: tuple[ReplayOutcome, ...]
    parse_check: ShownCheck | None
    """None without `--app`: this process knows no class then."""


def redactor() -> Redactor:
    """Hides what the admin hides: values of the usual names, and of those in `RAPIDS_REDACT`."""
    try:
        return Redactor.of(Environment().names("RAPIDS_REDACT") or ())
    except ValueError as error:
        fail(str(error))


def shown_of(letter: DeadLetter, dlq: str, redactor: Redactor) -> ShownLetter:
    """The letter for a list or an export."""
    return ShownLetter(**_fields(letter, dlq, redactor)[0])


def detail_of(letter: DeadLetter, dlq: str, redactor: Redactor, *, check: bool) -> ShownLetterDetail:
    """The letter with everything. `check`: whether to parse its event."""
    fields, hidden = _fields(letter, dlq, redactor)
    checked: ShownCheck | None = None
    if check:
        parsed = letter.check_parsing()
        problems = tuple(
            ShownProblem(*redactor.problem(one.location, one.message, hidden, MAX_SHORT), one.type)
            for one in parsed.problems
        )
        checked = ShownCheck(parsed.outcome, parsed.event_class, problems, parsed.problem_count)
    return ShownLetterDetail(
        **fields,
        history=tuple(
            ShownChange(**{name: getattr(change, name) for name in ShownChange.__dataclass_fields__})
            for change in letter.history
        ),
        replays=letter.replays,
        parse_check=checked,
    )


def _fields(letter: DeadLetter, dlq: str, redactor: Redactor) -> tuple[dict[str, Any], HiddenValues]:
    """The fields of `ShownLetter`, and what is hidden in texts about the letter."""
    payload, metadata, hidden = shown_event(letter.data, letter.metadata, redactor)
    redacted = {
        "dlq": dlq,
        "error": redactor.text(letter.error, hidden, MAX_TEXT),
        "traceback": redactor.text(letter.traceback, hidden, MAX_TEXT),
        "attempts": tuple(replace(one, error=redactor.text(one.error, hidden, MAX_SHORT)) for one in letter.attempts),
        "payload": payload,
        "metadata": metadata,
    }
    same = {name: getattr(letter, name) for name in ShownLetter.__dataclass_fields__ if name not in redacted}
    return {**same, **redacted}, hidden


def shown_event(
    data: bytes | None, metadata: bytes | None, redactor: Redactor, *, sizes: tuple[int, int] = (0, 0)
) -> tuple[ShownPayload, ShownPayload, HiddenValues]:
    """The data and the metadata of an event, and what is hidden in texts about it. What is hidden in one is hidden in
    the other, too. None is for what was not read, since it is large; `sizes` has its bytes."""
    beside = _searched(metadata, redactor, ())
    shown = _searched(data, redactor, beside.values if beside else ())
    if shown is not None and beside is not None:
        beside = _searched(metadata, redactor, shown.values)
    payloads = _payload(data, shown, sizes[0]), _payload(metadata, beside, sizes[1])
    return *payloads, redactor.hidden(shown, beside)


def _searched(raw: bytes | None, redactor: Redactor, also: Collection[str]) -> Searched | None:
    return None if raw is None or len(raw) > MAX_PAYLOAD else redactor.document(raw, also)


def _payload(raw: bytes | None, searched: Searched | None, size: int) -> ShownPayload:
    if raw is None or len(raw) > MAX_PAYLOAD:
        return ShownPayload("omitted", None, size if raw is None else len(raw))
    if searched is None:
        return ShownPayload("withheld", None, len(raw))
    return ShownPayload("json", searched.shown, len(raw))
