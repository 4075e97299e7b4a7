"""The archive over HTTP: replayed and discarded dead letters."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter
from rapids.redaction import Redactor
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.letter_search import MAX_PAGE_BYTES, bounded_page
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.pages import NEXT_LINK, CursorQuery, LimitQuery, link_next_page
from rapids_fastapi.admin.payload import clean
from rapids_fastapi.admin.problems import Problem, answers, refusals_as_problems
from rapids_fastapi.admin.query import FilterDep, QueueDep
from rapids_fastapi.admin.redacted_letter import DeadLetterSummary, summary_of

__all__ = ["router"]

_PROBLEMS = (
    *("admin-closed", "unauthenticated", "auth-unavailable", "forbidden", "dlq-needed", "dlq-not-found", "invalid"),
    *("too-busy", "redis-unavailable", "not-running"),
)

router: APIRouter = APIRouter(prefix="/api/archive", route_class=AdminRoute, dependencies=CREDENTIALS)


class ArchivedLetter(DeadLetterSummary):
    """A replayed or discarded dead letter, and who moved it last."""

    moved_at: datetime | None
    moved_by: str
    move_reason: str
    operation: str
    """The id of the operation that moved it; empty if none did."""


class ArchivePage(Answer):
    """Replayed and discarded letters, the one that was moved last first. A page can be short although more follow."""

    dlq: str
    items: list[ArchivedLetter]
    next_cursor: str | None
    """For `cursor`, to get the next page; null on the last one."""
    scanned: int
    """How many letters were read for this page."""


@router.get(
    "",
    summary="List replayed and discarded dead letters",
    openapi_extra=needs("read", limited="searches"),
    responses=answers(
        *_PROBLEMS,
        headers=NEXT_LINK,
        example={
            "dlq": "{orders}:dlq",
            "items": [
                {
                    **examples.DEAD_LETTER_PAGE["items"][0],
                    "state": "discarded",
                    "moved_at": "2025-11-23T20:59:00Z",
                    "moved_by": "ann",
                    "move_reason": "a test order",
                    "operation": "",
                }
            ],
            "next_cursor": "YXJjaGl2ZToxNzYzOTMyMDAwMDAwMDAwLTA",
            "scanned": 1,
        },
    ),
)
async def list_archive(
    request: Request,
    response: Response,
    parts: RunningDep,
    queue: QueueDep,
    wanted: FilterDep,
    state: Annotated[
        Literal["replayed", "discarded"] | None, Query(description="Only these.", examples=["discarded"])
    ] = None,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> ArchivePage:
    """Replayed and discarded letters until their retention ends, the one that was moved last first.

    `since` and `until` are about when they were moved. `q` is refused while anything is redacted. A discarded letter
    can be restored. `Link: rel="next"` and `next_cursor` lead to the next page.
    """
    if wanted.q is not None and parts.redactor.names:
        raise Problem("invalid", "The archive cannot be searched by q while values are redacted.")
    with refusals_as_problems():
        page = await bounded_page(
            lambda limit: queue.archived(wanted, state=state, cursor=cursor or None, limit=limit),
            limit,
            MAX_PAGE_BYTES,
        )
    link_next_page(request, response, page.cursor)
    return ArchivePage(
        dlq=queue.stream,
        items=await run_in_threadpool(lambda: [_archived(letter, parts.redactor) for letter in page.items]),
        next_cursor=page.cursor,
        scanned=page.scanned,
    )


def _archived(letter: DeadLetter, redactor: Redactor) -> ArchivedLetter:
    last = letter.history[-1] if letter.history else None
    return ArchivedLetter(
        **dict(summary_of(letter, redactor)),
        moved_at=None if last is None else last.at,
        moved_by="" if last is None else clean(last.actor),
        move_reason="" if last is None else clean(last.reason),
        operation="" if last is None else clean(last.operation),
    )
