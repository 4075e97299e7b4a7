"""The router: what to run for which event, and the running of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from redis.asyncio import Redis, RedisCluster

from rapids._core.counter_state import Counts
from rapids._core.handlers import Handler, HandlerRegistry, Handlers
from rapids._core.server_warnings import ServerWarnings, check_server, check_timeout
from rapids._core.settings import GroupStartPosition, OrderBy, RouterSettings, Trim
from rapids._core.settings import order_by as as_order_by
from rapids._storage import streams
from rapids._storage.client.connections import Commands, SharedPool, check_client, share_a_slot
from rapids._storage.keys import Source, default_dlq
from rapids.backoff import Backoff, exponential
from rapids.control import GroupControl, Pause
from rapids.counters import Counters
from rapids.delivery import HandlerMiddleware, under_way_variable
from rapids.exceptions import NotConfiguredError, RapidsError
from rapids.health import RouterHealth, Trimming
from rapids.observers import Observer

if TYPE_CHECKING:  # imported when a router starts: a process that only emits does not need it
    from rapids._worker.worker import Worker

__all__ = ["ConsumerLag", "EventRouter", "ServerWarnings"]


@dataclass(frozen=True, slots=True)
class ConsumerLag:
    """How far a group is behind; counts are entries."""

    stream_length: int
    pending_count: int
    """Delivered and not yet acknowledged, by the whole group."""
    consumers_count: int
    last_delivered_id: str
    lag: int | None
    """Not yet delivered to the group; None where the server does not know (before Redis 7.0, and after some trims)."""


class EventRouter(HandlerRegistry):
    """Runs handlers for the events of one stream, as one consumer of one group.

    Options, beside `redis`, the client to use (or given to `start`):

    - `stream`, `group`: what to read, and as whom. `consumer`: this process's name in the group; by default
      `hostname-pid`. A name that another live process holds gets a number behind it.
    - `batch_size` (entries): how many to take in one read. `block_ms` (milliseconds): how long a read waits.
    - `handler_timeout` (seconds), `default_retries` (quick attempts after the first), `default_backoff`: what handlers
      have that set none themselves.
    - `group_start_id`: where a new group starts; an existing one keeps its place.
    - `claim_min_idle_ms` (milliseconds): how long a consumer must have been silent about an entry before another takes
      it over. `claim_interval` (reads): look for such entries after so many reads; once a second in any case.
    - `redelivery_backoff`: the wait before an entry is delivered again after a handler failed; by default exponential
      and at most `claim_min_idle_ms`. `max_deliveries`: after how many failed deliveries a handler's entry is dead.
    - `dlq_stream`: where dead letters go; None parks such entries. On a Cluster it must be in the stream's own slot, as
      `{<stream>}:dlq` is. `dlq_maxlen` (letters): what it is trimmed to.
    - `shutdown_timeout` (seconds): how long `stop` lets running handlers finish.
    - `consumer_ttl` (seconds): after how long a consumer that is gone and owns nothing is removed from the group.
    - `concurrency` (entries): how many run at the same time. With the default, 1, they run one after another in the
      order of the stream.
    - `order_by`: with more than one at a time, a field's name, or a function from an event to its key, by which entries
      are kept in order: those of one key run one after another. Events without the field, or whose key is None, need no
      order. `retry_blocks_key`: whether those behind an entry that is to be delivered again wait for it.
    - `exclusive`: only one consumer of the group is active at a time; another takes over within seconds of its death.
    - `trim`: "acknowledged" removes from the stream what every group of it has settled; None removes nothing.
    - `middleware`: `async def mw(delivery, call_next)`, around each attempt of each handler, the first one outermost.
    - `observers`: plain functions of one detail (see `rapids.observers`), told what this router does.

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
        if redis is not None:
            check_client(redis)
        self._redis = redis
        self._started_with: Redis | RedisCluster | None = None
        self._middleware = _checked_middleware(middleware)
        self._server_warnings = ServerWarnings()
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
    def dlq_stream(self) -> str | None:
        """Where its dead letters go; None where exhausted entries are parked."""
        return self._settings.dlq_stream

    @property
    def dlq_maxlen(self) -> int | None:
        """What its dead-letter stream is trimmed to, in letters. None for never."""
        return self._settings.dlq_maxlen

    @property
    def configured(self) -> bool:
        """Whether it was made with a client of its own, so that `start` needs none."""
        return self._redis is not None

    @property
    def running(self) -> bool:
        """Whether it has started and not stopped."""
        return self._worker is not None and self._worker.started.is_set()

    @property
    def last_progress(self) -> float | None:
        """When the reader last took a turn or leases were renewed (`time.monotonic()`); None if not running."""
        return self._worker.last_progress if self._worker else None

    @property
    def counters(self) -> Counters:
        """What this router has done since it was made, over all its runs. Costs no round trip; from any thread."""
        return self._counts.counters()

    @property
    def trimming(self) -> Trimming | None:
        """How the trimming of the stream goes, and which group holds it back, as of a few seconds ago.

        None without `trim`, and until it has looked for the first time.
        """
        return self._worker.trimming if self._worker else None

    def use_default_dlq(self) -> None:
        """Send dead letters to `{<stream>}:dlq` unless `dlq_stream` was given. Before `start`.

        Raises `RapidsError` while it runs.
        """
        self._only_before_start("use_default_dlq()")
        if self._settings.dlq_stream is None:
            self._settings = replace(self._settings, dlq_stream=default_dlq(self._settings.stream))

    def use_server_warnings(self, warnings: ServerWarnings) -> None:
        """Share warnings of what endangers the promises with other routers: each is logged once. Before `start`.

        Raises `RapidsError` while it runs, `TypeError` for anything but a `ServerWarnings`.
        """
        if not isinstance(warnings, ServerWarnings):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
            raise TypeError(f"warnings must be a ServerWarnings, not {warnings!r}")
        self._only_before_start("use_server_warnings()")
        self._server_warnings = warnings

    async def start(self, redis: Redis | RedisCluster | None = None) -> None:
        """Consume until stopped. Cancelling the task that awaits this stops gracefully, too.

        Raises `NotConfiguredError` without a client, `ValueError` where `dlq_stream` is in another slot of a Cluster
        than the stream, `RedisUnavailableError` if Redis cannot be reached now; once it runs, outages are ridden out.
        """
        client = redis or self._redis
        if client is None:
            raise NotConfiguredError(
                "the router has no Redis client: give EventRouter(redis=...) one, or call router.start(redis)"
            )
        self._only_before_start("start()")
        self._check_slot(client)
        from rapids._worker.worker import Worker

        handlers = Handlers(self._registered)
        look_around = partial(self._look_around, client)
        worker = self._worker = Worker(client, self._settings, handlers, self._middleware, self._counts, look_around)
        self._started_with = client
        try:
            await worker.run()
        finally:
            self._worker = None

    async def wait_started(self) -> None:
        """Wait until it consumes. Raises `RapidsError` if nothing is starting, or the start failed."""
        if self._worker is None:
            await asyncio.sleep(0)  # a task just made for start() has not had its turn yet
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
        """Stop gracefully, and wait until stopped. Harmless where nothing runs.

        Handlers under way have `shutdown_timeout` seconds to finish. Called from inside a handler it only asks for the
        stop, since it would wait for itself.
        """
        if self._worker is None:
            await asyncio.sleep(0)  # a task just made for start() has not had its turn yet
        if (worker := self._worker) is None:
            return
        worker.ask_to_stop()
        under_way = under_way_variable.get()  # which tasks that a handler makes inherit
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
        """Whether it gets its work done, and why that is thought: see `RouterHealth`. One round trip, 2 s at the most.

        Ready while Redis answers and the reader turns, and everything was delivered to the group, or the group is
        paused, or leases are held and last, or something was settled lately. For how long each may take follows from
        the settings: a turn of the reader `block_ms` and 7 s; a lease `claim_min_idle_ms`, though at least 14 s; other
        progress 14 s. The event loop may stand still for 3 s; what exceeded that is remembered for 10 s. Raises nothing
        that Redis does.
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

    def _check_slot(self, client: Redis | RedisCluster) -> None:
        """One script writes a dead letter and settles its entry, so a Cluster must have both streams in one slot."""
        dlq = self.dlq_stream
        if dlq is not None and not share_a_slot(client, self.stream, dlq):
            raise ValueError(
                f"dlq_stream {dlq!r} is in another slot of the Cluster than stream {self.stream!r}, so no script can "
                f"write to both: name it {default_dlq(self.stream)!r}, or leave it out for that name in the FastAPI "
                "plug-in"
            )

    async def _look_around(self, client: Redis | RedisCluster, commands: Commands) -> None:
        """Warn of what endangers the promises, before anything else is asked of the server."""
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

    def _register(self, handler: Handler) -> None:
        self._only_before_start("on()")
        super()._register(handler)

    def _only_before_start(self, what: str) -> None:
        if self._worker is not None:
            raise RapidsError(f"{what} must come before the router runs, or after it has stopped")


def _checked_middleware(middleware: Sequence[HandlerMiddleware]) -> tuple[HandlerMiddleware, ...]:
    for layer in middleware:
        if not callable(layer):
            raise TypeError(f"middleware must be async functions (delivery, call_next), not {layer!r}")
    return tuple(middleware)
