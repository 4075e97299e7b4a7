"""Operations as Redis has them: written and read."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

from rapids._core.entry_id import moment_or_last
from rapids._core.redis_errors import reason
from rapids._storage.operation_records import StoredOperation
from rapids.dead_letters.letter import LetterFilter, Scope
from rapids.dead_letters.operation import Operation, OperationError, OperationKind, OperationState
from rapids.dead_letters.selection import Selector

__all__ = ["read_operation", "read_selector", "write_error", "write_selector"]

LONGEST_ERROR = 500
"""Characters of an error that are kept."""


def write_selector(selector: Selector) -> str:
    """As JSON."""
    told = {
        "ids": selector.ids,
        "filter": selector.filter and asdict(selector.filter),
        "fingerprint": selector.fingerprint,
    }
    return json.dumps({name: value for name, value in told.items() if value is not None}, default=_iso)


def read_selector(text: str) -> Selector:
    """What `write_selector` wrote. Raises `ValueError` for anything else."""
    try:
        told: dict[str, Any] = json.loads(text)
        if (given := told.get("filter")) is not None:
            for name in ("since", "until"):
                given[name] = given.get(name) and datetime.fromisoformat(given[name])
            told["filter"] = LetterFilter(**given)
        if told.get("ids") is not None:
            told["ids"] = tuple(told["ids"])
        return Selector(**told)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"the selector of an operation cannot be read: {error}") from error


def write_error(letter_id: str, error: Exception) -> str:
    """As JSON; a long one is cut."""
    text = f"{type(error).__name__}: {reason(error)}"
    return json.dumps([letter_id, text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 1] + "…"])


def read_operation(operation_id: str, stored: StoredOperation, errors: Iterable[bytes] = ()) -> Operation:
    """An operation from its fields. Raises `ValueError` for what no version of Rapids wrote."""
    return Operation(
        id=operation_id,
        kind=cast(OperationKind, stored["kind"]),
        state=cast(OperationState, stored["state"]),
        selector=read_selector(stored["selector"]),
        scope=cast(Scope, stored["scope"]),
        rate=float(stored["rate"]) if stored["rate"] else None,
        max_items=int(stored["max_items"]) if stored["max_items"] else None,
        actor=stored["actor"],
        reason=stored["reason"],
        created_at=moment_or_last(int(stored["created_ms"] or 0)),
        updated_at=moment_or_last(int(stored["updated_ms"] or 0)),
        ended_at=moment_or_last(int(stored["ended_ms"] or 0)) if stored["ended_ms"] else None,
        upto=stored["upto"],
        total=int(stored["total"]),
        total_exact=stored["total_exact"] == "1",
        done=int(stored["done"]),
        skipped=int(stored["skipped"]),
        failed=int(stored["failed"]),
        errors=tuple(map(_error, errors)),
        owner=stored["owner"].partition(":")[0],
    )


def _error(raw: bytes) -> OperationError:
    letter_id, error = cast(Sequence[str], json.loads(raw))
    return OperationError(letter_id, error)


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} cannot be written as JSON")
