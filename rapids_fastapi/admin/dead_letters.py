"""Dead letters over HTTP: list, read, replay, discard and restore them, one at a time."""

from typing import Annotated, ClassVar

from fastapi import APIRouter, Path, Request, Response
from pydantic import ConfigDict
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter, DeadLetterQueue
from rapids.dead_letters import Replay
from rapids_fastapi.admin import examples, models
from rapids_fastapi.admin.access import BODY_NEEDED, CREDENTIALS, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.auth import AdminUser
from rapids_fastapi.admin.events import Links, links_of
from rapids_fastapi.admin.examples import Example
from rapids_fastapi.admin.letter_search import find
from rapids_fastapi.admin.models import Answer, Reason, example
from rapids_fastapi.admin.pages import NEXT_LINK, CursorQuery, LimitQuery, link_next_page, path_of
from rapids_fastapi.admin.problems import Problem, answers
from rapids_fastapi.admin.query import FilterDep, QueueDep
from rapids_fastapi.admin.redacted_letter import (
    DeadLetterDetail,
    DeadLetterSummary,
    MovedLetter,
    detail_of,
    summary_of,
)
from rapids_fastapi.admin.replay_request import EditCheck, EditRequest, ReplayRequest, edit_check, replayed
from rapids_fastapi.state import Running

__all__ = ["router"]

