"""All of the admin in one router, to be included in an application."""

from fastapi import APIRouter

from rapids_fastapi.admin import (
    audit,
    capabilities,
    dead_letters,
    events,
    export,
    groups,
    health,
    letter_groups,
    operations,
    streams,
)

__all__ = ["rapids_admin"]

rapids_admin: APIRouter = APIRouter(prefix="/rapids", tags=["rapids"])
"""`app.include_router(rapids_admin)`: the admin under `/rapids`. Closed until it is configured; see `Rapids`."""

# What has a fixed name comes before what takes any: /dead-letters/groups before /dead-letters/{letter_id}.
for _resource in (
    letter_groups,
    export,
    dead_letters,
    operations,
    events,
    streams,
    groups,
    audit,
    capabilities,
    health,
):
    rapids_admin.include_router(_resource.router)
