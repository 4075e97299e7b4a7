"""The router: registers handlers for the events of a stream, and runs them."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from redis.asyncio import Redis, RedisCluster

from rapids._core import checks
from rapids._core.counter_state import Counts
from rapids._core.handlers import HandlerRegistry, Handlers
from rapids._core.server_warnings import ServerWarnings, check_server, check_timeout
from rapids._core.settings import GroupStartPosition, LogRedaction, OrderBy, RouterSettings, Trim, check_key_field
from rapids._core.settings import order_by as as_order_by
from rapids._storage import streams
from rapids._storage.client.connections import Commands, SharedPool, check_client, check_dlq
from rapids._storage.keys import Source, default_dlq
from rapids._worker.dependency_run import Supplies
from rapids.backoff import Backoff, exponential
from rapids.control import GroupControl, Pause
from rapids.counters import Counters
from rapids.delivery import HandlerMiddleware, under_way_variable
from rapids.exceptions import NotConfiguredError, RapidsError
from rapids.health import ConsumerLag, RouterHealth, Trimming
from rapids.hooks import TelemetryHooks
from rapids.observers import Observer
from rapids.providers import EmitterLike

if TYPE_CHECKING:  # imported when a router starts: a process that only emits does not need it
    from rapids._worker.worker import Worker
    from rapids.rehearsal import Rehearsal

__all__ = ["ConsumerLag", "EventRouter", "LogRedaction", "ServerWarnings"]


class EventRouter(HandlerRegistry):
    """Runs handlers for the events of one stream, as one consumer of one group.

    Options, in addition to `redis`, the client to use (or given to `start`):

    - `stream`, `group`: which stream to read, and as which consumer group. `consumer`: this process's name in the
      group; by default `hostname-pid`. If another live process has the name, a number is added to it.
    - `batch_size` (entries): how many to take in one read. `block_ms` (milliseconds): how long a read waits.
    - `handler_timeout` (seconds), `default_retries` (quick attempts after the first), `default_backoff`: the values for
      handlers that set none themselves.
    - `group_start_id`: where a new group starts; an existing group keeps its place.
    - `claim_min_idle_ms` (milliseconds): how long a consumer must not have renewed its lease of an entry before another
      consumer takes the entry over. `claim_interval` (reads): look for such entries after so many reads, and at least
      once a second.
    - `redelivery_backoff`: the wait before an entry is delivered again after a handler failed; by default exponential
      and at most `claim_min_idle_ms`. `max_deliveries`: how many failed deliveries make a handler's entry dead.
    - `dlq_stream`: the stream for dead letters; None parks such entries. On a Cluster it must be in the stream's own
      slot, as `{<stream>}:dlq` is. `dlq_maxlen` (letters): the length it is trimmed to.
    - `shutdown_timeout` (seconds): how long `stop` lets running handlers finish.
    - `consumer_ttl` (seconds): how long after its end a consumer that owns nothing is removed from the group.
    - `concurrency` (entries): how many run at the same time. With the default, 1, they run one after another in the
      order of the stream.
    - `order_by`: with a `concurrency` above 1, a field's name, or a function from an event to its key. Entries of one
      key run one after another, in the order of the stream. Events without the field, or whose key is None, need no
      order. `retry_blocks_key`: whether later entries of the key wait for an entry that is to be delivered again.
    - `exclusive`: only one consumer of the group is active at a time. If it dies, another takes over within seconds.
    - `trim`: "acknowledged" removes the entries that every group of the stream has settled; None removes nothing.
    - `middleware`: `async def mw(delivery, call_next)`, around each attempt of each handler, the first one outermost.
    - `observers`: plain functions of one detail (see `rapids.observers`), called with each thing this router does.

    Raises `ValueError` or `TypeError` for an option that makes no sense.
    """

    def __init__(
        self,
        redis: Redis | RedisCluster | None = None,
        stream: str = "events:all",
        group: str = "default",
        consumer: str | None = None,
        batch_size: int = 10,
        block_ms: int = 5_000,
        handler_timeout: float = 30.0,
        group_start_id: str = GroupStartPosition.BEGINNING,
        claim_interval: int = 10,
        claim_min_idle_ms: int = 60_000,
        default_retries: int = 0,
        default_backoff: Backoff | None = None,
        max_deliveries: int = 5,
        dlq_stream: str | None = None,
        dlq_maxlen: int | None = 10_000,
        shutdown_timeout: float = 30.0,
        redelivery_backoff: Backoff | None = None,
        consumer_ttl: float = 3_600.0,
        middleware: Sequence[HandlerMiddleware] = (),
        concurrency: int = 1,
        order_by: str | OrderBy | None = None,
        retry_blocks_key: bool = True,
        exclusive: bool = False,
        observers: Sequence[Observer] = (),
        trim: Trim | None = None,
    ) -> None:
        self._settings = settings = RouterSettings(
            stream=stream,
            group=group,
            consumer=consumer,
            batch_size=batch_size,
            block_ms=block_ms,
            handler_timeout=handler_timeout,
            group_start_id=group_start_id,
            claim_interval=claim_interval,
            claim_min_idle_ms=claim_min_idle_ms,
            default_retries=default_retries,
            default_backoff=exponential() if default_backoff is None else default_backoff,
            redelivery_backoff=redelivery_backoff,
            max_deliveries=max_deliveries,
            dlq_stream=dlq_stream,
            dlq_maxlen=dlq_maxlen,
            shutdown_timeout=shutdown_timeout,
            consumer_ttl=consumer_ttl,
            concurrency=concurrency,
            order_by=as_order_by(order_by),
            retry_blocks_key=retry_blocks_key,
            exclusive=exclusive,
            observers=observers,
            trim=trim,
        )
        super().__init__(
            timeout=settings.handler_timeout, retries=settings.default_retries, backoff=settings.default_backoff
        )
        self.max_deliveries = max_deliveries
        if redis is not None:
            check_client(redis)
        self._redis, self._key_field = redis, order_by if isinstance(order_by, str) else None
        self._started_with: Redis | RedisCluster | None = None
        self._middleware = tuple(checks.middleware("middleware", middleware))
        self._server_warnings = ServerWarnings()
        self._log_redaction: LogRedaction | None = None
        self._worker: Worker | None = None
        self._counts = Counts(settings.stream, settings.group, settings.observers)

    @property
    def stream(self) -> str:
        """The stream it reads."""
        return self._settings.stream

    @property
    def group(self) -> str:
        """The consumer group it reads as."""
        return self._settings.group

    @property
    def shutdown_timeout(self) -> float:
        """Seconds that running handlers have when it stops."""
        return self._settings.shutdown_timeout

    @property
    def dlq_stream(self) -> str | None:
        """The stream for its dead letters; None if entries that failed for good are parked."""
        return self._settings.dlq_stream

    @property
    def dlq_maxlen(self) -> int | None:
        """The length that its dead-letter stream is trimmed to, in letters; None for no limit."""
        return self._settings.dlq_maxlen

    @property
    def configured(self) -> bool:
        """Whether it was created with a client, so that `start` needs none."""
        return self._redis is not None

    @property
    def running(self) -> bool:
        """Whether it has started and has not stopped."""
        return self._worker is not None and self._worker.started.is_set()

    @property
    def last_progress(self) -> float | None:
        """When the reader last took a turn or leases were last renewed (`time.monotonic()`); None if not running."""
        return self._worker.last_progress if self._worker else None

    @property
    def counters(self) -> Counters:
        """What this router has done since it was created, in all its runs. Needs no round trip; safe in any thread."""
        return self._counts.counters()

    @property
    def trimming(self) -> Trimming | None:
        """The state of the stream's trimming, and which group prevents more of it, as of a few seconds ago.

        None without `trim`, and until the router has looked for the first time.
        """
        return self._worker.trimming if self._worker else None

    def use_default_dlq(self) -> None:
        """Send dead letters to `{<stream>}:dlq` unless `dlq_stream` was given. Call it before `start`.

        Raises `RapidsError` while the router runs.
        """
        self._only_before_start("use_default_dlq()")
        if self._settings.dlq_stream is None:
            self._settings = replace(self._settings, dlq_stream=default_dlq(self._settings.stream))

    def use_server_warnings(self, warnings: ServerWarnings) -> None:
        """Share server warnings with other routers, so that each is logged once. Call it before `start`.

        Raises `RapidsError` while the router runs, `TypeError` for anything but a `ServerWarnings`.
        """
        if not isinstance(warnings, ServerWarnings):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            raise TypeError(f"warnings must be a ServerWarnings, not {warnings!r}")
        self._only_before_start("use_server_warnings()")
        self._server_warnings = warnings

    def use_log_redaction(self, redaction: LogRedaction) -> None:
        """Hide what is secret in the errors of handlers, wherever the router logs them. Call it before `start`.

        `Rapids` gives its routers what its admin hides. It is called only for what is logged. If it fails, the text is
        withheld, as are those of observers' errors. It blocks the event loop. Raises `RapidsError` while the router
        runs, `TypeError` for anything but a plain function.
        """
        checks.plain_function("redaction", redaction, "a plain function (data, metadata, text)", arguments=3)
        self._only_before_start("use_log_redaction()")
        self._log_redaction = redaction

    def use_telemetry(self, telemetry: TelemetryHooks | None) -> None:
        """Report handler runs and decisions about entries to it, such as `OpenTelemetry()`. Call it before `start`.

        Raises `RapidsError` while the router runs, `TypeError` for anything but a telemetry or None.
        """
        self._only_before_start("use_telemetry()")
        self._counts.telemetry = checks.telemetry("telemetry", telemetry)

    def use_histograms(self) -> None:
        """Also measure `rapids.counters.HISTOGRAMS`, about 2 µs a run. Call it before `start`, else `RapidsError`."""
        self._only_before_start("use_histograms()")
        self._counts.measures = True

    async def start(self, redis: Redis | RedisCluster | None = None) -> None:
        """Consume until stopped. Cancelling the task that awaits this method also stops the router gracefully.

        Raises `NotConfiguredError` without a client or without handlers, `ValueError` if no event class that it handles
        has the field `order_by`, or if `dlq_stream` is in another slot of a Cluster than the stream,
        `RedisUnavailableError` if Redis cannot be reached now. During later outages the router retries.
        """
        client = redis or self._redis
        if client is None:
            raise NotConfiguredError(
                "the router has no Redis client: give EventRouter(redis=...) one, or call router.start(redis)"
            )
        self._only_before_start("start()")
        if not self._registered:
            raise NotConfiguredError(
                f"the router of group {self.group!r} on stream {self.stream!r} has no handlers, so it would "
                "acknowledge all events without handling them: was the module imported that registers handlers, with "
                "@router.on(...)?"
            )
        if self._key_field is not None:
            check_key_field(
                self._key_field, lambda event_type: any(one.handles(event_type) for one in self._registered)
            )
        check_dlq(client, self.stream, self.dlq_stream)
        from rapids._worker.worker import Worker

        own_emitter = None
        if self._emitter is None and any(handler.dependencies for handler in self._registered):
            from rapids.emitter import EventEmitter

            own_emitter = EventEmitter(client, stream=self.stream)
            own_emitter.use_telemetry(self._counts.telemetry)
        supplies = Supplies(self._overrides_in_force, self._emitter or own_emitter)
        handlers = Handlers(self._registered)
        look_around = partial(self._look_around, client)
        worker = self._worker = Worker(
            client, self._settings, handlers, self._middleware, self._counts, look_around, self._log_redaction, supplies
        )
        self._started_with = client
        try:
            await worker.run()
        finally:
            self._worker = None
            if own_emitter is not None:
                await own_emitter.drain()

    def rehearsal(self, emitter: EmitterLike | None = None) -> "Rehearsal":
        """Its handlers as they are now, to be run on single events without Redis: for tests, see `rapids.testing`.

        `emitter`: for handlers that ask for one, instead of the emitter of `use_dependencies`.
        """
        from rapids._worker.runners import runners_of
        from rapids.emitter import EventEmitter
        from rapids.rehearsal import Rehearsal

        given = emitter or self._emitter or EventEmitter(stream=self.stream)  # which, without a client, cannot emit
        runners = runners_of(self._registered, self._middleware, Supplies(self._overrides_in_force, given))
        return Rehearsal(self._settings, self._registered, runners, self._log_redaction)

    def look_now(self) -> None:
        """Look now for entries that are due or abandoned, not only within a second. Any thread may call this."""
        if (worker := self._worker) is not None:
            worker.look_now()

    async def wait_started(self) -> None:
        """Wait until the router consumes. Raises `RapidsError` if it is not starting, or if the start failed."""
        if self._worker is None:
            await asyncio.sleep(0)  # a new task for start() may not have run yet
        if (worker := self._worker) is None:
            raise RapidsError("the router is not starting: run router.start() in a task first")
        started = asyncio.create_task(worker.started.wait())
        stopped = asyncio.create_task(worker.stopped.wait())
        try:
            await asyncio.wait([started, stopped], return_when=asyncio.FIRST_COMPLETED)
        finally:
            started.cancel()
            stopped.cancel()
        if not worker.started.is_set():
            raise RapidsError("the router did not start: see what router.start() raised")

    async def stop(self) -> None:
        """Stop gracefully, and wait until the router has stopped. Does nothing if it does not run.

        Running handlers have `shutdown_timeout` seconds to finish. Called inside a handler, it only requests the stop
        and does not wait, since it would wait for itself.
        """
        if self._worker is None:
            await asyncio.sleep(0)  # a new task for start() may not have run yet
        if (worker := self._worker) is None:
            return
        worker.ask_to_stop()
        under_way = under_way_variable.get()  # tasks that a handler starts inherit it
        if under_way is None or not worker.is_handling(under_way):
            await worker.stopped.wait()

    async def get_consumer_lag(self) -> ConsumerLag:
        """How far the group is behind, in one round trip.

        Raises `NotConfiguredError` without a client, `redis.exceptions.RedisError` if Redis does not answer.
        """
        client = self._client("get_consumer_lag()")
        state = await streams.group_state(SharedPool(client, self.stream), Source(self.stream, self.group))
        return ConsumerLag(
            stream_length=state.stream_length,
            pending_count=state.pending,
            consumers_count=state.consumers,
            last_delivered_id=state.last_delivered_id,
            lag=state.lag,
        )

    async def health(self) -> RouterHealth:
        """Whether the router does its work, and the reason: see `RouterHealth`. One round trip, at most 2 s.

        It is ready if Redis answers, the reader takes its turns, and one of these holds: everything was delivered to
        the group, the group is paused, held leases last, or something was settled recently. The time limits follow from
        the settings: `block_ms` plus 7 s for a turn of the reader; `claim_min_idle_ms`, but at least 14 s, for a lease;
        14 s for other progress. The event loop may be blocked for 3 s; a longer block counts for 10 s. Errors of Redis
        are not raised.
        """
        from rapids._worker.health_check import not_running

        worker, client = self._worker, self._started_with
        if worker is None or client is None or not worker.started.is_set():
            return not_running(self._settings)
        return await worker.health(SharedPool(client, self.stream))

    async def pause(self, *, actor: str = "", reason: str = "") -> Pause:
        """Pause the whole group, in every process: see `GroupControl.pause`, which this calls.

        Raises `NotConfiguredError` without a client.
        """
        paused = await self._control("pause()").pause(actor=actor, reason=reason)
        self._look_at_pause()
        return paused

    async def resume(self, *, actor: str = "", reason: str = "") -> Pause | None:
        """End the group's pause, in every process: see `GroupControl.resume`, which this calls.

        Raises `NotConfiguredError` without a client.
        """
        ended = await self._control("resume()").resume(actor=actor, reason=reason)
        self._look_at_pause()
        return ended

    async def _look_around(self, client: Redis | RedisCluster, commands: Commands) -> None:
        """Log server warnings before any other command is sent to the server."""
        where = {"stream": self.stream, "group": self.group}
        run_id = await check_server(self._server_warnings, commands, client, where)
        check_timeout(self._server_warnings, run_id, client, self._settings.block_ms, where)

    def _control(self, what: str) -> GroupControl:
        return GroupControl(self._client(what), self.stream, self.group)

    def _look_at_pause(self) -> None:
        if self._worker is not None:
            self._worker.look_at_pause()

    def _client(self, what: str) -> Redis | RedisCluster:
        if (client := self._started_with or self._redis) is None:
            raise NotConfiguredError(
                f"the router has no Redis client for {what}: give EventRouter(redis=...) one, or start it with one"
            )
        return client

    def _only_before_start(self, what: str) -> None:
        if self._worker is not None:
            raise RapidsError(f"{what} must come before the router runs, or after it has stopped")