_ACCESS = ("admin-closed", "unauthenticated", "auth-unavailable", "forbidden", "dlq-needed", "dlq-not-found", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")
_BODY = ("cross-origin", "not-json", "too-large", "too-slow")
_CHANGE = (*_ACCESS, *_BODY, "letter-not-found", "letter-state", *_OUTAGE)
_CHECK = (*_ACCESS, *_BODY, "letter-not-found", "letter-unreadable", "too-busy", *_OUTAGE)

router: APIRouter = APIRouter(prefix="/api/dead-letters", route_class=AdminRoute, dependencies=CREDENTIALS)

_EDIT_CHECK: Example = {
    "accepted": True,
    "problems": [],
    "problem_count": 0,
    "diff": [{"pointer": "/total", "op": "replace", "before": "12,50", "after": 12.5, "cut": False}],
}

LetterId = Annotated[
    str, Path(min_length=1, max_length=200, description="As lists show it.", examples=["1763932000000-0"])
]


class DeadLetterPage(Answer):
    """Dead letters, newest first. A page can be short or empty although there is a next page."""

    dlq: str
    items: list[DeadLetterSummary]
    next_cursor: str | None
    """For `cursor`, to get the next page; null on the last one."""
    total: int
    """How many letters match. If it is not exact: how many letters match at most."""
    total_exact: bool
    """Whether `total` is exact. It is, without `q`, `since` and `until`, and on an only page."""
    scanned: int
    """How many letters were read for this page."""


class LinkedDeadLetter(DeadLetterDetail):
    """A dead letter with all details, and links to what else has its correlation id."""

    model_config: ClassVar[ConfigDict] = example(**examples.LINKED_DEAD_LETTER)

    links: Links


class _LetterRequest(models.Request):
    reason: Reason = ""
    """Why; kept in the letter's history."""


class DiscardRequest(_LetterRequest):
    """Why it is discarded."""

    model_config: ClassVar[ConfigDict] = example(reason="a test order")


class RestoreRequest(_LetterRequest):
    """Why it is restored."""

    model_config: ClassVar[ConfigDict] = example(reason="discarded by mistake")


@router.get(
    "",
    summary="List dead letters",
    openapi_extra=needs("read", limited="searches"),
    responses=answers(*_ACCESS, "too-busy", *_OUTAGE, example=examples.DEAD_LETTER_PAGE, headers=NEXT_LINK),
)
async def list_dead_letters(
    request: Request,
    response: Response,
    parts: RunningDep,
    queue: QueueDep,
    wanted: FilterDep,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> DeadLetterPage:
    """Dead letters, newest first, a page at a time. `Link: rel="next"` and `next_cursor` lead to the next page."""
    try:
        page = await find(queue, wanted, parts.redactor, cursor=cursor or None, limit=limit)
    except ValueError as error:
        raise Problem("invalid", str(error)) from error
    link_next_page(request, response, page.cursor)
    return DeadLetterPage(
        dlq=queue.stream,
        items=await run_in_threadpool(lambda: [summary_of(letter, parts.redactor) for letter in page.items]),
        next_cursor=page.cursor,
        total=page.total,
        total_exact=page.total_exact,
        scanned=page.scanned,
    )


@router.get(
    "/{letter_id}",
    summary="Read a dead letter",
    openapi_extra=needs("read", limited="searches"),
    responses=answers(*_ACCESS, "letter-not-found", "too-busy", *_OUTAGE),
)
async def get_dead_letter(
    request: Request, letter_id: LetterId, parts: RunningDep, queue: QueueDep
) -> LinkedDeadLetter:
    """One dead letter with payload, error, traceback and history. Replayed and discarded letters: until retention ends.

    `links` has the address of the causation tree, and other letters with the same correlation id, among the newest
    2,000.
    """
    letter = await queue.get(letter_id)
    base, _, _ = path_of(request).rpartition("/dead-letters/")
    links = await links_of(parts, letter, queue.stream, base)
    return LinkedDeadLetter(**dict(await _shown(letter, queue, parts)), links=links)


@router.post(
    "/{letter_id}/replay",
    summary="Replay a dead letter",
    openapi_extra={**needs("replay"), **BODY_NEEDED},
    responses=answers(*_CHANGE, "letter-unreadable", "data-invalid", example=examples.REPLAY),
)
async def replay_dead_letter(
    letter_id: LetterId,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: ReplayRequest = ReplayRequest(),  # noqa: B008 - never changed
) -> Replay:
    """Replay the event, as it is stored or with changed data. 409 unless the letter is dead.

    Changed data needs the permission `edit`, too. `patch` is a JSON Merge Patch (RFC 7396) of the event's own fields.
    Fields that it does not name keep their stored values, also hidden ones. `data` replaces all fields. It is refused
    if it has the mask `[redacted]` instead of a hidden value. The event's class validates the result before anything is
    sent: the answer to wrong data is 422, with a pointer into the data for each error. The event's id and the other
    common fields cannot be changed. Without the permission `read`, neither the differences nor the errors are shown.
    """
    return await replayed(body, letter_id, queue, user, parts.redactor)


@router.post(
    "/{letter_id}/check",
    summary="Check changed data of a dead letter",
    openapi_extra=needs("edit", limited="searches"),
    responses=answers(*_CHECK, example=_EDIT_CHECK),
)
async def check_dead_letter(
    letter_id: LetterId, parts: RunningDep, user: UserDep, queue: QueueDep, body: EditRequest
) -> EditCheck:
    """Whether the event's class accepts changed data, and where they differ from the letter's. Nothing is sent.

    `patch` and `data` are those of a replay, and they are checked in the same way.
    """
    return await edit_check(body, letter_id, queue, user, parts.redactor)


@router.delete(
    "/{letter_id}",
    summary="Discard a dead letter",
    openapi_extra=needs("discard"),
    responses=answers(*_CHANGE, "letter-unreadable"),
)
async def discard_dead_letter(
    letter_id: LetterId,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: DiscardRequest = DiscardRequest(),  # noqa: B008
) -> DeadLetterDetail | MovedLetter:
    """Discard the letter. It can be restored until retention ends. 409 unless the letter is dead.

    Without the permission `read`, the answer has only the letter's id and its state.
    """
    letter = await queue.discard(letter_id, actor=user.name, reason=body.reason)
    return await _moved(letter, queue, parts, user)


@router.post(
    "/{letter_id}/restore",
    summary="Restore a discarded dead letter",
    openapi_extra={**needs("discard"), **BODY_NEEDED},
    responses=answers(*_CHANGE),
)
async def restore_dead_letter(
    letter_id: LetterId,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    body: RestoreRequest = RestoreRequest(),  # noqa: B008
) -> DeadLetterDetail | MovedLetter:
    """Restore a discarded letter. 409 unless the letter is discarded.

    Without the permission `read`, the answer has only the letter's id and its state.
    """
    letter = await queue.restore(letter_id, actor=user.name, reason=body.reason)
    return await _moved(letter, queue, parts, user)


async def _shown(letter: DeadLetter, queue: DeadLetterQueue, parts: Running) -> DeadLetterDetail:
    # In a thread, since megabytes of JSON take long.
    return await run_in_threadpool(detail_of, letter, queue.stream, parts.redactor)


async def _moved(
    letter: DeadLetter, queue: DeadLetterQueue, parts: Running, user: AdminUser
) -> DeadLetterDetail | MovedLetter:
    if user.may("read"):
        return await _shown(letter, queue, parts)
    return MovedLetter(dlq=queue.stream, id=letter.id, state=letter.state)
