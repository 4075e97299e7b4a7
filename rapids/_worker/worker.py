"""One run of a router: connects, starts the tasks, waits for the stop, and ends the tasks in order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import RedisCluster
from redis.exceptions import RedisError

from rapids._core.counter_state import Counts
from rapids._core.handlers import Handlers
from rapids._core.outages import Outages
from rapids._core.redis_errors import is_outage, reason
from rapids._core.server_warnings import USUAL_TIMEOUT
from rapids._core.settings import LogRedaction, RouterSettings
from rapids._core.supervision import Stop, TaskSupervisor, raise_if_cancelled
from rapids._storage import groups, streams
from rapids._storage.client.connections import Client, Commands, OwnConnection, SharedPool
from rapids._storage.keys import Source, announced_routers
from rapids._storage.server_info import socket_timeout_of
from rapids._worker.acks import Acks
from rapids._worker.context import WorkerContext
from rapids._worker.deadlines import Deadlines
from rapids._worker.dependency_run import Supplies
from rapids._worker.dlq_capacity import DlqCapacity
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.executor import Executor, ExecutorContext
from rapids._worker.failure_log import FailureLog
from rapids._worker.fetcher import Fetcher
from rapids._worker.gate import Gate
from rapids._worker.handler_comparison import HandlerComparison
from rapids._worker.health_check import HealthCheck, LoopMonitor
from rapids._worker.identity import Announcement, Identity
from rapids._worker.inflight import Inflight
from rapids._worker.intake import Intake
from rapids._worker.leases import Leases
from rapids._worker.pause_state import PauseState
from rapids._worker.plan import Planner
from rapids._worker.reader import Reader
from rapids._worker.reclaimer import Reclaimer
from rapids._worker.runners import runners_of
from rapids._worker.server_clock import ServerClock
from rapids._worker.settler import Settler
from rapids._worker.trimmer import Trimmer
from rapids._worker.unarrived import Unarrived
from rapids.delivery import HandlerMiddleware, UnderWay
from rapids.exceptions import RedisUnavailableError
from rapids.health import RouterHealth, Trimming

__all__ = ["Worker"]

logger = logging.getLogger("rapids.worker")

ANSWER_TIMEOUT = 5.0
"""Seconds for which no part of an answer may arrive, if the client's own `socket_timeout` is not longer. Reads also
block."""

CANCEL_GRACE = 2.0
"""Seconds that a cancelled handler has to end until the stop continues without it."""

UNBLOCK_TIME = 1.0
"""Seconds that a blocked read has to return until it is cancelled."""

CLAIM_TIME = 1.0
"""Seconds that a claim has to be answered if no handler runs."""

RELEASE_TIME = 1.0
"""Seconds that the release of the consumer name may take. Otherwise it is free after its time to live."""

FLUSH_TIME = 2.0
"""Seconds that the last settlements have while Redis is unavailable. Other entries are delivered again."""


class Worker:
    """One run between `start()` and `stop()`. Create it inside the event loop that runs it."""

    def __init__(
        self,
        client: Client,
        settings: RouterSettings,
        handlers: Handlers,
        middleware: Sequence[HandlerMiddleware],
        counts: Counts,
        look_around: Callable[[Commands], Awaitable[None]],
        log_redaction: LogRedaction | None,
        supplies: Supplies,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._settings = settings
        self._counts = counts
        counts.know_handlers([handler.name for handler in handlers])
        self._handlers = handlers
        self._middleware = middleware
        self._supplies = supplies
        self._look_around = look_around
        longer = socket_timeout_of(client) or 0.0
        self._answer_time = timeout = longer if longer > USUAL_TIMEOUT else ANSWER_TIMEOUT
        self._reading = OwnConnection(client, settings.stream, timeout=timeout, block=settings.block_ms / 1000)
        self._commands = OwnConnection(client, settings.stream, timeout=timeout)
        self._fetching = OwnConnection(client, settings.stream, timeout=timeout)
        main = Source(settings.stream, settings.group)
        self._sources = (main, main.replays())
        self._gate = Gate(lease_seconds=settings.claim_min_idle_ms / 1000, exclusive=settings.exclusive)
        self._stop = Stop()
        self._context: dict[str, object] = {}
        self._clock = ServerClock(self._context, lease_seconds=settings.claim_min_idle_ms / 1000)
        self._identity = Identity(self._commands, main, self._gate, self._clock, counts)
        # On a Cluster, another node may have the announcements. Elsewhere, they need no further connection.
        elsewhere = SharedPool(client, announced_routers()) if isinstance(client, RedisCluster) else self._commands
        self._announcement = Announcement(elsewhere, settings, self._context)
        self._failures = FailureLog(self._context, log_redaction)
        if counts.observers is not None:
            counts.observers.are_errors_logged = log_redaction is None
        self._hurry = asyncio.Event()
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()
        prefix = f"rapids:{settings.stream}:{settings.group}"
        self._supervisor = TaskSupervisor(prefix, self._stop.asked, logger, self._context)
        self._executors: dict[str, Executor] = {}

    @property
    def last_progress(self) -> float | None:
        """When the reader last took a turn or leases were last renewed (`time.monotonic()`)."""
        return max(self._reader.turned_at, self._leases.renewed_at) if self.started.is_set() else None

    @property
    def trimming(self) -> Trimming | None:
        """The state of the stream's trimming."""
        return self._trimmer.seen if self.started.is_set() else None

    async def health(self, commands: Commands) -> RouterHealth:
        """The router's health, in one round trip. `commands`: a connection that the worker itself does not use."""
        return await self._health_check.run(commands)

    def look_at_pause(self) -> None:
        """Check now whether the group is paused, not only within a second."""
        if self.started.is_set():
            self._worker_context.next_look.now()

    def look_now(self) -> None:
        """Look now for entries that are due or abandoned, not only within a second. Any thread may call this."""
        if self.started.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._worker_context.next_look.now)

    def is_handling(self, under_way: UnderWay) -> bool:
        """Whether this very delivery is in its handler now."""
        return any(executor.is_handling(under_way) for executor in self._executors.values())

    def ask_to_stop(self) -> None:
        """Ask `run` to stop. Does not wait."""
        self._stop.asked.set()

    async def run(self) -> None:
        """Run until asked to stop, or cancelled. Both stop gracefully.

        Raises `RedisUnavailableError` if Redis cannot be reached at the start, `RedisError` if it refuses.
        """
        try:
            await self._open()
            raise_if_cancelled()
            tasks: dict[str, Callable[[], Awaitable[None]]] = {
                "loop monitor": self._loop_monitor.run,
                "settler": self._settler.run,
                "leases": self._leases.run,
                "identity": lambda: self._identity.run(self._leases.keep_name, self._outages),
                **{name: executor.run for name, executor in self._executors.items()},
                **({"exclusivity": self._exclusivity.run} if self._settings.exclusive else {}),
                "handler comparison": self._handler_comparison.run,
                "announcement": self._announcement.run,
                **({"trimmer": self._trimmer.run} if self._settings.trim else {}),
                **({} if self._dlq_capacity is None else {"dlq capacity": self._dlq_capacity.run}),
                "reclaimer": self._reclaimer.run,
                "reader": self._reader.run,
            }
            for name, body in tasks.items():
                self._supervisor.start(name, body)
            self.started.set()
            logger.info(
                "started: router of group %r on stream %r, as consumer %r",
                self._settings.group,
                self._settings.stream,
                self._identity.name,
                extra=self._context,
            )
            await self._stop.asked.wait()
        finally:
            await self._closed()

    async def _closed(self) -> None:
        """Close, even if this task is cancelled again. Another cancellation only ends the wait for handlers."""
        self._stop.asked.set()
        closing = asyncio.create_task(self._close(), name=f"{self._supervisor.prefix}:closing")
        cancelled = False
        while not closing.done():
            try:
                await asyncio.shield(closing)
            except asyncio.CancelledError:
                cancelled = True
                self._hurry.set()
        if closing.cancelled():
            # An event loop that ends has cancelled it, and waits for all tasks.
            self._stop.interrupts.set()
            await self._supervisor.end_all()
            await self._disconnect()
        closing.result()
        if cancelled:
            raise asyncio.CancelledError

    async def _open(self) -> None:
        try:
            await streams.ping(self._commands)
            await self._look_around(self._commands)
            for source in self._sources:
                start = "0" if source.is_replay else str(self._settings.group_start_id)
                await groups.create(self._commands, source, start)
            consumer = await self._identity.acquire(self._settings.consumer)
            await groups.join(self._commands, self._sources[0], consumer)
            settings = self._settings
            self._context |= {"stream": settings.stream, "group": settings.group, "consumer": consumer}
            self._outages = Outages(logger, self._context, self._counts)
            self._worker_context = WorkerContext(
                commands=self._commands,
                fetching=self._fetching,
                sources=self._sources,
                settings=settings,
                identity=self._identity,
                outages=self._outages,
                log=self._context,
                counts=self._counts,
                failures=self._failures,
                clock=self._clock,
            )
            self._make_parts(self._worker_context)
            for source in self._sources:
                if await groups.misses_parked(self._commands, source):
                    await groups.recreate(self._commands, source, "0-0", delivered=False)
                state = await streams.group_state(self._commands, source)
                self._inflight.last_read[source] = state.last_delivered_id
            await self._handler_comparison.compare()
            await self._pause_state.look()
            if not self._settings.exclusive:  # otherwise the active consumer takes all pending entries
                await self._reclaimer.recall()
        except (RedisError, OSError) as error:
            if is_outage(error):
                why = reason(error)
                raise RedisUnavailableError(f"cannot start: Redis is unavailable: {why}") from error
            raise

    def _make_parts(self, context: WorkerContext) -> None:
        """Each part gets the parts that it uses. All of them are created before it."""
        settings, gate = self._settings, self._gate
        self._inflight = inflight = Inflight(
            self._sources, self._counts, lease_seconds=settings.claim_min_idle_ms / 1000
        )
        self._intake = intake = Intake(
            gate,
            settings.batch_size,
            few=settings.batch_size + settings.concurrency,
            in_order=settings.exclusive,
        )
        unarrived = Unarrived(context, gate, inflight, intake, self._reading.arrivals)
        self._leases = leases = Leases(context, gate, inflight, unarrived)
        fetcher = Fetcher(context, inflight, intake)
        self._exclusivity = exclusivity = Exclusivity(context, gate, inflight, intake)
        acks = Acks(context, inflight)
        self._settler = Settler(context, gate, inflight, leases, acks)
        self._reader = Reader(self._reading, context, gate, inflight, intake, leases, acks, exclusivity, unarrived)
        self._pause_state = PauseState(context, intake, self._settler, self._reader)
        planner = Planner(self._handlers, self._counts, context.log, settings.order_by)
        self._reclaimer = Reclaimer(
            context, gate, inflight, intake, leases, self._pause_state, unarrived, exclusivity, planner
        )
        self._handler_comparison = HandlerComparison(context, self._handlers)
        self._trimmer = Trimmer(context, leases)
        dlq, most = settings.dlq_stream, settings.dlq_maxlen
        self._dlq_capacity = None if dlq is None or most is None else DlqCapacity(context, dlq, most)
        self._deadlines = Deadlines()
        executor_context = ExecutorContext(
            worker=context,
            gate=gate,
            inflight=inflight,
            intake=intake,
            leases=leases,
            exclusivity=exclusivity,
            reclaimer=self._reclaimer,
            fetcher=fetcher,
            settler=self._settler,
            planner=planner,
            runners=runners_of(self._handlers, self._middleware, self._supplies),
            stop=self._stop,
            deadlines=self._deadlines,
        )
        count = settings.concurrency
        names = ["executor"] if count == 1 else [f"executor {number}" for number in range(1, count + 1)]
        self._executors.update({name: Executor(executor_context) for name in names})
        self._loop_monitor = LoopMonitor(gate, intake, acks)
        self._health_check = HealthCheck(
            context=context,
            supervisor=self._supervisor,
            stop=self._stop,
            gate=gate,
            inflight=inflight,
            acks=acks,
            loop_monitor=self._loop_monitor,
            reader=self._reader,
            reclaimer=self._reclaimer,
            fetcher=fetcher,
            exclusivity=exclusivity,
            pause_state=self._pause_state,
            answer_time=self._answer_time,
        )

    async def _close(self) -> None:
        """The order matters: a step may still need the tasks that later steps end."""
        if self._supervisor.tasks:
            self._intake.close()
            await self._end_reading()
            await self._end_handling()
            self._deadlines.close()
            self._settler.release(self._intake.drain())
            try:
                async with asyncio.timeout(FLUSH_TIME):
                    await self._settler.flushed()
            except TimeoutError:
                logger.error(
                    "could not settle all entries before the stop: the others are delivered again", extra=self._context
                )
            for name in ("settler", "loop monitor", "leases", "identity", "handler comparison", "announcement"):
                await self._supervisor.end(name)
            await self._supervisor.end("exclusivity")
            try:
                async with asyncio.timeout(RELEASE_TIME):
                    await self._exclusivity.release()
                    await self._handler_comparison.withdraw()
                    await self._identity.release()
            except (RedisError, OSError):
                logger.info("could not release the consumer name; it expires by itself", extra=self._context)
            logger.info("stopped", extra=self._context)
        await self._disconnect()

    async def _disconnect(self) -> None:
        self._failures.close()
        self._counts.outage_ended()
        if self._supervisor.tasks:
            self._inflight.lose_all()
        for connection in (self._reading, self._commands, self._fetching):
            await connection.close()
        self.stopped.set()

    async def _end_reading(self) -> None:
        for name in ("trimmer", "dlq capacity"):
            await self._supervisor.end(name)
        await self._supervisor.end("reclaimer")
        self._reader.stop()
        reading = self._supervisor.tasks["reader"]
        try:
            async with asyncio.timeout(UNBLOCK_TIME):
                while not reading.done():
                    await self._reader.unblock()
                    await asyncio.wait([reading], timeout=0.02)
        except (TimeoutError, RedisError, OSError):
            await self._supervisor.end("reader")

    async def _end_handling(self) -> None:
        executing = [self._supervisor.tasks[name] for name in self._executors]
        if not self._gate.running:  # they may only wait for Redis, which may be unavailable for long
            await asyncio.wait(executing, timeout=CLAIM_TIME)
            for name in self._executors:
                await self._supervisor.end(name)
            return
        # Tasks with names, since asyncio.wait itself would create some without.
        hurry = asyncio.create_task(self._hurry.wait(), name=f"{self._supervisor.prefix}:hurry")
        handling = asyncio.create_task(asyncio.wait(executing), name=f"{self._supervisor.prefix}:handling")
        await asyncio.wait(
            [handling, hurry], timeout=self._settings.shutdown_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        hurry.cancel()
        handling.cancel()
        if not all(task.done() for task in executing):
            logger.warning("the time to stop is over: interrupting the running handlers", extra=self._context)
            self._stop.interrupts.set()
            self._supervisor.ending(self._executors)
            for task in executing:
                task.cancel()
            await asyncio.wait(executing, timeout=CANCEL_GRACE)
        if left := [task for task in executing if not task.done()]:
            logger.error(
                "%d handlers did not end after they were cancelled; the stop continues without them",
                len(left),
                extra=self._context,
            )
