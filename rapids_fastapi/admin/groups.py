"""Groups over HTTP: how far they are, who is at work, what is pending; and pausing and resuming them."""

from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from rapids import GroupControl
from rapids.inspection import GroupSnapshot, HandlerAttempts, Inspector, Page, PendingEntry
from rapids_fastapi.admin import stream_schemas as schemas
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.documented import NEXT_LINK, documented
from rapids_fastapi.admin.paging import CursorQuery, LimitQuery, lead_on
from rapids_fastapi.admin.problems import Problem, understood
from rapids_fastapi.admin.redaction import MASK, Redactor
from rapids_fastapi.admin.scope import LONGEST_NAME, StreamDep, check_stream
from rapids_fastapi.state import Running

__all__ = ["router"]

_DOOR = ("admin-closed", "unauthenticated", "forbidden", "stream-not-found", "group-not-found", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")
_LOOK = (*_DOOR, "stream-needed", *_OUTAGE)
_CHANGE = (*_DOOR, "cross-origin", "not-json", "too-large", *_OUTAGE)

router: APIRouter = APIRouter(prefix="/api/groups", route_class=AdminRoute, dependencies=CREDENTIALS)


GroupName = Annotated[
    str, Query(min_length=1, max_length=LONGEST_NAME, description="The group.", examples=["payments"])
]
# No alternative of a parameter has a `Query` of its own: Pydantic warns of its alias, and FastAPI hides that from the
# thread that makes the routes only.
OnlyGroup = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=LONGEST_NAME,
        description="Only this one, with its consumers.",
        examples=["payments"],
    ),
]
ConsumerName = Annotated[
    str | None,
    Query(min_length=1, max_length=LONGEST_NAME, description="Only what this consumer holds.", examples=["web-1-4711"]),
]
Replays = Annotated[
    bool,
    Query(
        description="Look at the group's replay stream, where replays of its dead letters go, instead.",
        examples=[False],
    ),
]


