"""The audit over HTTP: the logs of all the application's dead-letter queues and streams as one, by time."""

import re
from dataclasses import asdict, dataclass

from fastapi import APIRouter, Request, Response

from rapids._core.json_schema import with_json_schema
from rapids._core.paging import Listing
from rapids.audit import AuditEntry, AuditLog, cursor_after
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.pages import NEXT_LINK, CursorQuery, LimitQuery, lead_on
from rapids_fastapi.admin.payload import cleaned
from rapids_fastapi.admin.problems import answers, understood
from rapids_fastapi.admin.query import streams_of

__all__ = ["Place", "router"]

_AUDIT = Listing("audit")
_LAST = 2**64 - 1
_PROBLEMS = ("admin-closed", "unauthenticated", "forbidden", "invalid", "redis-unavailable", "not-running")

router: APIRouter = APIRouter(prefix="/api/audit", route_class=AdminRoute, dependencies=CREDENTIALS)


@with_json_schema
@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedChange(AuditEntry):
    """Something somebody did. Letters that an operation moved have no entries of their own: the operation has."""

    stream: str
    """The dead-letter queue or the stream whose log has the entry."""


class AuditPage(Answer):
    """What was done to the application's dead letters, operations and groups, newest first."""

    items: list[LoggedChange]
    next_cursor: str | None
    """For `cursor`, to get the next page; null on the last one."""


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
        """For any of the logs: what is not newer than this entry, itself and others of its time included."""
        ms, seq = map(int, self.entry_id.split("-"))
        return cursor_after(f"{ms}-{seq + 1}" if seq < _LAST else f"{ms + 1}-0")

    def __str__(self) -> str:
        return f"{self.entry_id} {self.stream}"

    @classmethod
    def read(cls, text: str) -> "Place":
        """The place that was written. Raises `ValueError` for other text."""
        entry_id, _, stream = text.partition(" ")
        found = re.fullmatch("(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,19})", entry_id)
        if found is None or int(found[2]) > _LAST:
            raise _AUDIT.bad(text)
        return cls(entry_id, stream)


@router.get(
    "",
    summary="Who did what, when and why",
    openapi_extra=needs("read"),
    responses=answers(*_PROBLEMS, example=examples.AUDIT_PAGE, headers=NEXT_LINK),
)
async def list_audit(
    request: Request, response: Response, parts: RunningDep, cursor: CursorQuery = None, limit: LimitQuery = 50
) -> AuditPage:
    """What was done to dead letters, operations and groups of this application, newest first.

    About 10,000 entries are kept of each dead-letter queue and stream, until 90 days after the last one. Those of one
    Redis server are in order; of several, as far as their clocks agree. `Link: rel="next"` and `next_cursor` lead to
    the next page.
    """
    with understood():
        after = Place.read(_AUDIT.text(cursor)) if cursor else None
    logs = [AuditLog(parts.redis, name) for name in sorted({*parts.queues, *streams_of(parts)})]
    entries = [entry for log in logs for entry in await _entries_of(log, after, limit + 1)]
    found = sorted(entries, key=lambda entry: Place(entry.id, entry.stream).order)
    shown = found[:limit]
    following = _AUDIT.cursor(str(Place(shown[-1].id, shown[-1].stream))) if len(found) > limit else None
    lead_on(request, response, following)
    return AuditPage(items=[cleaned(entry) for entry in shown], next_cursor=following)


async def _entries_of(log: AuditLog, after: Place | None, count: int) -> list[LoggedChange]:
    """Up to so many of a log's entries that come after a place."""
    # One more: the entry at the place itself is read, too, as others of its time may come after it.
    page = await log.list(cursor=None if after is None else after.cursor, limit=count + 1)
    entries = [LoggedChange(**asdict(entry), stream=log.stream) for entry in page.items]
    return [entry for entry in entries if after is None or Place(entry.id, entry.stream).order > after.order]
