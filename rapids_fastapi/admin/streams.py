"""The application's streams over HTTP."""

from fastapi import APIRouter

from rapids.exceptions import StreamNotFoundError
from rapids.inspection import Inspector
from rapids_fastapi.admin import stream_schemas as schemas
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.documented import documented
from rapids_fastapi.admin.scope import streams_of

__all__ = ["router"]

_PROBLEMS = ("admin-closed", "unauthenticated", "forbidden", "invalid", "redis-unavailable", "not-running")

router: APIRouter = APIRouter(prefix="/api/streams", route_class=AdminRoute, dependencies=CREDENTIALS)


@router.get("", summary="List the application's streams", openapi_extra=needs("read"), responses=documented(*_PROBLEMS))
async def list_streams(parts: RunningDep) -> schemas.Streams:
    """The streams of this application's emitter and routers: how long, since when, how large."""
    inspector = Inspector(parts.redis)
    found = schemas.Streams(items=[], missing=[])
    for name in streams_of(parts):  # one after the other, so that a request takes one connection
        try:
            found.items.append(schemas.Stream.model_validate(await inspector.stream(name)))
        except StreamNotFoundError:
            found.missing.append(name)
    return found
