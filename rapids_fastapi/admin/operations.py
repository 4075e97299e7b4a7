"""Operations over HTTP: many letters at once, with progress; started, watched, held and ended."""

from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse

from rapids import DeadLetterQueue, LetterFilter
from rapids.dead_letters import Operation, Selector
from rapids_fastapi.admin import operation_schemas as schemas
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.auth import AdminUser, Permission
from rapids_fastapi.admin.documented import BODY_NEEDED, NEXT_LINK, documented
from rapids_fastapi.admin.letters import summary_of
from rapids_fastapi.admin.operations_shown import operation_of
from rapids_fastapi.admin.paging import CursorQuery, LimitQuery, lead_on, path_of
from rapids_fastapi.admin.problems import Problem, understood
from rapids_fastapi.admin.progress import SEEN, EventStream, LastEventId, progress
from rapids_fastapi.admin.query import QueueDep
from rapids_fastapi.state import Running

__all__ = ["router"]

_DOOR = ("admin-closed", "unauthenticated", "forbidden", "dlq-needed", "dlq-not-found", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")
_LOOK = (*_DOOR, "operation-not-found", *_OUTAGE)
_CHANGE = (*_LOOK, "cross-origin", "not-json", "too-large", "operation-state")
_START = (*_DOOR, "cross-origin", "not-json", "too-large", "operation-running", *_OUTAGE)

MOST_KEPT = 100
"""Operations of a queue; older ones are forgotten."""

_PERMISSIONS: dict[str, Permission] = {"replay": "replay", "discard": "discard", "restore": "discard"}

router: APIRouter = APIRouter(prefix="/api/operations", route_class=AdminRoute, dependencies=CREDENTIALS)

OperationId = Annotated[
    str,
    Path(min_length=1, max_length=100, description="As starting it answered.", examples=["0a4dcf0e3f0f4f2b"]),
]


def _check(user: AdminUser, kind: str) -> None:
    """Raises `Problem` unless the user may do what such an operation does to each letter."""
    _need(user, _PERMISSIONS[kind])


def _need(user: AdminUser, permission: Permission) -> None:
    if not user.may(permission):
        raise Problem("forbidden", f"This needs the permission {permission!r}.", permission=permission)


async def _changeable(operation_id: OperationId, user: UserDep, queue: QueueDep) -> Operation:
    operation = await queue.operations.get(operation_id)
    _check(user, operation.kind)
    return operation


ChangeableDep = Annotated[Operation, Depends(_changeable)]
"""An operation that whoever asks may start, and so may change."""


@router.post(
    "",
    summary="Start an operation, or see what it would do",
    status_code=202,
    response_model=schemas.Operation,
    openapi_extra=needs("replay", "discard"),
    responses={
        202: {
            "description": "It was started",
            "headers": {"Location": {"description": "Where it is looked at.", "schema": {"type": "string"}}},
        },
        200: {"description": "A dry run: nothing was changed", "model": schemas.Preview},
        **documented(*_START),
    },
)
async def start_operation(
    request: Request,
    response: Response,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: schemas.OperationRequest,
) -> schemas.Operation | Response:
    """Replay, discard or restore all selected letters; one such operation of a queue and kind runs at a time.

    It is carried out by whichever process of the application takes it, and goes on when that one dies. With `dry_run`,
    the answer is what would be done; as it shows letters, that needs the permission `read` as well.
    """
    _check(user, body.kind)
    if body.dry_run:  # which shows letters
        _need(user, "read")
    with understood():
        selector = _selector(body.selector, parts)
        if body.dry_run:
            return await _previewed(queue, parts, body, selector)
        started = await queue.operations.start(
            body.kind,
            selector,
            scope=body.scope,
            rate=body.rate,
            max_items=body.max_items,
            actor=user.name,
            reason=body.reason,
        )
    response.headers["Location"] = _location(request, started, queue, parts)
    return operation_of(started, queue.stream, parts.redactor)


@router.get(
    "",
    summary="List operations",
    openapi_extra=needs("read"),
    responses={200: NEXT_LINK, **documented(*_DOOR, *_OUTAGE)},
)
async def list_operations(
    request: Request,
    response: Response,
    parts: RunningDep,
    queue: QueueDep,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> schemas.OperationPage:
    """The last 100 operations of a dead-letter queue, newest first, without their errors.

    `Link: rel="next"` and `next_cursor` lead on.
    """
    with understood():
        page = await queue.operations.list(cursor=cursor or None, limit=min(limit, MOST_KEPT))
    lead_on(request, response, page.cursor)
    items = [operation_of(operation, queue.stream, parts.redactor) for operation in page.items]
    return schemas.OperationPage(dlq=queue.stream, items=items, next_cursor=page.cursor)


@router.get(
    "/{operation_id}", summary="Look at an operation", openapi_extra=needs("read"), responses=documented(*_LOOK)
)
async def get_operation(operation_id: OperationId, parts: RunningDep, queue: QueueDep) -> schemas.Operation:
    """How far it is, and why letters could not be moved."""
    return operation_of(await queue.operations.get(operation_id), queue.stream, parts.redactor)


@router.get(
    "/{operation_id}/events",
    summary="Watch an operation",
    openapi_extra=needs("read"),
    response_class=EventStream,
    responses={200: EventStream.DOCUMENTED, 204: SEEN, **documented(*_LOOK)},
)
async def watch_operation(
    operation_id: OperationId,
    request: Request,
    parts: RunningDep,
    queue: QueueDep,
    last_event_id: LastEventId = None,
) -> Response:
    """Its progress as server-sent events: `progress` when something has changed, `ended` at the end.

    The stream ends then, or after 15 s; browsers connect again by themselves, and are told only what is new. 204 says
    that there is nothing more to come: they stop.
    """
    operation = await queue.operations.get(operation_id)
    return progress(queue.operations, operation, queue.stream, parts.redactor, last_event_id, request.scope["path"])


@router.post(
    "/{operation_id}/pause",
    summary="Pause an operation",
    openapi_extra={**needs("replay", "discard"), **BODY_NEEDED},
    responses=documented(*_CHANGE),
)
async def pause_operation(
    operation: ChangeableDep,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: schemas.OperationChangeRequest = schemas.OperationChangeRequest(),  # noqa: B008 - never changed
) -> schemas.Operation:
    """Hold it until it is resumed. It still counts as the one of its kind. 409 if it has ended."""
    changed = await queue.operations.pause(operation.id, actor=user.name, reason=body.reason)
    return operation_of(changed, queue.stream, parts.redactor)


@router.post(
    "/{operation_id}/resume",
    summary="Resume an operation",
    openapi_extra={**needs("replay", "discard"), **BODY_NEEDED},
    responses=documented(*_CHANGE),
)
async def resume_operation(
    operation: ChangeableDep,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: schemas.OperationChangeRequest = schemas.OperationChangeRequest(),  # noqa: B008
) -> schemas.Operation:
    """Let a paused one go on. 409 if it has ended."""
    changed = await queue.operations.resume(operation.id, actor=user.name, reason=body.reason)
    return operation_of(changed, queue.stream, parts.redactor)


@router.post(
    "/{operation_id}/cancel",
    summary="Cancel an operation",
    openapi_extra={**needs("replay", "discard"), **BODY_NEEDED},
    responses=documented(*_CHANGE),
)
async def cancel_operation(
    operation: ChangeableDep,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: schemas.OperationChangeRequest = schemas.OperationChangeRequest(),  # noqa: B008
) -> schemas.Operation:
    """End it where it is; what it moved stays moved. 409 if it has ended otherwise."""
    changed = await queue.operations.cancel(operation.id, actor=user.name, reason=body.reason)
    return operation_of(changed, queue.stream, parts.redactor)


async def _previewed(
    queue: DeadLetterQueue, parts: Running, body: schemas.OperationRequest, selector: Selector
) -> Response:
    preview = await queue.operations.preview(body.kind, selector, scope=body.scope, max_items=body.max_items)
    sample = await run_in_threadpool(lambda: [summary_of(letter, parts.redactor) for letter in preview.sample])
    shown = schemas.Preview(
        dlq=queue.stream,
        total=preview.total,
        total_exact=preview.total_exact,
        sample=sample,
        checked=preview.checked,
        unparseable=preview.unparseable,
    )
    return JSONResponse(shown.model_dump(mode="json"))


def _selector(asked: schemas.Selector, parts: Running) -> Selector:
    """Raises `ValueError` for no selector, and `Problem` for a text to search for that would tell what is hidden."""
    wanted = None
    if asked.filter is not None:
        if asked.filter.q and parts.redactor.names:
            raise Problem(
                "invalid", "q cannot select letters while anything is hidden: list by it, and give their ids."
            )
        wanted = LetterFilter(**asked.filter.model_dump())
    return Selector(ids=None if asked.ids is None else tuple(asked.ids), filter=wanted, fingerprint=asked.fingerprint)


def _location(request: Request, operation: Operation, queue: DeadLetterQueue, parts: Running) -> str:
    path = f"{quote(path_of(request))}/{quote(operation.id, safe='')}"
    return path if len(parts.queues) == 1 else f"{path}?{urlencode({'dlq': queue.stream})}"
