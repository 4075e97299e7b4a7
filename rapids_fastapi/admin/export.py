"""All dead letters that match, as a stream of lines over HTTP."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import StreamingResponse

from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.documented import documented
from rapids_fastapi.admin.exporting import Export
from rapids_fastapi.admin.paging import CursorQuery
from rapids_fastapi.admin.problems import Problem
from rapids_fastapi.admin.query import FilterDep, QueueDep
from rapids_fastapi.admin.schemas import WHOLE_EXAMPLE

__all__ = ["router"]

MOST_LETTERS = 1_000_000

router: APIRouter = APIRouter(prefix="/api/dead-letters", route_class=AdminRoute, dependencies=CREDENTIALS)


class JsonLines(StreamingResponse):
    """A response of many JSON documents, one a line."""

    media_type = "application/x-ndjson"


_LINES: dict[str, Any] = {
    "description": "The letters, one a line; a last line with `next_cursor` and no `id` says that they are not all",
    "content": {
        JsonLines.media_type: {
            "schema": {"type": "string"},
            "examples": {
                "letters": {"value": json.dumps(WHOLE_EXAMPLE) + "\n"},
                "more than max_items": {"value": json.dumps({"next_cursor": "bGV0dGVyczoxNzYzOTMyMDAwMDAwLTA"}) + "\n"},
            },
        }
    },
}


@router.get(
    "/export",
    summary="Export dead letters",
    openapi_extra=needs("read"),
    response_class=JsonLines,
    responses={
        200: _LINES,
        **documented(
            *("admin-closed", "unauthenticated", "forbidden", "dlq-needed", "dlq-not-found", "invalid"),
            *("redis-unavailable", "not-running"),
        ),
    },
)
async def export_dead_letters(
    request: Request,
    parts: RunningDep,
    queue: QueueDep,
    wanted: FilterDep,
    cursor: CursorQuery = None,
    max_items: Annotated[
        int, Query(ge=1, le=MOST_LETTERS, description="Letters at the most.", examples=[10_000])
    ] = 100_000,
) -> JsonLines:
    """Dead letters, newest first, as lines of JSON: each as in its detail, without history, replays and parse check.

    Where they are not all, the last line has `next_cursor` and no `id`: it says where to go on, because there are more
    than `max_items`; or it is a problem, too, where Redis went away meanwhile.
    """
    export = Export(queue, wanted, parts.redactor, cursor or None, left=max_items, path=request.scope["path"])
    try:
        first = await export.first()
    except ValueError as error:
        raise Problem("invalid", str(error)) from error
    named = {"Content-Disposition": 'attachment; filename="dead-letters.ndjson"'}
    return JsonLines(export.lines(first), headers=named)
