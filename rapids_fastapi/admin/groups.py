"""Groups over HTTP: their progress, consumers and pending entries; pausing and resuming them."""

from dataclasses import replace
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import ConfigDict, Field

from rapids import GroupControl
from rapids.control import Pause
from rapids.inspection import ConsumerSnapshot, GroupSnapshot, Inspector, PendingEntry
from rapids_fastapi.admin import examples, models
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.auth import AdminUser
from rapids_fastapi.admin.models import MAX_NAME, Answer, Reason, example, made_in_a_thread
from rapids_fastapi.admin.pages import NEXT_LINK, CursorQuery, LimitQuery, link_next_page
from rapids_fastapi.admin.payload import cleaned, redacted_entry
from rapids_fastapi.admin.problems import Problem, answers, refusals_as_problems
from rapids_fastapi.admin.query import StreamDep, check_stream

__all__ = ["router"]

_ACCESS = (
    "admin-closed",
    "unauthenticated",
    "auth-unavailable",
    "forbidden",
    "stream-not-found",
    "group-not-found",
    "invalid",
)
_OUTAGE = ("redis-unavailable", "not-running")
_READ = (*_ACCESS, "stream-needed", *_OUTAGE)
_CHANGE = (*_ACCESS, "cross-origin", "not-json", "too-large", "too-slow", *_OUTAGE)

router: APIRouter = APIRouter(prefix="/api/groups", route_class=AdminRoute, dependencies=CREDENTIALS)


_LISTED = answers(example=examples.GROUP_PAGE, headers=NEXT_LINK)[200]
_LISTED["content"]["application/json"] = {
    "examples": {"a page": {"value": examples.GROUP_PAGE}, "one group": {"value": examples.GROUP_DETAIL}}
}


class GroupPage(Answer):
    """Groups of a stream, by name. A page can be short although there is a next page."""

    stream: str
    items: tuple[GroupSnapshot, ...]
    next_cursor: str | None
    """For `cursor`, to get the next page; null on the last one."""


class GroupDetail(Answer):
    """One group with a page of its consumers, by name."""

    group: GroupSnapshot
    consumers: tuple[ConsumerSnapshot, ...]
    next_cursor: str | None
    """For `cursor`, to get more consumers; null if there are no more."""


class PendingPage(Answer):
    """Pending entries, in the order of the stream. If only waiting ones are listed: in the order in which they are due.

    Errors of handlers are hidden unless redaction is off: what to hide in them is only known from the payload.
    """

    at: datetime
    stream: str
    group: str
    items: list[PendingEntry]
    next_cursor: str | None
    """For `cursor`, to get the next page; null on the last one."""


class _GroupRequest(models.Request):
    stream: str = Field(min_length=1, max_length=MAX_NAME)
    group: str = Field(min_length=1, max_length=MAX_NAME)


class PauseRequest(_GroupRequest):
    """Which group to pause, and why."""

    model_config: ClassVar[ConfigDict] = example(stream="orders", group="payments", reason="the bank is down")

    reason: Reason = ""
    """Why; shown until the group is resumed."""


class ResumeRequest(_GroupRequest):
    """Which group to resume, and why."""

    model_config: ClassVar[ConfigDict] = example(stream="orders", group="payments", reason="the bank is back")

    reason: Reason = ""
    """Why; kept in the audit log."""


class PauseResult(Answer):
    """The current pause, which may have begun earlier, or the pause that ended.

    Without the permission `read`, its `actor` and `reason` are empty.
    """

    stream: str
    group: str
    pause: Pause | None
    """Null if the group was not paused."""


GroupName = Annotated[str, Query(min_length=1, max_length=MAX_NAME, description="The group.", examples=["payments"])]
# `Query` is around the whole union, not in one of its members: for such a member, Pydantic warns about its alias, and
# FastAPI hides the warning only in the thread that makes the routes.
OnlyGroup = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=MAX_NAME,
        description="Only this group, with its consumers.",
        examples=["payments"],
    ),
]
ConsumerName = Annotated[
    str | None,
    Query(min_length=1, max_length=MAX_NAME, description="Only what this consumer holds.", examples=["web-1-4711"]),
]
Replays = Annotated[
    bool,
    Query(
        description="Read the group's replay stream instead, which has the replays of its dead letters.",
        examples=[False],
    ),
]


