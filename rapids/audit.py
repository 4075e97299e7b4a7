"""The audit log: who changed what, when and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import at_least
from rapids._core.entry_id import moment_or_last, order
from rapids._core.json_schema import with_json_schema
from rapids._core.paging import Listing
from rapids._core.settings import stream_name
from rapids._storage.client.connections import SharedPool, call
from rapids._storage.keys import audit_log
from rapids._wire.entry_format import Fields, pairs

__all__ = ["AuditEntry", "AuditLog", "AuditPage", "cursor_after"]

LISTING = Listing("audit")

LARGEST_PAGE = 500

TARGETS = ("letter", "operation", "group")
"""The kinds of changes. A letter that an operation moved has no entry of its own."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One change. Users typed the actor, the reason and the details: show them as text only."""

    id: str
    at: datetime
    """When, by the server's clock."""
    actor: str
    action: str
    """`letter_replayed`, `letter_discarded`, `letter_restored`, `letters_reindexed`, `group_paused`, `group_resumed`,
    or `operation_` followed by what was done with the operation or by its new state."""
    reason: str
    operation: str
    """The operation's id; empty if there is none."""
    target: str
    """The id of the letter or operation, or the group."""
    details: Mapping[str, str]
    """What else the entry says, by name: for example the `scope` of a replay."""


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of changes, newest first."""

    items: tuple[AuditEntry, ...]
    cursor: str | None
    """Where the next page starts; None after the last one."""


class AuditLog:
    """Who changed what, and why: letters and operations of a dead-letter stream, or groups of an event stream.

    Each entry is written in the same step as its change. About 10,000 entries are kept, until 90 days after the last.

    Raises `ValueError` or `TypeError` for an option that makes no sense.
    """

    def __init__(self, redis: Redis | RedisCluster, stream: str) -> None:
        self.stream: str = stream_name("stream", stream)
        self._commands = SharedPool(redis, self.stream)

    async def list(self, *, cursor: str | None = None, limit: int = 50) -> AuditPage:
        """A page of up to `limit` changes (1 to 500), newest first, and where the next one starts.

        Raises `ValueError` for a cursor that no page gave out, or a `limit` out of range;
        `redis.exceptions.RedisError` if Redis does not answer.
        """
        if at_least("limit", limit, 1) > LARGEST_PAGE:
            raise ValueError(f"limit must be a whole number from 1 to {LARGEST_PAGE}, not {limit!r}")
        before = None if cursor is None else LISTING.entry_ids(cursor, 1)[0]
        newest = "+" if before is None else f"({before}"
        rows = await call(self._commands, "XREVRANGE", audit_log(self.stream), newest, "-", "COUNT", limit + 1)
        items = tuple(_entry(entry_id.decode(), fields) for entry_id, fields in rows[:limit])
        return AuditPage(items, cursor_after(items[-1].id) if len(rows) > limit else None)


def cursor_after(entry_id: str) -> str:
    """The cursor of the page that begins after an entry of the log, with older entries."""
    return LISTING.entry_cursor(entry_id)


def _entry(entry_id: str, fields: Fields) -> AuditEntry:
    told = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in pairs(fields)}
    return AuditEntry(
        id=entry_id,
        at=moment_or_last(order(entry_id)[0]),
        actor=told.pop("actor", ""),
        action=told.pop("action", ""),
        reason=told.pop("reason", ""),
        operation=told.get("operation", ""),
        target=next((told[name] for name in TARGETS if told.get(name)), ""),
        details={name: value for name, value in told.items() if name not in TARGETS and value},
    )
