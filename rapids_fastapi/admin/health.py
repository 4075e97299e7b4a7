"""Health for load balancers and orchestrators: one word, no details, no authentication."""

from fastapi import APIRouter

from rapids_fastapi.admin import service_schemas as schemas
from rapids_fastapi.admin.access import RunningDep
from rapids_fastapi.admin.documented import documented
from rapids_fastapi.admin.problems import Problem, ProblemRoute

__all__ = ["router"]

router: APIRouter = APIRouter(prefix="/health", route_class=ProblemRoute)


@router.get("/live", summary="Whether the process answers", responses=documented())
async def live() -> schemas.Health:
    """The process answers. It says nothing about Redis: restarting the process would not mend that."""
    return schemas.Health(status="ok")


@router.get("/ready", summary="Whether work gets done", responses=documented("not-ready", "not-running"))
async def ready(parts: RunningDep) -> schemas.Health:
    """Redis answers and every router gets its work done; else 503, and the log says why."""
    if not await parts.is_ready():
        raise Problem("not-ready", "A router does not get its work done, or Redis does not answer; the log says which.")
    return schemas.Health(status="ok")