@router.get(
    "",
    summary="List groups, or look at one",
    openapi_extra=needs("read"),
    responses={200: NEXT_LINK, **documented(*_LOOK)},
)
async def list_groups(
    request: Request,
    response: Response,
    parts: RunningDep,
    stream: StreamDep,
    group: OnlyGroup = None,
    replays: Replays = False,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> schemas.GroupPage | schemas.GroupDetail:
    """A page of a stream's groups, those of other services included; or with `group`, that one and its consumers.

    `Link: rel="next"` and `next_cursor` lead on.
    """
    if group is None and replays:
        raise Problem("invalid", "A replay stream belongs to one group: say ?group= as well.")
    if group is None:
        found = await _page(parts, stream, cursor, limit)
    else:
        found = await _detail(parts, stream, group, replays=replays, cursor=cursor, limit=limit)
    lead_on(request, response, found.next_cursor)
    return found


@router.get(
    "/pending",
    summary="List what is pending in a group",
    openapi_extra=needs("read"),
    responses={200: NEXT_LINK, **documented(*_LOOK)},
)
async def list_pending(
    request: Request,
    response: Response,
    parts: RunningDep,
    stream: StreamDep,
    group: GroupName,
    state: Annotated[
        Literal["waiting", "parked"] | None, Query(description="Only these; by default, all.", examples=["parked"])
    ] = None,
    consumer: ConsumerName = None,
    replays: Replays = False,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> schemas.PendingPage:
    """A page of what was delivered to a group and is not acknowledged: who has it, for how long, how often delivered.

    `Link: rel="next"` and `next_cursor` lead on, for the same `state`.
    """
    if state is not None and consumer is not None:
        raise Problem("invalid", "What waits or is parked is nobody's: say either ?state= or ?consumer=.")
    inspector, place = Inspector(parts.redis), cursor or None
    with understood():
        match state:
            case "waiting":
                page = await inspector.waiting(stream, group, replays=replays, cursor=place, limit=limit)
            case "parked":
                page = await inspector.parked(stream, group, replays=replays, cursor=place, limit=limit)
            case None:
                page = await inspector.pending(
                    stream, group, consumer=consumer, replays=replays, cursor=place, limit=limit
                )
    found = _pending(page, stream, group, parts.redactor)
    lead_on(request, response, found.next_cursor)
    return found


@router.post("/pause", summary="Pause a group", openapi_extra=needs("edit"), responses=documented(*_CHANGE))
async def pause_group(parts: RunningDep, user: UserDep, body: schemas.PauseRequest) -> schemas.PauseResult:
    """Pause a group in all its processes: within about a second none begins anything more, until it is resumed.

    A pause that holds already stays as it is, and is the answer.
    """
    with understood():
        control = GroupControl(parts.redis, check_stream(parts, body.stream), body.group)
        paused = await control.pause(actor=user.name, reason=body.reason)
    return schemas.PauseResult(stream=body.stream, group=body.group, pause=schemas.Pause.model_validate(paused))


@router.post("/resume", summary="Resume a group", openapi_extra=needs("edit"), responses=documented(*_CHANGE))
async def resume_group(parts: RunningDep, user: UserDep, body: schemas.ResumeRequest) -> schemas.PauseResult:
    """End a group's pause: within about a second all its processes go on. The answer is the pause that ended."""
    with understood():
        control = GroupControl(parts.redis, check_stream(parts, body.stream), body.group)
        if (ended := await control.resume(actor=user.name, reason=body.reason)) is None:
            await Inspector(parts.redis).group(body.stream, body.group)  # not paused, or not there at all?
    return schemas.PauseResult(
        stream=body.stream, group=body.group, pause=None if ended is None else schemas.Pause.model_validate(ended)
    )


async def _page(parts: Running, stream: str, cursor: str | None, limit: int) -> schemas.GroupPage:
    with understood():
        page = await Inspector(parts.redis).groups(stream, cursor=cursor or None, limit=limit)
    items = [await _group(parts, stream, snapshot) for snapshot in page.items]
    return schemas.GroupPage(stream=stream, items=items, next_cursor=page.cursor)


async def _detail(
    parts: Running, stream: str, group: str, *, replays: bool, cursor: str | None, limit: int
) -> schemas.GroupDetail:
    inspector = Inspector(parts.redis)
    with understood():
        snapshot = await inspector.group(stream, group, replays=replays)
        page = await inspector.consumers(stream, group, replays=replays, cursor=cursor or None, limit=limit)
    return schemas.GroupDetail(
        group=await _group(parts, stream, snapshot),
        consumers=[schemas.Consumer.model_validate(consumer) for consumer in page.items],
        next_cursor=page.cursor,
    )


async def _group(parts: Running, stream: str, snapshot: GroupSnapshot) -> schemas.Group:
    """The group and its pause, which is one for the stream and the replay stream."""
    shown = schemas.Group.model_validate(snapshot, from_attributes=True)
    try:
        control = GroupControl(parts.redis, stream, snapshot.group)
    except ValueError:  # a name that Rapids does not take, so that none of its routers is of that group
        return shown
    if (paused := await control.paused()) is not None:
        shown.pause = schemas.Pause.model_validate(paused)
    return shown


def _pending(page: Page[PendingEntry], stream: str, group: str, redactor: Redactor) -> schemas.PendingPage:
    return schemas.PendingPage(
        at=page.at,
        stream=stream,
        group=group,
        items=[schemas.PendingEntry.model_validate(_redacted(entry, redactor)) for entry in page.items],
        next_cursor=page.cursor,
    )


def _redacted(entry: PendingEntry, redactor: Redactor) -> PendingEntry:
    """Without the errors of its handlers: they may quote what is to be hidden in the payload, which is not at hand."""
    if not redactor.names:
        return entry
    return replace(
        entry,
        failures=tuple(replace(failure, error=MASK) for failure in entry.failures),
        attempts=tuple(map(_without_errors, entry.attempts)),
    )


def _without_errors(of: HandlerAttempts) -> HandlerAttempts:
    masked = (replace(attempt, error=MASK if attempt.error else "") for attempt in of.attempts)
    return replace(of, attempts=tuple(masked))
