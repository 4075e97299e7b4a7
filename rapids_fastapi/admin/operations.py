"""Operations over HTTP: replays, discards and restores of many letters, with progress."""

from typing import Annotated, ClassVar
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from rapids import DeadLetterQueue, LetterFilter
from rapids.dead_letters import Canary, OperationKind, Scope
from rapids.dead_letters import Operation as CoreOperation
from rapids.dead_letters import Selector as CoreSelector
from rapids.redaction import Redactor
from rapids_fastapi.admin import examples, models
from rapids_fastapi.admin.access import BODY_NEEDED, CREDENTIALS, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.auth import AdminUser, Permission
from rapids_fastapi.admin.models import Answer, Reason, example
from rapids_fastapi.admin.pages import NEXT_LINK, CursorQuery, LimitQuery, link_next_page, path_of
from rapids_fastapi.admin.payload import filled
from rapids_fastapi.admin.problems import Problem, answers, redis_calls, refusals_as_problems
from rapids_fastapi.admin.progress import PROGRESS, SEEN, EventStream, LastEventId, event_id, events_of
from rapids_fastapi.admin.query import MAX_QUERY_TEXT, LetterReason, Moment, QueueDep
from rapids_fastapi.admin.redacted_letter import DeadLetterSummary, summary_of
from rapids_fastapi.admin.redacted_operation import Operation, detail_of, operation_of, without_content
from rapids_fastapi.state import Running

__all__ = ["router"]

MAX_IDS = 1_000
MAX_RATE = 1_000_000
MAX_ITEMS = 1_000_000_000
MAX_WAIT = 1_000_000
"""Seconds for which a canary waits for outcomes: more than a week."""
MAX_KEPT = 100
"""Operations that are kept for each queue; older ones are deleted."""

_ACCESS = ("admin-closed", "unauthenticated", "auth-unavailable", "forbidden", "dlq-needed", "dlq-not-found", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")
_READ = (*_ACCESS, "operation-not-found", *_OUTAGE)
_CHANGE = (*_READ, "cross-origin", "not-json", "too-large", "too-slow", "operation-state")
_START = (*_ACCESS, "cross-origin", "not-json", "too-large", "too-slow", "operation-running", "too-busy", *_OUTAGE)

_PERMISSIONS: dict[str, Permission] = {"replay": "replay", "discard": "discard", "restore": "discard"}

router: APIRouter = APIRouter(prefix="/api/operations", route_class=AdminRoute, dependencies=CREDENTIALS)

OperationId = Annotated[
    str,
    Path(
        min_length=1, max_length=100, description="The `id` in the answer to its start.", examples=["0a4dcf0e3f0f4f2b"]
    ),
]
QueryText = Annotated[str, Field(max_length=MAX_QUERY_TEXT)]
Fingerprint = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]


class Filter(models.Request):
    """Which letters, as in lists: all given fields must match."""

    model_config: ClassVar[ConfigDict] = example(event_type="order.*", handler="take_payment")

    event_type: QueryText | None = None
    """A type, or a pattern such as order.*"""
    handler: QueryText | None = None
    group: QueryText | None = None
    reason: LetterReason | None = None
    error_type: QueryText | None = None
    fingerprint: Fingerprint | None = None
    q: QueryText | None = None
    """Text in data, error or ids. Refused unless redaction is off, since the number of letters with a text would reveal
    hidden values. List letters by a text, and select them by `ids`."""
    since: Moment | None = None
    until: Moment | None = None


class Selector(models.Request):
    """Which letters: exactly one of the three fields. Letters that are written later are never selected."""

    model_config: ClassVar[ConfigDict] = example(filter={"event_type": "order.*", "handler": "take_payment"})

    ids: Annotated[list[QueryText], Field(min_length=1, max_length=MAX_IDS)] | None = None
    filter: Filter | None = None
    fingerprint: Fingerprint | None = None
    """The `fingerprint` of a cause."""

    def checked(self, redactor: Redactor, user: AdminUser) -> CoreSelector:
        """The selector that the core takes.

        Raises `ValueError` unless it is exactly one of the three, and `Problem` for a text to search that would reveal
        what is hidden.
        """
        wanted = None
        if self.filter is not None:
            if self.filter.q:  # the number of letters with a text says what is in them
                _need(user, "read")
            if self.filter.q and redactor.names:
                problem = "q cannot select letters while anything is hidden: list by it, and select by ids."
                raise Problem("invalid", problem)
            wanted = LetterFilter(**self.filter.model_dump())
        ids = None if self.ids is None else tuple(self.ids)
        return CoreSelector(ids=ids, filter=wanted, fingerprint=self.fingerprint)


class CanaryRequest(models.Request):
    """Replay 1 letter, then 5, 25, 125, 625, and then 3,125 at a time, and wait after each step for the outcomes."""

    model_config: ClassVar[ConfigDict] = example(share=0.1, wait=3600)

    share: float = Field(default=0.1, strict=True, ge=0, le=1)
    """If more than this share of a step fails again, the operation pauses."""
    wait: float = Field(default=3_600.0, strict=True, gt=0, le=MAX_WAIT)
    """Seconds to wait for outcomes after the last replay of a step. After that, the operation pauses."""


