"""Events over HTTP: the causation tree of a correlation id."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from rapids.inspection import Inspector
from rapids_fastapi.admin import event_schemas as schemas
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.documented import NEXT_LINK, documented
from rapids_fastapi.admin.paging import CursorQuery, lead_on, path_of
from rapids_fastapi.admin.problems import Problem
from rapids_fastapi.admin.query import Moment
from rapids_fastapi.admin.scope import streams_of
from rapids_fastapi.admin.traced import tree_of

__all__ = ["router"]

_PROBLEMS = ("admin-closed", "unauthenticated", "forbidden", "invalid", "redis-unavailable", "not-running")

router: APIRouter = APIRouter(prefix="/api/events", route_class=AdminRoute, dependencies=CREDENTIALS)


@router.get(
    "",
    summary="Trace a correlation id",
    openapi_extra=needs("read"),
    responses={200: NEXT_LINK, **documented(*_PROBLEMS)},
)
async def trace_events(
    request: Request,
    response: Response,
    parts: RunningDep,
    correlation_id: Annotated[
        str,
        Query(min_length=1, max_length=schemas.LONGEST_ID, description="What they have in common.", examples=["web-1"]),
    ],
    since: Annotated[
        Moment | None, Query(description="Appended then or later. ISO 8601.", examples=["2025-11-23T20:00:00Z"])
    ] = None,
    until: Annotated[
        Moment | None, Query(description="Appended before. ISO 8601.", examples=["2025-11-24T00:00:00Z"])
    ] = None,
    cursor: CursorQuery = None,
) -> schemas.CausationTree:
    """The causation tree: the events with a correlation id, and what every group has made of each.

    Looks at the newest 10,000 entries of the application's streams, replay streams, dead-letter queues and archives,
    for 2 seconds at the most; `windows` says at what, and `next_cursor` goes on with what is older. That an event was
    handled is inferred from its acknowledgement.
    """
    try:
        tree = await Inspector(parts.redis).trace(
            correlation_id,
            streams=streams_of(parts),
            dlqs=sorted(parts.queues),
            since=since,
            until=until,
            cursor=cursor or None,
        )
    except ValueError as error:
        raise Problem("invalid", str(error)) from error
    lead_on(request, response, tree.cursor)
    base = path_of(request).removesuffix("/events")
    return await run_in_threadpool(tree_of, tree, parts.redactor, base, tree.cursor)
