"""Stored operations on many letters. Each change is one script, which keeps owner and state consistent."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, Reply, call, checked, run
from rapids._storage.keys import (
    audit_log,
    letters_archived,
    letters_failed_again,
    operating,
    operation,
    operation_errors,
    operation_replays,
    operations,
)

__all__ = [
    "MAX_ERRORS",
    "MAX_FAILURES",
    "MAX_KEPT",
    "RESUMED",
    "Claim",
    "ElsewhereError",
    "StoredOperation",
    "change",
    "change_canary",
    "claim",
    "count_outcomes",
    "count_unmoved",
    "leave",
    "page",
    "read",
    "renew",
    "start",
]

MAX_KEPT = 100
"""How many operations of a dead-letter stream are kept."""
MAX_ERRORS = 100
"""How many errors of an operation are kept; the others are only counted."""

MAX_FAILURES = 5
"""How many replays that failed again are kept of a canary's step, to be shown."""

RESUMED = "resumed"
"""In place of why its canary stopped an operation, after somebody resumed it."""

TTL_MS = 90 * 24 * 3_600_000
"""How long an operation is kept after its last change or step: as long as the audit log keeps it."""

LEASE_MS = 6_000
"""The lease of an operation. A process that does not renew it within this time is assumed dead."""

NAMES = (
    *("kind", "state", "selector", "scope", "rate", "max_items", "actor", "reason", "upto", "total", "total_exact"),
    *("created_ms", "updated_ms", "ended_ms", "done", "skipped", "failed", "owner", "cursor"),
    *("canary", "canary_upto", "canary_step", "canary_size", "canary_from", "canary_handled", "canary_failed"),
    *("canary_failed_before", "canary_steps", "canary_stopped", "canary_why", "canary_failures"),
)

StoredOperation = Mapping[str, str]
"""An operation's fields by name; empty text for missing fields."""


class ElsewhereError(Exception):
    """The operation is at another place than this process left it at: its next letters are to be read again.

    A failover has lost the last step, or a step whose answer was lost has been done.
    """


@dataclass(frozen=True, slots=True)
class Claim:
    """A process's claim of an operation: its writes are valid while the operation's `owner` is its token.

    Those of a step are valid only if all letters until `after` were processed, and no others; empty for any.
    """

    dlq: str
    kind: str
    operation_id: str
    token: str
    after: str = ""

    @property
    def key(self) -> str:
        """The key of the operation."""
        return operation(self.dlq, self.operation_id)

    @property
    def errors(self) -> str:
        """The key of its errors."""
        return operation_errors(self.dlq, self.operation_id)

    @property
    def replays(self) -> str:
        """The key of the replays of its canary that have no outcome yet."""
        return operation_replays(self.dlq, self.operation_id)

    @property
    def operating(self) -> str:
        """The key of the operation of its kind that has not ended."""
        return operating(self.dlq, self.kind)


async def start(
    commands: Commands, dlq: str, operation_id: str, fields: Mapping[str, str], *, actor: str, reason: str
) -> str | None:
    """Start an operation. If another of its kind has not ended, nothing is started and that one's id is returned.

    `fields` has its `kind` and the other parts of the request.
    """
    keys = (operation(dlq, operation_id), operating(dlq, fields["kind"]), operations(dlq), audit_log(dlq))
    options = {
        "id": operation_id,
        "fields": {**fields, "actor": actor, "reason": reason},
        "ttl": TTL_MS,
        "max_kept": MAX_KEPT,
        "prefix": operation(dlq, ""),
    }
    other = await _run(commands, "start_operation", keys, options)
    return None if other is None else other.decode()


async def change(
    commands: Commands,
    dlq: str,
    operation_id: str,
    *,
    kind: str,
    state: str,
    action: str,
    actor: str,
    reason: str,
    ends_canary: bool = False,
) -> str | None:
    """Set the state of an operation that has not ended. Returns its earlier state; None without such an operation."""
    key, replays = operation(dlq, operation_id), operation_replays(dlq, operation_id)
    keys = (key, operating(dlq, kind), audit_log(dlq), replays)
    options = {
        "id": operation_id,
        "state": state,
        "ttl": TTL_MS,
        "action": action,
        "actor": actor,
        "reason": reason,
        "ends_canary": ends_canary,
        "resumed": RESUMED,
    }
    before = await _run(commands, "change_operation", keys, options)
    return None if before is None else before.decode()


async def claim(commands: Commands, dlq: str, kinds: Sequence[str], token: str, *, only: str = "") -> Claim | None:
    """Take an operation of these kinds that no process runs, or `only` this one. None if there is none."""
    keys = [operating(dlq, kind) for kind in kinds]
    arguments = (operation(dlq, ""), token, LEASE_MS, TTL_MS, only)
    taken = checked((await run(commands, scripts.load("claim_operation"), [(keys, arguments)]))[0])
    if taken is None:
        return None
    at, operation_id = taken
    return Claim(dlq, kinds[int(at) - 1], operation_id.decode(), token)


