"""The application's streams over HTTP."""

from fastapi import APIRouter

from rapids.exceptions import StreamNotFoundError
from rapids.inspection import Inspector, StreamSnapshot
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.payload import cleaned
from rapids_fastapi.admin.problems import answers
from rapids_fastapi.admin.query import streams_of

__all__ = ["router"]

_PROBLEMS = ("admin-closed", "unauthenticated", "forbidden", "invalid", "redis-unavailable", "not-running")

router: APIRouter = APIRouter(prefix="/api/streams", route_class=AdminRoute, dependencies=CREDENTIALS)


class Streams(Answer):
    """The streams of this application's emitter and routers."""

    items: list[StreamSnapshot]
    missing: list[str]
    """Those that do not exist yet: nothing was emitted, no router started."""


@router.get(
    "",
    summary="List the application's streams",
    openapi_extra=needs("read"),
    responses=answers(*_PROBLEMS, example=examples.STREAMS),
)
async def list_streams(parts: RunningDep) -> Streams:
    """The streams of this application's emitter and routers: how long, since when, how large."""
    inspector = Inspector(parts.redis)
    items: list[StreamSnapshot] = []
    missing: list[str] = []
    for name in streams_of(parts):  # one after the other, so that a request takes one connection
        try:
            items.append(cleaned(await inspector.stream(name)))
        except StreamNotFoundError:
            missing.append(name)
    return Streams(items=items, missing=missing)
