"""The audit over HTTP: the logs of all the application's dead-letter queues and streams as one, by time."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from rapids.audit import AuditEntry, AuditLog, cursor_after
from rapids_fastapi.admin import audit_schemas as schemas
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.documented import NEXT_LINK, documented
from rapids_fastapi.admin.paging import CursorQuery, LimitQuery, Listing, lead_on
from rapids_fastapi.admin.problems import Problem
from rapids_fastapi.admin.scope import streams_of
from rapids_fastapi.state import Running

__all__ = ["Place", "router"]

_AUDIT = Listing("audit")
_LAST = 2**64 - 1

router: APIRouter = APIRouter(prefix="/api/audit", route_class=AdminRoute, dependencies=CREDENTIALS)


@dataclass(frozen=True, slots=True)
class Place:
    """An entry of one of the logs. The order is by id, which begins with the time, newest first; then by log."""

    entry_id: str
    stream: str

    @property
    def order(self) -> tuple[int, int, str]:
        """What entries are sorted by."""
        ms, _, seq = self.entry_id.partition("-")
        return -int(ms), -int(seq), self.stream

    @property
    def cursor(self) -> str:
        """For any of the logs: what is not newer than this entry, itself and its contemporaries included."""
        ms, seq = map(int, self.entry_id.split("-"))
        return cursor_after(f"{ms}-{seq + 1}" if seq < _LAST else f"{ms + 1}-0")

    def __str__(self) -> str:
        return f"{self.entry_id} {self.stream}"

    @classmethod
    def read(cls, text: str) -> "Place":
        """The place that was written. Raises `Problem` for other text."""
        entry_id, _, stream = text.partition(" ")
        found = re.fullmatch("(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,19})", entry_id)
        if found is None or int(found[2]) > _LAST:
            raise Problem("invalid", "cursor must be one that a page of this list gave out.")
        return cls(entry_id, stream)


@router.get(
    "",
    summary="Who did what, when and why",
    openapi_extra=needs("read"),
    responses={
        200: NEXT_LINK,
        **documented("admin-closed", "unauthenticated", "forbidden", "invalid", "redis-unavailable", "not-running"),
    },
)
async def list_audit(
    request: Request, response: Response, parts: RunningDep, cursor: CursorQuery = None, limit: LimitQuery = 50
) -> schemas.AuditPage:
    """What was done to dead letters, operations and groups of this application, newest first.

    Some 10,000 entries are kept of each dead-letter queue and stream, until 90 days after the last one. Those of one
    Redis server are in order; of several, as far as their clocks agree. `Link: rel="next"` and `next_cursor` lead on.
    """
    place = _AUDIT.place(cursor)
    behind = None if place is None else Place.read(place)
    found = sorted([one for log in _logs(parts) for one in await _of(log, behind, limit + 1)], key=_order)
    following = _AUDIT.cursor(str(found[limit - 1][0])) if len(found) > limit else None
    lead_on(request, response, following)
    return schemas.AuditPage(items=[_shown(*one) for one in found[:limit]], next_cursor=following)


def _logs(parts: Running) -> Sequence[AuditLog]:
    return [AuditLog(parts.redis, name) for name in sorted({*parts.queues, *streams_of(parts)})]


async def _of(log: AuditLog, behind: Place | None, count: int) -> list[tuple[Place, AuditEntry]]:
    """Up to so many of a log's entries that come behind a place."""
    # One more: the entry at the place itself is asked for, too, as others of its time may come behind it.
    page = await log.list(cursor=None if behind is None else behind.cursor, limit=count + 1)
    found = [(Place(entry.id, log.stream), entry) for entry in page.items]
    return [one for one in found if behind is None or one[0].order > behind.order]


def _order(one: tuple[Place, AuditEntry]) -> tuple[int, int, str]:
    return one[0].order


def _shown(place: Place, entry: AuditEntry) -> schemas.AuditEntry:
    return schemas.AuditEntry(
        id=entry.id,
        at=entry.at,
        stream=place.stream,
        actor=entry.actor,
        action=entry.action,
        reason=entry.reason,
        operation=entry.operation,
        target=entry.target,
        details=dict(entry.details),
    )
