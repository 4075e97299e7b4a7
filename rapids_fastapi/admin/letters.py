"""Dead letters as they may be shown: redacted, cut, and free of what JSON cannot hold."""

import json
from collections.abc import Iterable
from dataclasses import replace

import orjson

from rapids import Attempt, DeadLetter
from rapids.dead_letters import LetterChange, ReplayOutcome
from rapids_fastapi.admin import schemas
from rapids_fastapi.admin.editing import shown_diff
from rapids_fastapi.admin.parsing import parse_check_of
from rapids_fastapi.admin.payloads import LONGEST_IN_DETAIL, LONGEST_IN_LIST, LONGEST_IN_PART, Shown, clean, show
from rapids_fastapi.admin.redaction import Redactor, TooDeepError

__all__ = ["detail_of", "exported_of", "matches_shown", "replays_of", "summary_of"]

_LONGEST_NAME = 512
_LONGEST_ERROR_IN_LIST = 1_000
_LONGEST_TEXT = 256 * 1024


def summary_of(letter: DeadLetter, redactor: Redactor) -> schemas.DeadLetterSummary:
    """The letter for a list."""
    payload = show(letter.data, redactor, LONGEST_IN_LIST)
    secrets = Shown.known(payload, show(letter.metadata, redactor, LONGEST_IN_LIST))
    return _summary(letter, payload.payload, clean(redactor.told(letter.error, secrets), _LONGEST_ERROR_IN_LIST))


def detail_of(letter: DeadLetter, dlq: str, redactor: Redactor) -> schemas.DeadLetter:
    """All there is to know of the letter."""
    payload, metadata = _opened(letter, redactor)
    return schemas.DeadLetter(
        **dict(_whole(letter, dlq, redactor, payload, metadata)),
        history=[_change(change, redactor) for change in letter.history],
        replays=replays_of(letter.replays),
        parse_check=parse_check_of(letter, redactor, payload, metadata),
    )


def replays_of(outcomes: Iterable[ReplayOutcome]) -> list[schemas.ReplayOutcome]:
    """What became of a letter's replays."""
    return [
        schemas.ReplayOutcome(
            at=one.at,
            scope=clean(one.scope, _LONGEST_NAME),
            stream=clean(one.stream, _LONGEST_NAME),
            entry_id=clean(one.entry_id, _LONGEST_NAME),
            outcome=one.outcome,
            letters=[clean(letter_id, _LONGEST_NAME) for letter_id in one.letters],
            inferred=one.is_inferred,
        )
        for one in outcomes
    ]


def exported_of(letter: DeadLetter, dlq: str, redactor: Redactor) -> schemas.WholeLetter:
    """All that was written of the letter."""
    return _whole(letter, dlq, redactor, *_opened(letter, redactor))


def _opened(letter: DeadLetter, redactor: Redactor) -> tuple[Shown, Shown]:
    return show(letter.data, redactor, LONGEST_IN_DETAIL), show(letter.metadata, redactor, LONGEST_IN_DETAIL)


def _whole(letter: DeadLetter, dlq: str, redactor: Redactor, payload: Shown, metadata: Shown) -> schemas.WholeLetter:
    secrets = Shown.known(payload, metadata)
    summary = _summary(letter, payload.payload, clean(redactor.told(letter.error, secrets), _LONGEST_TEXT))
    return schemas.WholeLetter(
        **dict(summary),
        dlq=dlq,
        entry_id=clean(letter.entry_id, _LONGEST_NAME),
        timestamp=clean(letter.timestamp, _LONGEST_NAME),
        causation_id=clean(letter.causation_id, _LONGEST_NAME),
        schema_version=clean(letter.schema_version, _LONGEST_NAME),
        metadata=metadata.payload,
        traceback=clean(redactor.told(letter.traceback, secrets), _LONGEST_TEXT),
        position=clean(letter.position, _LONGEST_NAME),
        attempts=[_attempt(attempt, redactor, secrets) for attempt in letter.attempts],
        attempts_left_out=letter.attempts_left_out,
        consumer=clean(letter.consumer, _LONGEST_NAME),
        replay_of=None if letter.replay_of is None else clean(letter.replay_of, _LONGEST_NAME),
    )


def _change(change: LetterChange, redactor: Redactor) -> schemas.Change:
    return schemas.Change(
        action=change.action,
        at=change.at,
        actor=clean(change.actor, _LONGEST_NAME),
        reason=clean(change.reason, _LONGEST_TEXT),
        scope=change.scope,
        stream=change.stream,
        entry_id=change.entry_id,
        operation=change.operation,
        data=show(change.data.encode(), redactor, LONGEST_IN_DETAIL).payload if change.data else None,
        diff=shown_diff(change.diff, redactor),
    )


def _attempt(attempt: Attempt, redactor: Redactor, secrets: Iterable[str] | None) -> schemas.Attempt:
    error = redactor.told(attempt.error, secrets, was_cut=attempt.is_cut)
    return schemas.Attempt.model_validate(replace(attempt, error=error))


def matches_shown(letter: DeadLetter, text: str, redactor: Redactor) -> bool:
    """Whether a search text is in what may be shown of the letter: a search must not find out what is hidden.

    Payloads over `LONGEST_IN_PART` are not looked into: a thousand of them would take minutes. Nor is then the error,
    as what is to be hidden in it is not known.
    """
    secrets: set[str] = set()
    data = _searchable(letter.data, redactor, secrets)
    _searchable(letter.metadata, redactor, secrets)
    is_known = max(len(letter.data), len(letter.metadata)) <= LONGEST_IN_PART
    error = redactor.text(letter.error, secrets, shortest=1) if is_known else ""
    names = [letter.error_type, letter.id, letter.entry_id, letter.event_id, letter.correlation_id]
    places = [data, error, *names, letter.event_type, letter.handler]
    return any(text.casefold() in place.casefold() for place in places)


def _searchable(raw: bytes, redactor: Redactor, secrets: set[str]) -> str:
    if len(raw) > LONGEST_IN_PART:
        return ""
    try:
        value = redactor.value(orjson.loads(raw), secrets)
    except (orjson.JSONDecodeError, TooDeepError):
        return redactor.raw(raw, secrets).decode(errors="replace")
    # As Rapids writes it, and as others do, with blanks between.
    return f"{orjson.dumps(value).decode()}\n{json.dumps(value, ensure_ascii=False)}"


def _summary(letter: DeadLetter, payload: schemas.Payload, error: str) -> schemas.DeadLetterSummary:
    return schemas.DeadLetterSummary(
        id=letter.id,
        state=letter.state,
        event_type=clean(letter.event_type, _LONGEST_NAME),
        event_id=clean(letter.event_id, _LONGEST_NAME),
        handler=clean(letter.handler, _LONGEST_NAME),
        group=clean(letter.group, _LONGEST_NAME),
        stream=clean(letter.stream, _LONGEST_NAME),
        reason=clean(letter.reason, _LONGEST_NAME),
        error_type=clean(letter.error_type, _LONGEST_NAME),
        error=error,
        deliveries=letter.deliveries,
        failed_at=letter.failed_at,
        correlation_id=clean(letter.correlation_id, _LONGEST_NAME),
        fingerprint=letter.fingerprint,
        replay_count=letter.replay_count,
        payload=payload,
    )
