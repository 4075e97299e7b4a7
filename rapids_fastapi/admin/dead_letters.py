"""Dead letters over HTTP: find, read, replay, discard and restore them, one at a time."""

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter, DeadLetterQueue
from rapids_fastapi.admin import schemas
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.documented import BODY_NEEDED, NEXT_LINK, documented
from rapids_fastapi.admin.editing import replay_as, shown_diff
from rapids_fastapi.admin.event_schemas import LinkedDeadLetter
from rapids_fastapi.admin.letters import detail_of, summary_of
from rapids_fastapi.admin.paging import CursorQuery, LimitQuery, lead_on, path_of
from rapids_fastapi.admin.problems import Problem
from rapids_fastapi.admin.query import FilterDep, QueueDep
from rapids_fastapi.admin.searching import find
from rapids_fastapi.admin.traced import links_of
from rapids_fastapi.state import Running

__all__ = ["router"]

_DOOR = ("admin-closed", "unauthenticated", "forbidden", "dlq-needed", "dlq-not-found", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")
_CHANGE = (*_DOOR, "cross-origin", "not-json", "too-large", "letter-not-found", "letter-state", *_OUTAGE)
_REPLAY = (*_CHANGE, "letter-unreadable", "data-invalid")

router: APIRouter = APIRouter(prefix="/api/dead-letters", route_class=AdminRoute, dependencies=CREDENTIALS)


LetterId = Annotated[
    str, Path(min_length=1, max_length=200, description="As lists show it.", examples=["1763932000000-0"])
]


@router.get(
    "",
    summary="List dead letters",
    openapi_extra=needs("read"),
    responses={200: NEXT_LINK, **documented(*_DOOR, *_OUTAGE)},
)
async def list_dead_letters(
    request: Request,
    response: Response,
    parts: RunningDep,
    queue: QueueDep,
    wanted: FilterDep,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> schemas.DeadLetterPage:
    """Dead letters, newest first, a page at a time. `Link: rel="next"` and `next_cursor` lead on."""
    try:
        page = await find(queue, wanted, parts.redactor, cursor=cursor or None, limit=limit)
    except ValueError as error:
        raise Problem("invalid", str(error)) from error
    lead_on(request, response, page.cursor)
    return schemas.DeadLetterPage(
        dlq=queue.stream,
        items=await run_in_threadpool(lambda: [summary_of(letter, parts.redactor) for letter in page.items]),
        next_cursor=page.cursor,
        total=page.total,
        total_exact=page.total_exact,
        scanned=page.scanned,
    )


@router.get(
    "/{letter_id}",
    summary="Look at a dead letter",
    openapi_extra=needs("read"),
    responses=documented(*_DOOR, "letter-not-found", *_OUTAGE),
)
async def get_dead_letter(
    request: Request, letter_id: LetterId, parts: RunningDep, queue: QueueDep
) -> LinkedDeadLetter:
    """One dead letter with payload, error, traceback and history; replayed and discarded ones until retention ends.

    `links` leads to what else has its correlation id: the causation tree, and the other letters among the newest 2,000.
    """
    letter = await queue.get(letter_id)
    base, _, _ = path_of(request).rpartition("/dead-letters/")
    links = await links_of(parts, letter, queue.stream, base)
    return LinkedDeadLetter(**dict(await _shown(letter, queue, parts)), links=links)


@router.post(
    "/{letter_id}/replay",
    summary="Replay a dead letter",
    openapi_extra={**needs("replay"), **BODY_NEEDED},
    responses=documented(*_REPLAY),
)
async def replay_dead_letter(
    letter_id: LetterId,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: schemas.ReplayRequest = schemas.ReplayRequest(),  # noqa: B008 - never changed
) -> schemas.ReplayResult:
    """Send the event back, exactly as stored, or with other `data`. 409 unless the letter is dead.

    Other data need the permission `edit` as well. They replace all of the event's own fields; what is left as it was
    shown, `[redacted]`, keeps what is stored. The event's class validates them before anything is sent: 422 with a
    pointer into `data` for everything that is wrong. The event's id and the other common fields cannot be changed.
    """
    replay = await replay_as(body, letter_id, queue, user, parts.redactor)
    return schemas.ReplayResult(
        letter_id=replay.letter_id,
        scope=body.scope,
        stream=replay.stream,
        entry_id=replay.entry_id,
        diff=shown_diff(replay.diff, parts.redactor),
    )


@router.delete(
    "/{letter_id}",
    summary="Discard a dead letter",
    openapi_extra=needs("discard"),
    responses=documented(*_CHANGE, "letter-unreadable"),
)
async def discard_dead_letter(
    letter_id: LetterId,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: schemas.DiscardRequest = schemas.DiscardRequest(),  # noqa: B008
) -> schemas.DeadLetter:
    """Put the letter away; it can be restored until retention ends. 409 unless the letter is dead."""
    letter = await queue.discard(letter_id, actor=user.name, reason=body.reason)
    return await _shown(letter, queue, parts)


@router.post(
    "/{letter_id}/restore",
    summary="Restore a discarded dead letter",
    openapi_extra={**needs("discard"), **BODY_NEEDED},
    responses=documented(*_CHANGE),
)
async def restore_dead_letter(
    letter_id: LetterId,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: schemas.RestoreRequest = schemas.RestoreRequest(),  # noqa: B008
) -> schemas.DeadLetter:
    """Bring a discarded letter back. 409 unless the letter is discarded."""
    letter = await queue.restore(letter_id, actor=user.name, reason=body.reason)
    return await _shown(letter, queue, parts)


async def _shown(letter: DeadLetter, queue: DeadLetterQueue, parts: Running) -> schemas.DeadLetter:
    # In a thread, since megabytes of JSON take their time.
    return await run_in_threadpool(detail_of, letter, queue.stream, parts.redactor)
