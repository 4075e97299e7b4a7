"""Operations made safe to show: with the selector that was requested, and without secrets in errors."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any, ClassVar

from pydantic import ConfigDict

from rapids.dead_letters import Operation as CoreOperation
from rapids.dead_letters import OperationError, OperationKind, OperationState, Scope
from rapids.redaction import MASK, HiddenValues, Redactor
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.models import Answer, example
from rapids_fastapi.admin.payload import MAX_SEARCHED, cleaned, filled

__all__ = ["Operation", "operation_of", "without_content", "without_query"]


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


def without_content(operation: Operation) -> Operation:
    """The operation for a user without the permission `read`: its texts may say what is in letters."""
    return operation.model_copy(update={"selector": {}, "actor": "", "reason": "", "errors": (), "owner": ""})


def operation_of(operation: CoreOperation, dlq: str, redactor: Redactor) -> Operation:
    """The operation for an answer to a user with the permission `read`."""
    # The payloads of the letters, which would say what to hide in these errors, are not read. So everything that looks
    # like a secret is hidden.
    nothing = HiddenValues(())
    errors = [replace(one, error=redactor.text(one.error, nothing, MAX_SEARCHED)) for one in operation.errors]
    selector = asdict(
        operation.selector, dict_factory=lambda items: {name: value for name, value in items if value is not None}
    )
    if operation.selector.filter is not None:
        selector["filter"] = _without_q(selector["filter"], redactor)
    return filled(Operation, operation, dlq=cleaned(dlq), selector=selector, errors=cleaned(tuple(errors)))


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
