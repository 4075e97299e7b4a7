"""Dead letters over HTTP: find, read, replay, discard and restore them, one at a time."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter, DeadLetterQueue, LetterFilter
from rapids_fastapi.admin import schemas
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.letters import detail_of, summary_of
from rapids_fastapi.admin.paging import CursorQuery, LimitQuery, Listing, lead_on
from rapids_fastapi.admin.problems import Problem, documented
from rapids_fastapi.admin.searching import find
from rapids_fastapi.running import Running

__all__ = ["router"]

_DOOR = ("admin-closed", "unauthenticated", "forbidden", "dlq-needed", "dlq-not-found", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")
_CHANGE = (*_DOOR, "cross-origin", "not-json", "too-large", "letter-not-found", "letter-state", *_OUTAGE)
_REPLAY = (*_CHANGE, "letter-unreadable")

router = APIRouter(prefix="/api/dead-letters", route_class=AdminRoute, dependencies=CREDENTIALS)

_LETTERS = Listing("letters")

Text = Annotated[str | None, Query(max_length=200)]
Moment = Annotated[datetime | None, Query(description="ISO 8601; without a time zone it is UTC.")]
LetterId = Annotated[str, Path(min_length=1, max_length=200)]


async def _queue(
    parts: RunningDep,
    dlq: Annotated[
        str | None, Query(max_length=512, description="The dead-letter queue, needed where there are several.")
    ] = None,
) -> DeadLetterQueue:
    names = sorted(parts.queues)
    if dlq is None and len(names) > 1:
        raise Problem("dlq-needed", "Say which one: ?dlq=", allowed=names)
    found = parts.queues.get(dlq if dlq is not None else next(iter(names), ""))
    if found is None:
        raise Problem("dlq-not-found", "No router of this application writes dead letters there.", allowed=names)
    return found


QueueDep = Annotated[DeadLetterQueue, Depends(_queue)]


async def _filter(
    event_type: Annotated[str | None, Query(max_length=200, description="A type, or a pattern such as order.*")] = None,
    handler: Text = None,
    group: Text = None,
    reason: Text = None,
    error_type: Text = None,
    q: Annotated[
        str | None, Query(max_length=200, description="Text in data (of 64 KiB at most), error or ids.")
    ] = None,
    since: Moment = None,
    until: Moment = None,
) -> LetterFilter:
    return LetterFilter(
        event_type=event_type or None,
        handler=handler,
        group=group or None,
        reason=reason or None,
        error_type=error_type or None,
        q=q or None,
        since=_in_utc(since),
        until=_in_utc(until),
    )


@router.get("", openapi_extra=needs("read"), responses=documented(*_DOOR, *_OUTAGE))
async def list_dead_letters(
    request: Request,
    response: Response,
    parts: RunningDep,
    queue: QueueDep,
    wanted: Annotated[LetterFilter, Depends(_filter)],
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> schemas.DeadLetterPage:
    """Dead letters, newest first, a page at a time. `Link: rel="next"` and `next_cursor` lead on."""
    try:
        page = await find(queue, wanted, parts.redactor, cursor=_LETTERS.place(cursor), limit=limit)
    except ValueError as error:
        raise Problem("invalid", str(error)) from error
    following = _LETTERS.cursor(page.cursor)
    lead_on(request, response, following)
    return schemas.DeadLetterPage(
        dlq=queue.stream,
        items=await run_in_threadpool(lambda: [summary_of(letter, parts.redactor) for letter in page.items]),
        next_cursor=following,
        total=page.total,
        total_exact=page.total_exact,
        scanned=page.scanned,
    )


@router.get("/{letter_id}", openapi_extra=needs("read"), responses=documented(*_DOOR, "letter-not-found", *_OUTAGE))
async def get_dead_letter(letter_id: LetterId, parts: RunningDep, queue: QueueDep) -> schemas.DeadLetter:
    """One dead letter with payload, error, traceback and history; replayed and discarded ones until retention ends."""
    return await _shown(await queue.get(letter_id), queue, parts)


@router.post("/{letter_id}/replay", openapi_extra=needs("replay"), responses=documented(*_REPLAY))
async def replay_dead_letter(
    letter_id: LetterId,
    user: UserDep,
    queue: QueueDep,
    body: schemas.ReplayRequest = schemas.ReplayRequest(),  # noqa: B008 - never changed
) -> schemas.ReplayResult:
    """Send the event back, exactly as stored. 409 unless the letter is dead."""
    replay = await queue.replay(letter_id, scope=body.scope, actor=user.name, reason=body.reason)
    return schemas.ReplayResult(
        letter_id=replay.letter_id, scope=body.scope, stream=replay.stream, entry_id=replay.entry_id
    )


@router.delete("/{letter_id}", openapi_extra=needs("discard"), responses=documented(*_CHANGE))
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


@router.post("/{letter_id}/restore", openapi_extra=needs("discard"), responses=documented(*_CHANGE))
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


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