@router.get(
    "",
    summary="List groups, or read one",
    openapi_extra=needs("read"),
    responses={**answers(*_READ), 200: _LISTED},
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
) -> GroupPage | GroupDetail:
    """A page of a stream's groups, also those of other services. With `group`: only this group, with its consumers.

    `Link: rel="next"` and `next_cursor` lead to the next page.
    """
    if group is None and replays:
        raise Problem("invalid", "A replay stream belongs to one group: give ?group= as well.")
    inspector = Inspector(parts.redis)
    with refusals_as_problems():
        if group is None:
            page = await inspector.groups(stream, cursor=cursor or None, limit=limit)
            found = GroupPage(stream=stream, items=cleaned(page.items), next_cursor=page.cursor)
        else:
            place = cursor or None
            snapshot = await inspector.group(stream, group, replays=replays)
            shown = await inspector.consumers(stream, group, replays=replays, cursor=place, limit=limit)
            found = GroupDetail(
                group=cleaned(snapshot),
                consumers=cleaned(shown.items),
                next_cursor=shown.cursor,
            )
    link_next_page(request, response, found.next_cursor)
    return found


@router.get(
    "/pending",
    summary="List what is pending in a group",
    response_model=PendingPage,
    openapi_extra=needs("read"),
    responses=answers(*_READ, example=examples.PENDING_PAGE, headers=NEXT_LINK),
)
async def list_pending(
    request: Request,
    parts: RunningDep,
    stream: StreamDep,
    group: GroupName,
    state: Annotated[
        Literal["waiting", "parked"] | None,
        Query(description="Only entries in this state; by default, all.", examples=["parked"]),
    ] = None,
    consumer: ConsumerName = None,
    replays: Replays = False,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> Response:
    """A page of entries that a group got and has not acknowledged: their consumer, idle time and delivery count.

    `Link: rel="next"` and `next_cursor` lead to the next page, for the same `state`.
    """
    if state is not None and consumer is not None:
        raise Problem("invalid", "Waiting and parked entries belong to no consumer: give either ?state= or ?consumer=.")
    inspector, place = Inspector(parts.redis), cursor or None
    with refusals_as_problems():
        match state:
            case "waiting":
                page = await inspector.waiting(stream, group, replays=replays, cursor=place, limit=limit)
            case "parked":
                page = await inspector.parked(stream, group, replays=replays, cursor=place, limit=limit)
            case None:
                page = await inspector.pending(
                    stream, group, consumer=consumer, replays=replays, cursor=place, limit=limit
                )

    def found() -> PendingPage:
        unknown = parts.redactor.hidden(None)
        items = [cleaned(redacted_entry(entry, parts.redactor, unknown)) for entry in page.items]
        return PendingPage(at=page.at, stream=stream, group=group, items=items, next_cursor=page.cursor)

    response = await made_in_a_thread(found)
    link_next_page(request, response, page.cursor)
    return response


@router.post(
    "/pause",
    summary="Pause a group",
    openapi_extra=needs("edit"),
    responses=answers(*_CHANGE, example=examples.PAUSE_RESULT),
)
async def pause_group(parts: RunningDep, user: UserDep, body: PauseRequest) -> PauseResult:
    """Pause a group in all its processes: after about a second, no process begins an entry, until the group is resumed.

    If the group is paused already, its pause does not change, and is the answer.
    """
    with refusals_as_problems():
        control = GroupControl(parts.redis, check_stream(parts, body.stream), body.group)
        paused = await control.pause(actor=user.name, reason=body.reason)
    return _result(body, paused, user)


@router.post(
    "/resume",
    summary="Resume a group",
    openapi_extra=needs("edit"),
    responses=answers(*_CHANGE, example=examples.PAUSE_RESULT),
)
async def resume_group(parts: RunningDep, user: UserDep, body: ResumeRequest) -> PauseResult:
    """End a group's pause: within about a second all its processes continue. The answer is the pause that ended."""
    with refusals_as_problems():
        control = GroupControl(parts.redis, check_stream(parts, body.stream), body.group)
        if (ended := await control.resume(actor=user.name, reason=body.reason)) is None:
            await Inspector(parts.redis).group(body.stream, body.group)  # raises if there is no such group
    return _result(body, ended, user)


def _result(body: _GroupRequest, pause: Pause | None, user: AdminUser) -> PauseResult:
    if pause is not None and not user.may("read"):  # it may be somebody else's
        pause = replace(pause, actor="", reason="")
    return PauseResult(stream=cleaned(body.stream), group=cleaned(body.group), pause=cleaned(pause))
