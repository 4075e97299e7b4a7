"""Health for load balancers and orchestrators: one word, no details, no authentication."""

from typing import Literal

from fastapi import APIRouter

from rapids_fastapi.admin import examples
from rapids_fastapi.admin.access import RunningDep
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.problems import Problem, ProblemRoute, answers

__all__ = ["router"]

router: APIRouter = APIRouter(prefix="/health", route_class=ProblemRoute)


class Health(Answer):
    """One word."""

    status: Literal["ok"] = "ok"


@router.get("/live", summary="Whether the process answers", responses=answers(example=examples.HEALTH))
async def live() -> Health:
    """The process answers. This does not depend on Redis: a restart of the process would not fix Redis."""
    return Health()


@router.get(
    "/ready",
    summary="Whether work gets done",
    responses=answers("not-ready", "not-running", example=examples.HEALTH),
)
async def ready(parts: RunningDep) -> Health:
    """Redis answers and every router gets its work done; if not, 503, and the log says why."""
    if not await parts.is_ready():
        raise Problem("not-ready", "A router does not get its work done, or Redis is unavailable; the log says which.")
    return Health()
