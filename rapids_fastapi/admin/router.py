"""All of the admin in one router, to be included in an application."""

from fastapi import APIRouter

from rapids_fastapi.admin import (
    audit,
    capabilities,
    causes,
    dead_letters,
    events,
    export,
    groups,
    health,
    operations,
    streams,
)

__all__ = ["rapids_admin"]

rapids_admin: APIRouter = APIRouter(
    prefix="/rapids", tags=["rapids"], generate_unique_id_function=lambda route: f"rapids_{route.name}"
)
"""`app.include_router(rapids_admin)`: the admin under `/rapids`. Closed until it is configured; see `Rapids`."""

# A fixed path comes before one with a parameter: /dead-letters/causes before /dead-letters/{letter_id}.
for _resource in (causes, export, dead_letters, operations, events, streams, groups, audit, capabilities, health):
    rapids_admin.include_router(_resource.router)
