"""Operations as they may be shown: selectors as they were asked for, errors without what looks like a secret."""

from dataclasses import asdict
from typing import Any

from rapids.dead_letters import Operation, OperationError, Selector
from rapids_fastapi.admin import operation_schemas as schemas
from rapids_fastapi.admin.redaction import Redactor

__all__ = ["operation_of"]


def operation_of(operation: Operation, dlq: str, redactor: Redactor) -> schemas.Operation:
    """The operation for an answer."""
    return schemas.Operation(
        id=operation.id,
        dlq=dlq,
        kind=operation.kind,
        state=operation.state,
        selector=_selector(operation.selector),
        scope=operation.scope,
        rate=operation.rate,
        max_items=operation.max_items,
        actor=operation.actor,
        reason=operation.reason,
        created_at=operation.created_at,
        updated_at=operation.updated_at,
        ended_at=operation.ended_at,
        total=operation.total,
        total_exact=operation.total_exact,
        done=operation.done,
        skipped=operation.skipped,
        failed=operation.failed,
        errors=[_error(error, redactor) for error in operation.errors],
        owner=operation.owner,
    )


def _selector(selector: Selector) -> dict[str, Any]:
    if selector.ids is not None:
        return {"ids": list(selector.ids)}
    if selector.filter is None:
        return {"fingerprint": selector.fingerprint}
    return {"filter": {name: value for name, value in asdict(selector.filter).items() if value is not None}}


def _error(error: OperationError, redactor: Redactor) -> schemas.OperationError:
    # These are Rapids' own words; of the letter, they quote names. Its payload, which would say what to hide in them,
    # is not at hand, so what looks like a secret is hidden.
    told = redactor.raw(error.error.encode(errors="replace")).decode()
    return schemas.OperationError(letter_id=error.letter_id, error=told)
