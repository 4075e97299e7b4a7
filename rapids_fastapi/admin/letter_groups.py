"""Dead letters over HTTP by what they have in common: counts, and how the queue and its index stand."""

from dataclasses import asdict

from fastapi import APIRouter, Request, Response

from rapids import DeadLetterQueue
from rapids.dead_letters import QueueStanding
from rapids_fastapi.admin import letter_group_schemas as schemas
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, UserDep, needs
from rapids_fastapi.admin.documented import BODY_NEEDED, NEXT_LINK, documented
from rapids_fastapi.admin.paging import CursorQuery, LimitQuery, lead_on
from rapids_fastapi.admin.problems import understood
from rapids_fastapi.admin.query import KindDep, QueueDep

__all__ = ["router"]

_DOOR = ("admin-closed", "unauthenticated", "forbidden", "dlq-needed", "dlq-not-found", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")


router: APIRouter = APIRouter(prefix="/api/dead-letters", route_class=AdminRoute, dependencies=CREDENTIALS)


@router.get(
    "/groups",
    summary="Count dead letters by cause",
    openapi_extra=needs("read"),
    responses={200: NEXT_LINK, **documented(*_DOOR, *_OUTAGE)},
)
async def list_letter_groups(
    request: Request,
    response: Response,
    queue: QueueDep,
    wanted: KindDep,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> schemas.LetterGroupPage:
    """Dead letters by group, handler, event type, reason, error type and position of the error, the largest first.

    Counted by an index that is kept as letters are written and moved, so this costs no look at the letters.
    `Link: rel="next"` and `next_cursor` lead on.
    """
    with understood():
        found = await queue.groups(wanted, cursor=cursor or None, limit=limit)
    lead_on(request, response, found.cursor)
    return schemas.LetterGroupPage(
        dlq=queue.stream,
        items=[schemas.LetterGroup.model_validate(group) for group in found.items],
        next_cursor=found.cursor,
        total=found.total,
        letters=found.letters,
        standing=_standing(queue, found.standing),
    )


@router.get(
    "/standing",
    summary="How a dead-letter queue stands",
    openapi_extra=needs("read"),
    responses=documented(*_DOOR, *_OUTAGE),
)
async def get_standing(queue: QueueDep) -> schemas.QueueStanding:
    """How many letters there are, how many there may be, and how many were ever cut away unattended."""
    return _standing(queue, await queue.standing())


@router.post(
    "/reindex",
    summary="Make the index of a dead-letter queue anew",
    openapi_extra={**needs("edit"), **BODY_NEEDED},
    responses=documented(*_DOOR, "cross-origin", "not-json", "too-large", *_OUTAGE),
)
async def reindex(
    user: UserDep,
    queue: QueueDep,
    body: schemas.ReindexRequest = schemas.ReindexRequest(),  # noqa: B008 - never changed
) -> schemas.QueueStanding:
    """Forget the index, and begin to make it anew: for counts that are off after somebody deleted letters by hand.

    The answer says how many letters are not counted in yet; each look, such as this queue's standing, counts some in.
    """
    return _standing(queue, await queue.reindex(actor=user.name, reason=body.reason))


def _standing(queue: DeadLetterQueue, standing: QueueStanding) -> schemas.QueueStanding:
    return schemas.QueueStanding(dlq=queue.stream, **asdict(standing))
