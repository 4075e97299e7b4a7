"""The parts of Rapids in a running application, and how a request finds them."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args
from weakref import WeakKeyDictionary

from starlette.requests import HTTPConnection

from rapids import BaseEvent, DeadLetterQueue, EventEmitter
from rapids.background import SupervisedRouter
from rapids.clients import RedisClient
from rapids.event_schemas import Schema
from rapids.exceptions import NotConfiguredError
from rapids.inspection import OverviewReader
from rapids.metrics import Metrics, check_installed
from rapids.readiness import Readiness
from rapids.redaction import Redactor
from rapids.sessions import Sessions
from rapids_fastapi.admin.auth import AdminAuth, AuthThreads
from rapids_fastapi.admin.changes import ChangesReader
from rapids_fastapi.admin.failed_logins import FailedLogins
from rapids_fastapi.admin.limits import InProgress
from rapids_fastapi.directory import Directory

__all__ = ["APP_STATE", "STATE_KEY", "Emitting", "MetricsAccess", "Running", "check_metrics", "running"]

STATE_KEY = "rapids"
"""Their name in the lifespan state: `request.state.rapids`."""

APP_STATE = "rapids_plugin"
"""Where an application keeps the Rapids that it runs, in `app.state`."""

MetricsAccess: TypeAlias = Literal["off", "permission", "anyone"]
"""Who may read `/rapids/metrics`: nobody, users with the permission `metrics`, or anyone."""

_logger = logging.getLogger("rapids")


class Emitting:
    """Emits in tasks of their own, for which perhaps no caller waits. At shutdown, the application waits for them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, emit: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run the emit in a task of its own. A failure is logged, and raised to a caller that awaits the task."""
        task = asyncio.create_task(emit, name="rapids-emit")
        self._tasks.add(task)
        task.add_done_callback(self._finish)
        return task

    def _finish(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("an emit failed after the end of its endpoint or handler: %s", error)

    async def finished(self) -> None:
        """Return when all of them have ended."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))


@dataclass(frozen=True, slots=True)
class Running:
    """The parts of one lifespan. They exist from its start to its end."""

    emitter: EventEmitter
    redis: RedisClient
    routers: tuple[SupervisedRouter, ...]
    directory: Directory
    """The streams and dead-letter queues that the admin shows."""
    admin_auth: AdminAuth | None
    """Who may use the admin. None: nobody."""
    redactor: Redactor
    readiness: Readiness
    in_progress: InProgress
    overview: OverviewReader
    sessions: Sessions
    """The sessions of browsers that have logged in."""
    has_dashboard: bool = True
    """Whether the admin has a page for browsers."""
    metrics: Metrics | None = None
    """What Prometheus reads. None: metrics are off."""
    metrics_for_anyone: bool = False
    """Whether metrics need no permission."""
    changes: ChangesReader = field(default_factory=ChangesReader)
    """What live updates are made of."""
    schemas: WeakKeyDictionary[type[BaseEvent], Schema] = field(
        default_factory=WeakKeyDictionary[type[BaseEvent], Schema]
    )
    """JSON Schemas of event classes without values of hidden fields, as far as the catalog has made them."""
    emitting: Emitting = field(default_factory=Emitting)
    failed_logins: FailedLogins = field(default_factory=FailedLogins)
    auth_threads: AuthThreads = field(default_factory=AuthThreads)

    @property
    def queues(self) -> Mapping[str, DeadLetterQueue]:
        """The dead-letter queues by the name of their stream."""
        return self.directory.queues

    async def is_ready(self) -> bool:
        """Whether Redis answers and every router is healthy; the result may be one second old."""
        return await self.readiness.check()


def check_metrics(metrics: str) -> MetricsAccess:
    """The option `metrics`. Raises `ValueError`, and `NotConfiguredError` if it needs what is not installed."""
    for allowed in get_args(MetricsAccess):
        if metrics == allowed:
            if allowed != "off":
                check_installed(f"metrics={allowed!r}")
            return allowed
    raise ValueError(f"metrics must be one of {', '.join(get_args(MetricsAccess))}, not {metrics!r}")


def running(connection: HTTPConnection) -> Running:
    """The parts of the application that a connection belongs to.

    Raises `NotConfiguredError` if the lifespan of Rapids is not running.
    """
    # Not `connection.state`, which makes an object from the same mapping for every request.
    found = connection.scope.get("state", {}).get(STATE_KEY)
    if isinstance(found, Running):
        return found
    if getattr(getattr(connection.scope.get("app"), "state", None), APP_STATE, None) is not None:
        raise NotConfiguredError(
            "Rapids is running, but this request came without its lifespan state. A lifespan of your own must yield "
            "it: `async with rapids.lifespan(app) as state: yield state`. With asgi-lifespan, use `manager.app`, which "
            "adds the state to requests, and not `app`: httpx.ASGITransport(app=manager.app)."
        )
    raise NotConfiguredError(
        "Rapids is not running in this application. Give it the lifespan: FastAPI(lifespan=rapids.lifespan), or "
        "inside your own: `async with rapids.lifespan(app) as state: yield state` (the state must be yielded). "
        "In tests, use `with TestClient(app) as client:`, which runs it. httpx.ASGITransport does not run it: there, "
        "use `async with LifespanManager(app) as manager:` of asgi-lifespan, and httpx.ASGITransport(app=manager.app)."
    )
