"""An operation as it may be shown: its selector as it was requested, errors without what looks like a secret."""

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from rapids.dead_letters import Operation as CoreOperation
from rapids.dead_letters import OperationError, OperationKind, OperationState, Scope
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.payload import cleaned, filled
from rapids_fastapi.admin.redaction import Redactor

__all__ = ["Operation", "operation_of"]


class Operation(Answer):
    """An operation as of one moment. Counts are letters."""

    id: str
    dlq: str
    kind: OperationKind
    state: OperationState
    """`running` also before a process takes it; the last three are ends."""
    selector: dict[str, Any]
    """As it was requested."""
    scope: Scope
    rate: float | None
    max_items: int | None
    actor: str
    reason: str
    created_at: datetime
    updated_at: datetime
    """When it last changed, or was last reported to be running."""
    ended_at: datetime | None
    total: int
    """How many were selected when it began."""
    total_exact: bool
    done: int
    """Confirmed moves: counted in the step that moves the letter."""
    skipped: int
    """Letters that were gone when their turn came."""
    failed: int
    """Letters that could not be moved; the others were."""
    errors: tuple[OperationError, ...]
    """Why they could not: the first 100. Lists leave them out."""
    owner: str
    """The process that runs it, or ran it last; empty where none has."""


def operation_of(operation: CoreOperation, dlq: str, redactor: Redactor) -> Operation:
    """The operation for an answer."""
    # Rapids writes these errors; they quote names of the letter. Its payload, which would say what to hide in them, is
    # not at hand, so what looks like a secret is hidden.
    errors = [replace(one, error=redactor.raw(one.error.encode(errors="replace")).decode()) for one in operation.errors]
    selector = asdict(
        operation.selector, dict_factory=lambda items: {name: value for name, value in items if value is not None}
    )
    return filled(Operation, operation, dlq=cleaned(dlq), selector=selector, errors=cleaned(tuple(errors)))
