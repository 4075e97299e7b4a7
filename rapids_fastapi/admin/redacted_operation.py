"""Operations made safe to show: with the selector that was requested, and without secrets in errors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetterQueue
from rapids.dead_letters import (
    CanaryStep,
    DeadLetter,
    FailedReplay,
    OperationError,
    OperationKind,
    OperationState,
    Scope,
)
from rapids.dead_letters import Operation as CoreOperation
from rapids.redaction import MASK, HiddenValues, Redactor
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.models import Answer, example
from rapids_fastapi.admin.payload import MAX_SEARCHED, clean, cleaned, filled
from rapids_fastapi.admin.redacted_letter import summary_of

__all__ = ["Operation", "detail_of", "operation_of", "without_content", "without_query"]


class CanaryFailure(Answer):
    """A replay that failed again: the error of the letter, and that of the letter that its replay left."""

    model_config: ClassVar[ConfigDict] = example(
        letter_id="1763932000001-0",
        outcome="failed_again",
        error_type="BankError",
        error="the bank is closed",
        new_letter_id="1763932817302-0",
        new_error_type="KeyError",
        new_error="'iban'",
    )

    letter_id: str
    outcome: Literal["failed_again", "parked", "unknown"]
    """`failed_again`: it left a new letter. `parked`: it failed for good in a group without a dead-letter queue.
    `unknown`: the archive no longer has the letter, or the stream of the replays was deleted."""
    error_type: str
    """Empty, as `error`, if the letter is gone."""
    error: str
    new_letter_id: str
    new_error_type: str
    new_error: str


class Canary(Answer):
    """The canary of a replay: steps of 1, 5, 25, ... letters, each after the outcomes of the one before."""

    share: float
    """The share of a step's replays that may fail again, from 0 to 1."""
    wait: float
    """Seconds to wait for the outcomes of a step."""
    steps: tuple[CanaryStep, ...]
    """The last 20 steps, the current one last."""
    failed_again: int
    """Replays that failed again, in all steps."""
    why: str
    """What it waits for, or why it has stopped."""
    stopped: Literal["failed_again", "overdue"] | None
    """Why the operation has paused by itself, or, if nothing was left to replay, has ended so: more than `share` failed
    again, or outcomes did not come within `wait`."""
    failures: tuple[CanaryFailure, ...]
    """The first five failures of the current step. Empty in lists."""


class Operation(Answer):
    """An operation at one moment. Counts are numbers of letters."""

    model_config: ClassVar[ConfigDict] = example(**examples.OPERATION)

    id: str
    dlq: str
    kind: OperationKind
    state: OperationState
    """`running`, also before a process has taken it, or `paused`; the other states are final."""
    selector: dict[str, Any]
    """The selector that was requested. The `q` of a filter is not shown while anything is hidden."""
    scope: Scope
    rate: float | None
    max_items: int | None
    actor: str
    reason: str
    created_at: datetime
    updated_at: datetime
    """When it last changed, or the process that runs it last confirmed that it does."""
    ended_at: datetime | None
    total: int
    """How many letters were selected at its start."""
    total_exact: bool
    done: int
    """Letters that were moved. They are counted in the same step that moves them."""
    skipped: int
    """Letters that did not exist any more, or had another state, when it came to them."""
    failed: int
    """Letters that could not be moved."""
    errors: tuple[OperationError, ...]
    """Why letters could not be moved: the first 100 errors. Empty in lists."""
    owner: str
    """The process that runs it, or ran it last; empty if none did."""
    canary: Canary | None
    """Its steps and their outcomes; null without a canary."""


def without_content(operation: Operation) -> Operation:
    """The operation for a user without the permission `read`: its texts may say what is in letters."""
    canary = operation.canary and operation.canary.model_copy(update={"why": "", "failures": ()})
    hidden: dict[str, Any] = {"selector": {}, "actor": "", "reason": "", "errors": (), "owner": "", "canary": canary}
    return operation.model_copy(update=hidden)


def operation_of(
    operation: CoreOperation, dlq: str, redactor: Redactor, failed: Sequence[FailedReplay] = ()
) -> Operation:
    """The operation for an answer to a user with the permission `read`. `failed`: what failed again in its canary."""
    # The payloads of the letters, which would say what to hide in these errors, are not read. So everything that looks
    # like a secret is hidden.
    nothing = HiddenValues(())
    errors = [replace(one, error=redactor.text(one.error, nothing, MAX_SEARCHED)) for one in operation.errors]
    selector = asdict(
        operation.selector, dict_factory=lambda items: {name: value for name, value in items if value is not None}
    )
    if operation.selector.filter is not None:
        selector["filter"] = _without_q(selector["filter"], redactor)
    canary = None
    if operation.canary is not None:
        canary = filled(Canary, operation.canary, failures=tuple(_failure(one, redactor) for one in failed))
    return filled(
        Operation, operation, dlq=cleaned(dlq), selector=selector, errors=cleaned(tuple(errors)), canary=canary
    )


async def detail_of(operation: CoreOperation, queue: DeadLetterQueue, redactor: Redactor) -> Operation:
    """As `operation_of`, with what failed again in its canary. Raises `RedisError`."""
    failed = await queue.failed_again(operation)
    if not failed:
        return operation_of(operation, queue.stream, redactor)
    return await run_in_threadpool(operation_of, operation, queue.stream, redactor, failed)


def _failure(failed: FailedReplay, redactor: Redactor) -> CanaryFailure:
    """A failure, with each error redacted by the payload of its own letter."""
    (error_type, error), (new_error_type, new_error) = (
        _error(letter, redactor) for letter in (failed.letter, failed.new_letter)
    )
    return CanaryFailure(
        letter_id=clean(failed.failure.letter_id),
        outcome=failed.failure.outcome,
        error_type=error_type,
        error=error,
        new_letter_id=clean(failed.failure.new_letter_id),
        new_error_type=new_error_type,
        new_error=new_error,
    )


def _error(letter: DeadLetter | None, redactor: Redactor) -> tuple[str, str]:
    if letter is None:
        return "", ""
    shown = summary_of(letter, redactor)
    return shown.error_type, shown.error


def without_query(details: Mapping[str, str], redactor: Redactor) -> Mapping[str, str]:
    """The details of an entry of the audit log, without the text by which letters were searched."""
    shown = dict(details)
    for name in ("selector", "filter"):
        text = shown.get(name, "")
        if '"q"' not in text or not redactor.names:
            continue
        try:
            chosen = json.loads(text)
            if name == "selector":
                chosen["filter"] = _without_q(chosen["filter"], redactor)
            else:
                chosen = _without_q(chosen, redactor)
            shown[name] = json.dumps(chosen)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # it was cut, or others wrote it
            shown[name] = MASK
    return shown


def _without_q(wanted: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    """A filter without its text. Python and the command line search what is stored, so that the text may be a hidden
    value, and the number of letters would confirm it."""
    q = wanted.get("q")
    return {**wanted, "q": MASK} if q and redactor.names else {**wanted}
