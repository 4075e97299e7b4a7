"""Causes of dead letters over HTTP: counts, and the state of the queue and its index."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict

from rapids import DeadLetterQueue
from rapids.dead_letters import Cause
from rapids.dead_letters import QueueStats as CoreQueueStats
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.access import BODY_NEEDED, CREDENTIALS, AdminRoute, UserDep, needs
from rapids_fastapi.admin.models import Answer, Reason, example
from rapids_fastapi.admin.models import Request as Body
from rapids_fastapi.admin.pages import NEXT_LINK, CursorQuery, LimitQuery, link_next_page
from rapids_fastapi.admin.payload import cleaned
from rapids_fastapi.admin.problems import answers, refusals_as_problems
from rapids_fastapi.admin.query import CauseFilterDep, QueueDep

__all__ = ["router"]

_ACCESS = ("admin-closed", "unauthenticated", "auth-unavailable", "forbidden", "dlq-needed", "dlq-not-found", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")
_CHANGE = (*_ACCESS, "cross-origin", "not-json", "too-large", "too-slow", *_OUTAGE)

router: APIRouter = APIRouter(prefix="/api/dead-letters", route_class=AdminRoute, dependencies=CREDENTIALS)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStats(CoreQueueStats):
    """The state of a dead-letter queue."""

    dlq: str


class CausePage(Answer):
    """Causes of dead letters, the largest first."""

    dlq: str
    items: tuple[Cause, ...]
    next_cursor: str | None
    """For `cursor`, to get the next page; null on the last one."""
    total: int
    """How many causes match, on all pages."""
    letters: int
    """How many letters these have."""
    stats: QueueStats


class ReindexRequest(Body):
    """Why the index is rebuilt."""

    model_config: ClassVar[ConfigDict] = example(reason="deleted letters by hand")

    reason: Reason = ""
    """Why; kept in the audit log."""


@router.get(
    "/causes",
    summary="Count dead letters by cause",
    openapi_extra=needs("read"),
    responses=answers(*_ACCESS, *_OUTAGE, example=examples.CAUSE_PAGE, headers=NEXT_LINK),
)
async def list_causes(
    request: Request,
    response: Response,
    queue: QueueDep,
    wanted: CauseFilterDep,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> CausePage:
    """Dead letters by group, handler, event type, reason, error type and position of the error, the largest first.

    The counts come from an index, which is updated when letters are written and moved: no letters are read.
    `Link: rel="next"` and `next_cursor` lead to the next page.
    """
    with refusals_as_problems():
        found = await queue.causes(wanted, cursor=cursor or None, limit=limit)
    link_next_page(request, response, found.cursor)
    return CausePage(
        dlq=queue.stream,
        items=cleaned(found.items),
        next_cursor=found.cursor,
        total=found.total,
        letters=found.letters,
        stats=_stats(queue, found.stats),
    )


@router.get(
    "/stats",
    summary="Count the letters of a dead-letter queue",
    openapi_extra=needs("read"),
    responses=answers(*_ACCESS, *_OUTAGE, example=examples.QUEUE_STATS),
)
async def get_queue_stats(queue: QueueDep) -> QueueStats:
    """How many letters there are, how many there may be, and how many were trimmed before a replay or discard."""
    return _stats(queue, await queue.stats())


@router.post(
    "/reindex",
    summary="Rebuild the index of a dead-letter queue",
    openapi_extra={**needs("edit"), **BODY_NEEDED},
    responses=answers(*_CHANGE, example=examples.QUEUE_STATS),
)
async def reindex_dead_letters(
    user: UserDep,
    queue: QueueDep,
    body: ReindexRequest = ReindexRequest(),  # noqa: B008 - never changed
) -> QueueStats:
    """Delete the index and start to rebuild it. Use it if counts are wrong after letters were deleted by hand.

    The answer says how many letters are not indexed yet. Each request for causes or counts indexes more of them.
    """
    return _stats(queue, await queue.reindex(actor=user.name, reason=body.reason))


def _stats(queue: DeadLetterQueue, stats: CoreQueueStats) -> QueueStats:
    return QueueStats(**asdict(stats), dlq=queue.stream)
