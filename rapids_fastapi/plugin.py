"""`Rapids`, the plug-in: it starts and stops emitter, routers and clients with the application."""

import logging
import sys
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import fields, replace
from typing import Any, Self

from rapids import DeadLetterQueue, EventEmitter, EventRouter
from rapids.background import check_routers, dead_letter_queues, operations_running, routers_running
from rapids.clients import RedisClient, check_client, check_url, disconnect, open_client, reach
from rapids.contracts import StoredEventsGate, check_newest
from rapids.dead_letters import default_dlq
from rapids.environment import Environment
from rapids.exceptions import NotConfiguredError, RapidsError, RedisUnavailableError
from rapids.hooks import TelemetryHooks
from rapids.inspection import GroupReader, OverviewReader, WatchedGroup
from rapids.metrics import Metrics
from rapids.readiness import Readiness
from rapids.redaction import Redactor
from rapids.router import ServerWarnings
from rapids.sessions import Sessions
from rapids_fastapi.admin.auth import TOKEN_VARIABLE, AdminAuth, TokenAuth
from rapids_fastapi.admin.limits import AdminLimits, InProgress
from rapids_fastapi.directory import Directory
from rapids_fastapi.state import APP_STATE, STATE_KEY, MetricsAccess, Running, check_metrics
from rapids_fastapi.typed_emits import describe_emits

__all__ = ["URL_VARIABLE", "Rapids"]

URL_VARIABLE = "RAPIDS_REDIS_URL"


_logger = logging.getLogger("rapids")