async def renew(commands: Commands, held: Claim) -> bool:
    """Renew the lease. False if this process no longer has the operation."""
    call_ = ((held.key, held.errors, held.operating, held.replays), (held.token, LEASE_MS, TTL_MS))
    return checked((await run(commands, scripts.load("renew_operation"), [call_]))[0]) == 1


async def leave(
    commands: Commands, held: Claim, state: str = "", *, error: str = "", stopped: str = "", why: str = ""
) -> bool:
    """End the operation in this state, or pause it, or without a state release it.

    `stopped` and `why` say how its canary stopped. False if this process no longer has it.
    """
    keys = (held.key, held.errors, held.operating, audit_log(held.dlq), held.replays)
    options = {
        "id": held.operation_id,
        "token": held.token,
        "state": state,
        "action": f"operation_{state}",
        "error": error,
        "fields": {"canary_stopped": stopped, "canary_why": why} if stopped else {},
        "reason": why,
        "ttl": TTL_MS,
    }
    return await _run(commands, "leave_operation", keys, options) == 1


async def count_unmoved(commands: Commands, held: Claim, counted_as: str, place: str, error: str = "") -> bool:
    """Count a letter as `skipped` or `failed`, with the reason. False if this process no longer has the operation.

    Raises `ElsewhereError`.
    """
    options = {
        "token": held.token,
        "after": held.after,
        "counted_as": counted_as,
        "place": place,
        "error": error,
        "max_errors": MAX_ERRORS,
        "ttl": TTL_MS,
    }
    if (counted := await _run(commands, "count_unmoved", (held.key, held.errors), options)) == 2:
        raise ElsewhereError
    return counted == 1


async def count_outcomes(commands: Commands, held: Claim) -> tuple[int, list[str]] | None:
    """Count the outcomes of a canary's replays that are known now.

    Returns the milliseconds since the last replay of the step was sent, and the streams of replays that have no outcome
    yet. None if this process no longer has the operation.
    """
    keys = (held.key, held.replays, letters_failed_again(held.dlq), letters_archived(held.dlq))
    found = await _run(commands, "count_outcomes", keys, {"token": held.token, "max_failures": MAX_FAILURES})
    return None if found is None else (found[0], [stream.decode() for stream in found[1]])


async def change_canary(
    commands: Commands, held: Claim, fields: Mapping[str, str | int], *, begins: bool = False
) -> bool:
    """Set fields of a canary; `begins`: of a step that begins. False if this process no longer has the operation."""
    options = {"token": held.token, "fields": fields, "begins": begins}
    return await _run(commands, "change_canary", (held.key, held.replays), options) == 1


async def read(commands: Commands, dlq: str, operation_id: str) -> tuple[StoredOperation, Sequence[bytes]] | None:
    """An operation and its errors, in one round trip; None if there is none."""
    key = operation(dlq, operation_id)
    values, errors = await commands.send(
        [("HMGET", key, *NAMES), ("LRANGE", operation_errors(dlq, operation_id), 0, MAX_ERRORS - 1)]
    )
    fields = _named(checked(values))
    return None if not fields["state"] else (fields, checked(errors))


async def page(
    commands: Commands, dlq: str, *, after: str, count: int
) -> tuple[list[tuple[str, StoredOperation]], str | None]:
    """Up to `count` operations without their errors, newest first, after the operation `after` ('': the first page),
    and the operation after which the next page begins. After a deleted operation there is nothing."""
    ids: list[str] = [one.decode() for one in await call(commands, "ZRANGE", operations(dlq), 0, -1, "REV")]
    if after:
        ids = ids[ids.index(after) + 1 :] if after in ids else []
    wanted = ids[:count]
    replies = await commands.send([("HMGET", operation(dlq, one), *NAMES) for one in wanted]) if wanted else []
    rows = [(one, _named(checked(reply))) for one, reply in zip(wanted, replies, strict=True)]
    found = [(one, fields) for one, fields in rows if fields["state"]]  # others have expired
    return found, wanted[-1] if len(ids) > count else None


async def _run(commands: Commands, script: str, keys: Sequence[str], options: Mapping[str, object]) -> Reply:
    return checked((await run(commands, scripts.load(script), [(keys, (json.dumps(options),))]))[0])


def _named(values: Sequence[Reply]) -> StoredOperation:
    texts = [b"" if value is None else value for value in values]
    return dict(zip(NAMES, (text.decode(errors="replace") for text in texts), strict=True))
