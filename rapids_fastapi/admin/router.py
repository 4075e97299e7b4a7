"""The whole admin in one router, with the routes about the application: audit, capabilities, health, streams."""

import importlib.metadata
from dataclasses import replace
from typing import Literal, get_args

from fastapi import APIRouter, HTTPException, Request, Response
from redis.exceptions import NoPermissionError, ResponseError

from rapids.audit import LoggedChange, merged_page
from rapids.dead_letters import Scope
from rapids.exceptions import StreamNotFoundError
from rapids.inspection import Inspector, StreamSnapshot
from rapids_fastapi.admin import (
    archive,
    browser_session,
    causes,
    contracts,
    dead_letters,
    entries,
    events,
    examples,
    export,
    groups,
    live_updates,
    operations,
    overview,
)
from rapids_fastapi.admin.access import CREDENTIALS, MAX_BODY, AdminRoute, RunningDep, UserDep, needs
from rapids_fastapi.admin.auth import Permission
from rapids_fastapi.admin.dashboard import add_dashboard
from rapids_fastapi.admin.models import Answer
from rapids_fastapi.admin.pages import MAX_PAGE, NEXT_LINK, CursorQuery, LimitQuery, link_next_page
from rapids_fastapi.admin.payload import cleaned
from rapids_fastapi.admin.problems import Problem, ProblemRoute, answers, refusals_as_problems
from rapids_fastapi.admin.query import AuditedStream, AuditFilterDep
from rapids_fastapi.admin.redacted_operation import without_query
from rapids_fastapi.state import running

__all__ = ["health_routes", "rapids_admin"]

_ACCESS = ("admin-closed", "unauthenticated", "auth-unavailable", "forbidden", "invalid")
_OUTAGE = ("redis-unavailable", "not-running")

rapids_admin: APIRouter = APIRouter(
    prefix="/rapids", tags=["rapids"], generate_unique_id_function=lambda route: f"rapids_{route.name}"
)
"""`app.include_router(rapids_admin)` adds the admin under `/rapids`. Nobody may use it before it is configured: see
`Rapids`."""

application_routes: APIRouter = APIRouter(prefix="/api", route_class=AdminRoute, dependencies=CREDENTIALS)
health_routes: APIRouter = APIRouter(prefix="/health", route_class=ProblemRoute)


# --- streams --------------------------------------------------------------------------------------------------------


class Streams(Answer):
    """Streams of this application, and those that it watches."""

    items: list[StreamSnapshot]
    missing: list[str]
    """Streams that do not exist yet, or that cannot be read."""


@application_routes.get(
    "/streams",
    summary="List the application's streams",
    openapi_extra=needs("read"),
    responses=answers(*_ACCESS, *_OUTAGE, example=examples.STREAMS),
)
async def list_streams(parts: RunningDep) -> Streams:
    """The streams of this application, and those that it watches, with their length, age and size."""
    inspector = Inspector(parts.redis)
    items: list[StreamSnapshot] = []
    missing: list[str] = []
    for name in parts.directory.streams:  # one after another, so that a request needs only one connection
        try:
            items.append(cleaned(await inspector.stream(name)))
        except StreamNotFoundError:
            missing.append(name)
        except ResponseError as error:  # one of many names must not hide the others
            if not isinstance(error, NoPermissionError) and "WRONGTYPE" not in str(error):
                raise
            missing.append(name)
    return Streams(items=items, missing=missing)


# --- audit ----------------------------------------------------------------------------------------------------------


class AuditPage(Answer):
    """Changes, newest first."""

    items: tuple[LoggedChange, ...]
    next_cursor: str | None
    """For `cursor`, to get the next page; null on the last one."""


@application_routes.get(
    "/audit",
    summary="Who did what, when and why",
    openapi_extra=needs("read", limited="searches"),
    responses=answers(
        *_ACCESS, "stream-not-found", "too-busy", *_OUTAGE, example=examples.AUDIT_PAGE, headers=NEXT_LINK
    ),
)
async def list_audit(
    request: Request,
    response: Response,
    parts: RunningDep,
    wanted: AuditFilterDep,
    stream: AuditedStream = None,
    cursor: CursorQuery = None,
    limit: LimitQuery = 50,
) -> AuditPage:
    """Changes of dead letters, operations and groups of this application, newest first.

    The text of a search is not shown while anything is hidden: it may be a hidden value itself.

    About 10,000 entries are kept for each dead-letter queue and stream, until 90 days after the last one. On one Redis
    server, they are in the order of time. On several, the order is as good as their clocks agree. `Link: rel="next"`
    and `next_cursor` lead to the next page. With a filter, a page can be short or empty although there is a next page.
    """
    streams = {*parts.queues, *parts.directory.streams}
    if stream is not None and stream not in streams:
        raise Problem("stream-not-found", "There is no such stream or dead-letter queue here.", allowed=sorted(streams))
    streams = streams if stream is None else {stream}
    with refusals_as_problems():
        page = await merged_page(parts.redis, streams, filter=wanted, cursor=cursor or None, limit=limit)
    link_next_page(request, response, page.cursor)
    items = tuple(replace(one, details=without_query(one.details, parts.redactor)) for one in page.items)
    return AuditPage(items=cleaned(items), next_cursor=page.cursor)