class OperationRequest(models.Request):
    """What to do to which letters."""

    model_config: ClassVar[ConfigDict] = example(
        kind="replay",
        selector={"fingerprint": "9f2c4b7d0a1e6f38"},
        rate=200,
        max_items=5000,
        dry_run=True,
        reason="the bank is back",
    )

    kind: OperationKind
    """`replay` needs the permission `replay`; `discard` and `restore` need `discard`."""
    selector: Selector
    scope: Scope = "handler"
    """For a replay: who gets the events, as for the replay of one letter."""
    rate: float | None = Field(default=None, strict=True, gt=0, le=MAX_RATE)
    """At most so many letters a second; by default, as fast as possible."""
    max_items: int | None = Field(default=None, strict=True, ge=1, le=MAX_ITEMS)
    """At most so many letters."""
    canary: CanaryRequest | None = None
    """For a replay with the scope `handler` or `group`: replay a few letters first."""
    dry_run: bool = Field(default=False, strict=True)
    """Change nothing, and answer what the operation would do."""
    reason: Reason = ""
    """Why; kept in the operation and in the audit log."""


class OperationChangeRequest(models.Request):
    """Why it is paused or cancelled."""

    model_config: ClassVar[ConfigDict] = example(reason="the bank is down again")

    reason: Reason = ""
    """Why; kept in the audit log."""


class OperationResumeRequest(models.Request):
    """Why it is resumed, and how."""

    model_config: ClassVar[ConfigDict] = example(canary=False, reason="the bank is back")

    canary: bool = Field(default=True, strict=True)
    """With false, its canary ends: what is left is replayed without waiting for outcomes."""
    reason: Reason = ""
    """Why; kept in the audit log."""


class OperationPage(Answer):
    """Operations, newest first. The last 100 of each queue are kept."""

    dlq: str
    items: list[Operation]
    next_cursor: str | None
    """For `cursor`, to get the next page; null on the last one."""


class Preview(Answer):
    """What an operation would do if it started now. Nothing was changed."""

    dlq: str
    total: int
    """How many letters it would process."""
    total_exact: bool
    sample: list[DeadLetterSummary]
    """The first of them, oldest first."""
    checked: int
    """How many of the first letters were parsed by the event classes of this process, as a check."""
    unparseable: int
    """How many of these could not be parsed."""
    steps: tuple[int, ...]
    """With a canary, the sizes of its first 20 steps."""


def _check(user: AdminUser, kind: str) -> None:
    """Raises `Problem` unless the user may do what an operation of this kind does to each letter."""
    _need(user, _PERMISSIONS[kind])


def _need(user: AdminUser, permission: Permission) -> None:
    if not user.may(permission):
        raise Problem("forbidden", f"This needs the permission {permission!r}.", permission=permission)


async def _answer(operation: CoreOperation, queue: DeadLetterQueue, parts: Running, user: AdminUser) -> Operation:
    if not user.may("read"):
        return without_content(operation_of(operation, queue.stream, parts.redactor))
    return await detail_of(operation, queue, parts.redactor)


async def changeable_of(operation_id: OperationId, user: UserDep, queue: QueueDep) -> CoreOperation:
    """The operation, if the user may start one of its kind. Raises `Problem`."""
    async with redis_calls():
        operation = await queue.operations.get(operation_id)
    _check(user, operation.kind)
    return operation


ChangeableDep = Annotated[CoreOperation, Depends(changeable_of)]
"""An operation that the user may change, because the user may start one of its kind."""


@router.post(
    "",
    summary="Start an operation, or preview it",
    status_code=202,
    response_model=Operation,
    openapi_extra=needs("replay", "discard", limited="searches"),
    responses={
        **answers(
            *_START,
            status=202,
            description="It was started",
            headers={"Location": "Where to read it."},
        ),
        200: {
            "description": "A dry run: nothing was changed",
            "model": Preview,
            "content": {"application/json": {"example": examples.PREVIEW}},
        },
    },
)
async def start_operation(
    request: Request,
    response: Response,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: OperationRequest,
) -> Operation | Response:
    """Replay, discard or restore all selected letters. Only one operation of each kind runs in a queue at a time.

    Any process of the application can run it. If that process dies, another one continues. With `dry_run`, nothing is
    changed, and the answer is a preview. It shows letters, so that it needs the permission `read`, too. Without that
    permission, the answers of this and of the next routes have no selector, reason, names or errors.
    """
    _check(user, body.kind)
    if body.dry_run:  # its answer shows letters
        _need(user, "read")
    with refusals_as_problems():
        selector = body.selector.checked(parts.redactor, user)
        canary = None if body.canary is None else Canary(share=body.canary.share, wait=body.canary.wait)
        if body.dry_run:
            preview = await queue.operations.preview(
                body.kind, selector, scope=body.scope, max_items=body.max_items, canary=canary
            )
            sample = await run_in_threadpool(lambda: [summary_of(letter, parts.redactor) for letter in preview.sample])
            answer = filled(Preview, preview, dlq=queue.stream, sample=sample)
            return JSONResponse(answer.model_dump(mode="json"))
        started = await queue.operations.start(
            body.kind,
            selector,
            scope=body.scope,
            rate=body.rate,
            max_items=body.max_items,
            canary=canary,
            actor=user.name,
            reason=body.reason,
        )
    path = f"{quote(path_of(request))}/{quote(started.id, safe='')}"
    is_default = parts.directory.named_queues == [queue.stream]
    response.headers["Location"] = path if is_default else f"{path}?{urlencode({'dlq': queue.stream})}"
    return await _answer(started, queue, parts, user)


