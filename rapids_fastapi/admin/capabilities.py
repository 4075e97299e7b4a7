"""What the admin can do, for tools that are built on it."""

import importlib.metadata
from typing import get_args

from fastapi import APIRouter

from rapids.dead_letters import Scope
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.access import CREDENTIALS, MAX_BODY, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.auth import Permission
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.pages import MAX_PAGE
from rapids_fastapi.admin.problems import answers
from rapids_fastapi.admin.query import streams_of

__all__ = ["router"]

router: APIRouter = APIRouter(prefix="/api/capabilities", route_class=AdminRoute, dependencies=CREDENTIALS)


class User(Answer):
    """The user of this request."""

    name: str
    permissions: list[Permission]


class Queue(Answer):
    """A dead-letter queue, and the groups of this process that write to it."""

    name: str
    groups: list[str]


class Capabilities(Answer):
    """What this admin can do, and what the user of this request may do."""

    version: str
    user: User
    dead_letter_queues: list[Queue]
    streams: list[str]
    replay_scopes: list[Scope]
    max_page: int
    max_body: int
    """Bytes of a request's body."""


@router.get(
    "",
    summary="What this admin can do",
    openapi_extra=needs("read"),
    responses=answers(
        *("admin-closed", "unauthenticated", "forbidden", "invalid", "not-running"), example=examples.CAPABILITIES
    ),
)
async def get_capabilities(parts: RunningDep, user: UserDep) -> Capabilities:
    """What this admin can do, and what you may do."""
    routers = [running.router for running in parts.routers]
    try:
        version = importlib.metadata.version("rapids-fastapi")
    except importlib.metadata.PackageNotFoundError:  # run from its source, not installed
        version = "unknown"
    return Capabilities(
        version=version,
        user=User(name=user.name, permissions=sorted(user.permissions)),
        dead_letter_queues=[
            Queue(name=name, groups=sorted({router.group for router in routers if router.dlq_stream == name}))
            for name in sorted(parts.queues)
        ],
        streams=streams_of(parts),
        replay_scopes=list(get_args(Scope)),
        max_page=MAX_PAGE,
        max_body=MAX_BODY,
    )
