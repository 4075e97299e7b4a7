"""What the admin can do, for those who build on it."""

import importlib.metadata
from typing import get_args

from fastapi import APIRouter

from rapids_fastapi.admin import service_schemas as schemas
from rapids_fastapi.admin.access import CREDENTIALS, MAX_BODY, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.documented import documented
from rapids_fastapi.admin.paging import MAX_PAGE
from rapids_fastapi.admin.schemas import Scope
from rapids_fastapi.admin.scope import streams_of
from rapids_fastapi.state import Running

__all__ = ["router"]

router: APIRouter = APIRouter(prefix="/api/capabilities", route_class=AdminRoute, dependencies=CREDENTIALS)


@router.get(
    "",
    summary="What this admin can do",
    openapi_extra=needs("read"),
    responses=documented("admin-closed", "unauthenticated", "forbidden", "invalid", "not-running"),
)
async def get_capabilities(parts: RunningDep, user: UserDep) -> schemas.Capabilities:
    """What this admin can do, and what you may."""
    return schemas.Capabilities(
        version=_version(),
        user=schemas.User(name=user.name, permissions=sorted(user.permissions)),
        dead_letter_queues=[schemas.Queue(name=name, groups=_groups(parts, name)) for name in sorted(parts.queues)],
        streams=streams_of(parts),
        replay_scopes=list(get_args(Scope)),
        max_page=MAX_PAGE,
        max_body=MAX_BODY,
    )


def _groups(parts: Running, queue: str) -> list[str]:
    return sorted({running.router.group for running in parts.routers if running.router.dlq_stream == queue})


def _version() -> str:
    try:
        return importlib.metadata.version("rapids-fastapi")
    except importlib.metadata.PackageNotFoundError:  # run from its source, not installed
        return "unknown"