class Rapids:
    """Rapids in a FastAPI or Starlette application.

        rapids = Rapids(emitter=emitter, routers=[router])
        app = FastAPI(lifespan=rapids.lifespan)

    In your own lifespan: `async with rapids.lifespan(app) as state: yield state`.

    `emitter`: what `EmitterDep` provides. By default, an emitter for the routers' stream. If it has a client, it keeps
    that client.
    `routers`: they run while the application runs, each in a task of its own, which is restarted after a failure. A
    router without a client gets the one of this object.
    `url`: redis://, rediss://, unix://, redis+sentinel://host:port,host:port/service, redis+cluster://host:port,host:port,
    embedded: or embedded:path (see `rapids.clients.open_client`).
    `redis`: your own client, instead of `url`. It is never closed. Without both, the address in `RAPIDS_REDIS_URL` is
    used.
    `watch`: names of streams whose routers run in other processes: the admin shows them, too. By default, it shows all
    streams whose routers announce themselves in this Redis, at most 100; with a list, only its own and these.
    `dead_letters`: whether a router without a dead-letter stream gets the default one, `{<stream>}:dlq`.
    `admin_auth`: who may use the admin: a callable, plain or async, that returns an `AdminUser` or None for a
    connection. Without it, everybody who has the token in `RAPIDS_ADMIN_TOKEN`. Without such a token, nobody.
    `redact`: names of fields that the admin and the routers' logs hide, in addition to the usual ones
    (`DEFAULT_REDACTED`), at any depth, in upper and lower case. None hides nothing.
    `admin_limits`: how many searches, exports and live streams the admin runs at a time in this process. By default,
    `AdminLimits()`.
    `dashboard`: whether the admin has a page for browsers, at the path of `rapids_admin`.
    `telemetry`: what emits, handler runs and groups are reported to, such as `rapids.telemetry.OpenTelemetry()`. The
    emitter and the routers get it, and while the routers run, their groups are measured.
    `metrics`: who may read `/rapids/metrics`, for Prometheus: users with the "permission" `metrics`, or "anyone". The
    default, "off", measures nothing and needs no `prometheus-client`.
    `connect_timeout`: seconds within which Redis must answer at start-up.
    `check_stored`: so many of the newest stored events of each type, everything pending and all dead letters of its
    streams are parsed at each start, for at most 30 seconds. While today's classes refuse one, no router begins, and
    the application is not ready.

    `Rapids.from_env()` takes what an operator changes from variables of the environment.

    Raises `ValueError` or `TypeError` for a wrong option, with its name, its value and what is allowed.
    The object can be started and stopped several times, also on different event loops, but not twice at the same time.
    """

    def __init__(
        self,
        *,
        emitter: EventEmitter | None = None,
        routers: Sequence[EventRouter] = (),
        url: str | None = None,
        redis: RedisClient | None = None,
        watch: Sequence[str] | None = None,
        dead_letters: bool = True,
        admin_auth: AdminAuth | None = None,
        redact: Sequence[str] | None = (),
        admin_limits: AdminLimits | None = None,
        dashboard: bool = True,
        telemetry: TelemetryHooks | None = None,
        metrics: MetricsAccess = "off",
        connect_timeout: float = 5.0,
        check_stored: int = 0,
    ) -> None:
        self._routers = check_routers(routers)
        if url is not None and redis is not None:
            raise ValueError("url and redis both say which Redis to use: give one of them")
        self._url = None if url is None else check_url("url", url)
        if redis is not None:
            check_client(redis)
        self._redis = redis
        self._emitter = _check_emitter(emitter, self._routers)
        self._emitter_has_client = self._emitter.configured
        self._watch = None if watch is None else _check_watch(watch)
        if not isinstance(dead_letters, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            raise TypeError(f"dead_letters must be True or False, not {dead_letters!r}")
        self._dead_letters = dead_letters
        if admin_auth is not None and not callable(admin_auth):
            raise TypeError(
                "admin_auth must be a callable from the connection to an AdminUser or None, such as TokenAuth(token) "
                f"or allow_anyone, not a {type(admin_auth).__name__}"
            )
        self._admin_auth = admin_auth
        self._redactor = Redactor.of(redact)
        if admin_limits is not None and not isinstance(admin_limits, AdminLimits):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"admin_limits must be an AdminLimits, such as AdminLimits(exports=1), not {admin_limits!r}"
            )
        self._admin_limits = admin_limits or AdminLimits()
        if not isinstance(dashboard, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"dashboard must be True or False, not {dashboard!r}")
        self._dashboard = dashboard
        self._metrics = check_metrics(metrics)
        self._connect_timeout = _check_timeout(connect_timeout)
        self._check_stored = check_newest("check_stored", check_stored)
        self._server_warnings = ServerWarnings()
        for router in self._routers:
            router.use_server_warnings(self._server_warnings)
            router.use_dependencies(emitter=self._emitter)
            if redact is not None:
                router.use_log_redaction(self._redactor.error)
            if metrics != "off":
                router.use_histograms()
        self._telemetry = telemetry
        if telemetry is not None:
            for part in (self._emitter, *self._routers):
                part.use_telemetry(telemetry)
        self._is_running = False
        """The event loop of the first start with a client of the user's."""
        self._client_in_use: RedisClient | None = None
        if dead_letters:
            for router in self._routers:
                router.use_default_dlq()

    @classmethod
    def from_env(
        cls,
        *,
        emitter: EventEmitter | None = None,
        routers: Sequence[EventRouter] = (),
        redis: RedisClient | None = None,
        admin_auth: AdminAuth | None = None,
        redact: Sequence[str] = (),
        telemetry: TelemetryHooks | None = None,
    ) -> Self:
        """A Rapids whose other options come from the variables `RAPIDS_...`: see `rapids.environment.VARIABLES`.

        `RAPIDS_REDACT` adds names to `redact`. `RAPIDS_REDIS_URL` and `RAPIDS_ADMIN_TOKEN` are checked now, and read
        again at each start. With `redis` or `admin_auth` they have no effect. Unknown variables are logged.

        Raises `ValueError` for a variable that is not valid, with its value and what is allowed, and what `Rapids`
        raises for the arguments.
        """
        env = Environment()
        env.warn_of_unknown()
        if redis is None and (url := env.text(URL_VARIABLE)) is not None:
            check_url(URL_VARIABLE, url)
        watch = env.names("RAPIDS_WATCH")
        with _about("RAPIDS_WATCH"):
            watch = None if watch is None else _check_watch([] if watch == ["none"] else watch)
        limits = AdminLimits()
        for limit in fields(limits):
            given = env.number(name := f"RAPIDS_ADMIN_{limit.name.upper()}", int, getattr(limits, limit.name))
            with _about(name):
                limits = replace(limits, **{limit.name: given})
        with _about("RAPIDS_METRICS"):
            metrics = check_metrics(env.text("RAPIDS_METRICS") or "off")
        timeout = env.number("RAPIDS_CONNECT_TIMEOUT", float, 5.0)
        with _about("RAPIDS_CONNECT_TIMEOUT"):
            _check_timeout(timeout)
        if admin_auth is None:
            _token_auth(env)
        return cls(
            emitter=emitter,
            routers=routers,
            redis=redis,
            watch=watch,
            dead_letters=env.flag("RAPIDS_DEAD_LETTERS", True),
            admin_auth=admin_auth,
            redact=[*redact, *(env.names("RAPIDS_REDACT") or ())],
            admin_limits=limits,
            telemetry=telemetry,
            metrics=metrics,
            connect_timeout=timeout,
        )

    @property
    def emitter(self) -> EventEmitter:
        """The emitter that endpoints get. It can emit while the lifespan runs."""
        return self._emitter

    @property
    def routers(self) -> tuple[EventRouter, ...]:
        """The routers that run while the lifespan runs."""
        return self._routers

    @property
    def redis(self) -> RedisClient:
        """The client that the lifespan uses, for handlers that need Redis themselves.

        Raises `NotConfiguredError` outside of the lifespan.
        """
        if self._client_in_use is None:
            raise NotConfiguredError("Rapids has no Redis client: it has one while its lifespan runs")
        return self._client_in_use

    @asynccontextmanager
    async def lifespan(self, app: object = None) -> AsyncGenerator[dict[str, Any]]:
        """Run everything during the block. Yields the lifespan state, which your own lifespan must yield, too.

        At the end, the routers are stopped gracefully, all at the same time. Then a client that was made for the
        address is closed, and an embedded server is released.

        Raises `RedisUnavailableError` if Redis cannot be reached, `NotConfiguredError` if no Redis is configured or the
        lifespan is running already, if the application runs another Rapids, or if `redis` was used on another event
        loop and redis-py is older than 7.2, and the error of a router that does not start. What has started is then
        stopped.
        """
        if self._is_running:
            raise NotConfiguredError("this Rapids is running already; give each application one of its own")
        state = getattr(app, "state", None)
        other = getattr(state, APP_STATE, None)
        if isinstance(other, Rapids):
            raise NotConfiguredError(
                f"this application runs two Rapids, and its requests would see only the second: one with "
                f"{other._parts()}, one with {self._parts()}. Give one Rapids the routers of both, and emit to the "
                "other stream with an EventEmitter of your own"
            )
        self._is_running = True
        try:
            async with AsyncExitStack() as started:
                if state is not None:
                    setattr(state, APP_STATE, self)
                    started.callback(delattr, state, APP_STATE)
                describe_emits(app)
                for router in self._routers:  # an application's overrides may be another dict at any time
                    router.use_dependencies(overrides=lambda: getattr(app, "dependency_overrides", {}))
                try:
                    running = await self._start(started)
                except RapidsError as error:
                    # Servers print the traceback of an error at start-up, but the message says everything.
                    raise error.with_traceback(None) from error.__cause__
                yield {STATE_KEY: running}
        finally:
            self._is_running = False
            self._client_in_use = None

    def _parts(self) -> str:
        groups = ", ".join(f"{router.group!r} on {router.stream!r}" for router in self._routers)
        return f"an emitter to {self._emitter.stream!r} and {f'routers of {groups}' if groups else 'no routers'}"

    async def _start(self, started: AsyncExitStack) -> Running:
        """Start everything, each part after those that it needs. `started` stops them in the opposite order."""
        redis = self._client_in_use = await started.enter_async_context(self._client())
        await self._server_warnings.check(redis, self._emitter.stream)
        if not self._emitter_has_client:
            self._emitter.configure(redis)
        started.push_async_callback(self._emitter.drain)  # also for what handlers emit during shutdown
        admin_auth = self._admin_auth or _token_auth(Environment())
        queues = dead_letter_queues(redis, self._routers)
        if not self._routers and self._dead_letters:
            name = default_dlq(self._emitter.stream)
            queues = {name: DeadLetterQueue(redis, name, dlq_maxlen=10_000, maxlen=None)}
        directory = Directory(
            redis,
            streams=(self._emitter.stream, *(router.stream for router in self._routers)),
            queues=queues,
            watch=self._watch or (),
            dead_letters=self._dead_letters,
            finds=self._watch is None and admin_auth is not None,  # without a user of the admin, nobody would see them
        )
        watched = [
            WatchedGroup(name, None, default_dlq(name) if self._dead_letters else None) for name in self._watch or ()
        ]
        streams = [self._emitter.stream, *(router.stream for router in self._routers)]
        gate = StoredEventsGate(redis, streams, list(queues), newest=self._check_stored, redactor=self._redactor)
        may_begin = self._check_stored == 0 or await gate.check()
        running = Running(
            emitter=self._emitter,
            redis=redis,
            routers=await started.enter_async_context(
                routers_running(self._routers, redis, after=None if may_begin else gate.opened)
            ),
            directory=directory,
            admin_auth=admin_auth,
            redactor=self._redactor,
            readiness=Readiness(self._emitter, self._routers, lambda: gate.fault),
            in_progress=InProgress(self._admin_limits),
            overview=OverviewReader(redis, lambda: [*map(WatchedGroup.of, self._routers), *directory.watched]),
            sessions=Sessions(redis, self._emitter.stream),
            has_dashboard=self._dashboard,
            metrics=None
            if self._metrics == "off"
            else Metrics.of_this_process(redis, self._routers, [self._emitter], watched),
            metrics_for_anyone=self._metrics == "anyone",
        )
        runners = await started.enter_async_context(operations_running(directory.queues.values()))
        await started.enter_async_context(directory.followed(runners))
        if self._telemetry is not None:
            reader = GroupReader(redis, map(WatchedGroup.of, self._routers))
            await started.enter_async_context(reader.reported_to(self._telemetry.gauges, self._telemetry.wants_gauges))
        started.push_async_callback(running.emitting.finished)
        return running

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[RedisClient]:
        """The given client, or one that is made for the address and closed at the end of the block."""
        if self._redis is not None:
            try:
                yield await self._reachable(self._redis, "the client given as Rapids(redis=...)")
            finally:
                # Its idle connections belong to this event loop, and the next lifespan may run on another one. The
                # client stays open: it connects again when it is used.
                await disconnect(self._redis)
            return
        if (url := self._url) is None:
            if not (found := Environment().text(URL_VARIABLE)):
                raise NotConfiguredError(
                    f"Rapids does not know which Redis to use: give Rapids(url=...) or set {URL_VARIABLE}. "
                    "For development, 'embedded:' starts a server of its own."
                )
            url = check_url(URL_VARIABLE, found)
        async with open_client(url) as client:
            yield await self._reachable(client, url)

    async def _reachable(self, client: RedisClient, where: str) -> RedisClient:
        """The client, after its server, or a node of its Cluster, has answered.

        Raises `RedisUnavailableError`, which is also logged, if there is no answer within `connect_timeout` seconds, or
        an error.
        """
        try:
            await reach(client, where, timeout=self._connect_timeout)
        except RedisUnavailableError as error:
            _logger.critical("%s", error)
            raise
        return client