# --- capabilities ---------------------------------------------------------------------------------------------------


class User(Answer):
    """The user of this request."""

    name: str
    permissions: list[Permission]


class Queue(Answer):
    """A dead-letter queue, and the groups that write to it."""

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


@application_routes.get(
    "/capabilities",
    summary="What this admin can do",
    openapi_extra=needs(),  # who lacks a permission learns it here
    responses=answers(*_ACCESS, "not-running", example=examples.CAPABILITIES),
)
async def get_capabilities(parts: RunningDep, user: UserDep) -> Capabilities:
    """What this admin can do, and what you may do. Needs no permission. Who has none, or only `metrics`, gets no names
    of queues, groups and streams."""
    routers = [running.router for running in parts.routers]
    may_see_names = any(user.may(permission) for permission in get_args(Permission) if permission != "metrics")
    try:
        version = importlib.metadata.version("rapids-fastapi")
    except importlib.metadata.PackageNotFoundError:  # run from its source, not installed
        version = "unknown"
    return Capabilities(
        version=version,
        user=User(name=user.name, permissions=sorted(user.permissions)),
        dead_letter_queues=[
            Queue(
                name=name,
                groups=cleaned(
                    sorted(
                        parts.directory.groups(name) | {router.group for router in routers if router.dlq_stream == name}
                    )
                ),
            )
            for name in (sorted(parts.queues) if may_see_names else ())
        ],
        streams=list(parts.directory.streams) if may_see_names else [],
        replay_scopes=list(get_args(Scope)),
        max_page=MAX_PAGE,
        max_body=MAX_BODY,
    )


# --- metrics ---------------------------------------------------------------------------------------------------------


class MetricsRoute(AdminRoute):
    """A route for users with the permission that it needs, unless metrics are for anyone."""

    async def admit(self, request: Request) -> Request:
        """Check that metrics are on, and then the user, unless nobody needs to be known: who has forgotten the option
        is not asked for a login first. Raises `Problem`, or `HTTPException` 404."""
        parts = running(request)
        if parts.metrics is None:
            raise HTTPException(404, "Metrics are off. Give Rapids(metrics='permission'), or 'anyone' without a login.")
        return request if parts.metrics_for_anyone else await super().admit(request)


metrics_routes: APIRouter = APIRouter(route_class=MetricsRoute)


@metrics_routes.get("/metrics", include_in_schema=False, openapi_extra=needs("metrics"))  # for Prometheus, no client
async def get_metrics(request: Request, parts: RunningDep) -> Response:
    """Counters and times of this process, and figures of its groups, as text or, if `Accept` asks for it, as
    OpenMetrics. `Rapids(metrics=...)` turns them on."""
    assert parts.metrics is not None  # noqa: S101 - the route has checked it
    scrape = await parts.metrics.scrape(", ".join(request.headers.getlist("accept")))
    return Response(scrape.body, headers={"Content-Type": scrape.content_type})


# --- health ---------------------------------------------------------------------------------------------------------


class Health(Answer):
    """Health for load balancers and orchestrators: one word, without details and authentication."""

    status: Literal["ok"] = "ok"


@health_routes.head("/live", include_in_schema=False)
@health_routes.get("/live", summary="Whether the process answers", responses=answers(example=examples.HEALTH))
async def live() -> Health:
    """The process answers. This does not depend on Redis, since a restart of the process does not repair Redis."""
    return Health()


@health_routes.head("/ready", include_in_schema=False)
@health_routes.get(
    "/ready",
    summary="Whether work gets done",
    responses=answers("not-ready", "not-running", example=examples.HEALTH),
)
async def ready(parts: RunningDep) -> Health:
    """Redis answers, and every router is healthy. If not: 503, and the log says why."""
    if not await parts.is_ready():
        raise Problem("not-ready", "A router does not get its work done, or Redis is unavailable; the log says which.")
    return Health()


# --- all of it ------------------------------------------------------------------------------------------------------

# A fixed path comes before one with a parameter: /dead-letters/causes before /dead-letters/{letter_id}.
for _resource in (
    overview,
    live_updates,
    archive,
    causes,
    export,
    dead_letters,
    operations,
    events,
    entries,
    groups,
    contracts,
    browser_session,
):
    rapids_admin.include_router(_resource.router)
rapids_admin.include_router(application_routes)
rapids_admin.include_router(metrics_routes)
rapids_admin.include_router(health_routes)
add_dashboard(rapids_admin)
