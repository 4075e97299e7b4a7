"""Entries over HTTP: those of a stream by time or id, and one by its id. Texts of entries are untrusted input."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from rapids.inspection import StreamEntry, read_entries
from rapids.redaction import Redactor
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.examples import Example
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.pages import NEXT_LINK, CursorQuery, LimitQuery, link_next_page
from rapids_fastapi.admin.payload import MAX_IN_DETAIL, MAX_IN_LIST, Payload, filled, show_event
from rapids_fastapi.admin.problems import Problem, answers, refusals_as_problems
from rapids_fastapi.admin.query import Moment, StreamDep

__all__ = ["router"]

_ID = r"^[0-9]{1,20}-[0-9]{1,20}$"
_ENTRY: Example = {
    "stream": "orders",
    "entry_id": "1763931500000-0",
    "appended_at": "2025-11-23T20:58:20Z",
    "event_id": "0a4dcf0e-3f0f-4f2b-9a0b-0d6f6c1f6f5e",
    "event_type": "order.placed",
    "timestamp": "2025-11-23T20:58:20+00:00",
    "correlation_id": "web-1",
    "causation_id": "",
    "schema_version": "1",
    "data": {"encoding": "json", "value": {"order_id": "A-17"}, "size": 19, "truncated": False},
    "metadata": {"encoding": "json", "value": {}, "size": 2, "truncated": False},
}
_ACCESS = (
    "admin-closed",
    "unauthenticated",
    "auth-unavailable",
    "forbidden",
    "invalid",
    "stream-needed",
    "stream-not-found",
    "too-busy",
    "redis-unavailable",
    "not-running",
)

router: APIRouter = APIRouter(prefix="/api/entries", route_class=AdminRoute, dependencies=CREDENTIALS)


class Entry(Answer):
    """An entry of a stream. Its texts are empty if it does not have them."""

    stream: str
    entry_id: str
    appended_at: datetime | None
    event_id: str
    event_type: str
    timestamp: str
    """When it happened, by its own field."""
    correlation_id: str
    causation_id: str
    schema_version: str
    data: Payload
    metadata: Payload


class EntryPage(Answer):
    """Entries in the chosen order. A page can be short although there is a next page."""

    stream: str
    items: list[Entry]
    next_cursor: str | None
    """For `cursor`, to get the next page; null on the last one."""


@router.get(
    "",
    summary="List entries of a stream",
    openapi_extra=needs("read", limited="searches"),
    responses=answers(
        *_ACCESS,
        example={"stream": "orders", "items": [_ENTRY], "next_cursor": "ZW50cmllczoxNzYzOTMxNTAwMDAwLTA"},
        headers=NEXT_LINK,
    ),
)
async def list_entries(
    request: Request,
    response: Response,
    parts: RunningDep,
    stream: StreamDep,
    since: Annotated[
        Moment | None, Query(description="Appended then or later. ISO 8601.", examples=["2025-11-23T20:00:00Z"])
    ] = None,
    until: Annotated[
        Moment | None, Query(description="Appended before. ISO 8601.", examples=["2025-11-24T00:00:00Z"])
    ] = None,
    start: Annotated[
        str | None, Query(pattern=_ID, description="The first entry to show.", examples=["1763931500000-0"])
    ] = None,
    order: Annotated[
        Literal["newest", "oldest"], Query(description="Which ones first.", examples=["newest"])
    ] = "newest",
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> EntryPage:
    """The entries of a stream that were appended in some time, the newest first by default. Payloads are shown up to
    4 KiB, redacted.

    `Link: rel="next"` and `next_cursor` lead to the next page, for the same order.
    """
    with refusals_as_problems():
        page = await read_entries(
            parts.redis,
            stream,
            since=since,
            until=until,
            start=start,
            newest_first=order == "newest",
            cursor=cursor or None,
            limit=limit,
        )
    link_next_page(request, response, page.cursor)
    items = await run_in_threadpool(_shown, page.items, parts.redactor, MAX_IN_LIST)
    return EntryPage(stream=stream, items=items, next_cursor=page.cursor)


@router.get(
    "/{entry_id}",
    summary="Read an entry",
    openapi_extra=needs("read", limited="searches"),
    responses=answers(*_ACCESS, "entry-not-found", example=_ENTRY),
)
async def get_entry(
    entry_id: Annotated[str, Path(pattern=_ID, description="Its id.", examples=["1763931500000-0"])],
    parts: RunningDep,
    stream: StreamDep,
) -> Entry:
    """An entry with its whole payload, redacted."""
    with refusals_as_problems():
        page = await read_entries(parts.redis, stream, start=entry_id, newest_first=False, limit=1)
    if not page.items or page.items[0].entry_id != entry_id:
        raise Problem("entry-not-found", "The stream does not have this entry, or no longer.")
    [shown] = await run_in_threadpool(_shown, page.items, parts.redactor, MAX_IN_DETAIL)
    return shown


def _shown(entries: Sequence[StreamEntry], redactor: Redactor, longest: int) -> list[Entry]:
    found: list[Entry] = []
    for entry in entries:
        data, metadata = show_event(entry.data, entry.metadata, redactor, longest)
        found.append(filled(Entry, entry, data=data.payload, metadata=metadata.payload))
    return found