@contextmanager
def _about(variable: str) -> Generator[None]:
    """Errors in the block name the variable that they are about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise ValueError(f"{variable}: {error}") from None


def _token_auth(env: Environment) -> TokenAuth | None:
    token = env.text(TOKEN_VARIABLE)
    with _about(TOKEN_VARIABLE):
        return None if token is None else TokenAuth(token)


def _check_timeout(connect_timeout: float) -> float:
    allowed = "a finite number of seconds above 0"
    if isinstance(connect_timeout, bool) or not isinstance(connect_timeout, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"connect_timeout must be {allowed}, not {connect_timeout!r}")
    if not 0 < connect_timeout <= sys.float_info.max:
        raise ValueError(f"connect_timeout must be {allowed}, not {connect_timeout!r}")
    return connect_timeout


def _check_watch(watch: Sequence[str]) -> tuple[str, ...]:
    if isinstance(watch, str) or not isinstance(watch, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"watch must be a list of names of streams, or None, not {watch!r}")
    for at, name in enumerate(watch):
        try:
            EventEmitter(stream=name)
        except (TypeError, ValueError) as error:
            raise type(error)(f"watch[{at}]: {error}") from None
    return tuple(dict.fromkeys(watch))


def _check_emitter(emitter: EventEmitter | None, routers: Sequence[EventRouter]) -> EventEmitter:
    if emitter is not None:
        if not isinstance(emitter, EventEmitter):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"emitter must be an EventEmitter, not {emitter!r}")
        return emitter
    streams = sorted({router.stream for router in routers})
    if len(streams) > 1:
        raise ValueError(f"emitter must be given where routers read several streams, here {', '.join(streams)}")
    return EventEmitter(stream=streams[0]) if streams else EventEmitter()
