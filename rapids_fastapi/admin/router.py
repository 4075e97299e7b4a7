"""All of the admin in one router, to be included in an application."""

from fastapi import APIRouter

from rapids_fastapi.admin import capabilities, dead_letters, groups, health, streams

__all__ = ["rapids_admin"]

rapids_admin = APIRouter(prefix="/rapids", tags=["rapids"])
"""`app.include_router(rapids_admin)`: the admin under `/rapids`. Closed until it is configured; see `Rapids`."""

for resource in (dead_letters, streams, groups, capabilities, health):
    rapids_admin.include_router(resource.router)