@router.get(
    "",
    summary="List operations",
    openapi_extra=needs("read"),
    responses=answers(*_ACCESS, *_OUTAGE, example=examples.OPERATION_PAGE, headers=NEXT_LINK),
)
async def list_operations(
    request: Request,
    response: Response,
    parts: RunningDep,
    queue: QueueDep,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> OperationPage:
    """The last 100 operations of a dead-letter queue, newest first, without their errors.

    `Link: rel="next"` and `next_cursor` lead to the next page.
    """
    with refusals_as_problems():
        page = await queue.operations.list(cursor=cursor or None, limit=min(limit, MAX_KEPT))
    link_next_page(request, response, page.cursor)
    items = [operation_of(operation, queue.stream, parts.redactor) for operation in page.items]
    return OperationPage(dlq=queue.stream, items=items, next_cursor=page.cursor)


@router.get(
    "/{operation_id}",
    summary="Read an operation",
    openapi_extra=needs("read"),
    responses=answers(*_READ),
)
async def get_operation(operation_id: OperationId, parts: RunningDep, queue: QueueDep) -> Operation:
    """An operation with its progress and the letters that could not be moved."""
    return await detail_of(await queue.operations.get(operation_id), queue, parts.redactor)


@router.get(
    "/{operation_id}/events",
    summary="Watch an operation",
    openapi_extra=needs("read", limited="live"),
    response_class=EventStream,
    responses={**answers(*_READ, "too-busy"), 200: PROGRESS, 204: SEEN},
)
async def watch_operation(
    operation_id: OperationId,
    request: Request,
    parts: RunningDep,
    queue: QueueDep,
    last_event_id: LastEventId = None,
) -> Response:
    """The progress of an operation as server-sent events: `progress` after each change, `ended` at its end.

    The stream ends then, or after 15 s. Browsers reconnect by themselves, and get only what is new. If nothing more
    will come, the answer is 204, and browsers stop.
    """
    operation = await queue.operations.get(operation_id)
    if operation.is_ended and event_id(operation) == last_event_id:
        return Response(status_code=204)
    path = path_of(request)
    events = events_of(queue, operation, parts.redactor, seen=last_event_id, path=path)
    return EventStream(events, headers={"X-Accel-Buffering": "no"})


@router.post(
    "/{operation_id}/pause",
    summary="Pause an operation",
    openapi_extra={**needs("replay", "discard"), **BODY_NEEDED},
    responses=answers(*_CHANGE),
)
async def pause_operation(
    operation: ChangeableDep,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: OperationChangeRequest = OperationChangeRequest(),  # noqa: B008 - never changed
) -> Operation:
    """Stop an operation until it is resumed. No other one of its kind can start. 409 if it has ended."""
    changed = await queue.operations.pause(operation.id, actor=user.name, reason=body.reason)
    return await _answer(changed, queue, parts, user)


@router.post(
    "/{operation_id}/resume",
    summary="Resume an operation",
    openapi_extra={**needs("replay", "discard"), **BODY_NEEDED},
    responses=answers(*_CHANGE),
)
async def resume_operation(
    operation: ChangeableDep,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: OperationResumeRequest = OperationResumeRequest(),  # noqa: B008
) -> Operation:
    """Continue a paused operation. 409 if it has ended.

    If its canary has paused it, the next step has as many letters as the one that failed.
    """
    changed = await queue.operations.resume(operation.id, canary=body.canary, actor=user.name, reason=body.reason)
    return await _answer(changed, queue, parts, user)


@router.post(
    "/{operation_id}/cancel",
    summary="Cancel an operation",
    openapi_extra={**needs("replay", "discard"), **BODY_NEEDED},
    responses=answers(*_CHANGE),
)
async def cancel_operation(
    operation: ChangeableDep,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: OperationChangeRequest = OperationChangeRequest(),  # noqa: B008
) -> Operation:
    """End an operation now. Letters that it has moved stay moved. 409 if it has ended in another way."""
    changed = await queue.operations.cancel(operation.id, actor=user.name, reason=body.reason)
    return await _answer(changed, queue, parts, user)
