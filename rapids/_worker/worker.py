"""One run of a router: opens, starts the tasks, waits, and stops them in order."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from redis.exceptions import RedisError

from rapids._core.counter_state import Counts
from rapids._core.entry_id import order
from rapids._core.handlers import Handlers
from rapids._core.outages import Outages
from rapids._core.redis_errors import is_no_group, is_outage, reason
from rapids._core.settings import RouterSettings
from rapids._core.supervision import Stop, TaskSupervisor, raise_if_cancelled
from rapids._storage import groups, streams
from rapids._storage.client.connections import (
    Client,
    Commands,
    OwnConnection,
)
from rapids._storage.keys import Source
from rapids._worker.acks import Acks
from rapids._worker.context import Member
from rapids._worker.deadlines import Deadlines
from rapids._worker.dlq_capacity import LetterRoom
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.executor import Crew, Executor
from rapids._worker.handler_run import runners_of
from rapids._worker.health_check import Checkup
from rapids._worker.identity import Identity
from rapids._worker.inflight import Inflight
from rapids._worker.intake import Intake
from rapids._worker.leases import Leases
from rapids._worker.loop_monitor import Pulse
from rapids._worker.pause_state import Pausing
from rapids._worker.plan import Planner
from rapids._worker.reader import Reader
from rapids._worker.reclaimer import Reclaimer
from rapids._worker.settler import Settler
from rapids._worker.trimmer import Trimmer
from rapids.delivery import HandlerMiddleware, UnderWay
from rapids.exceptions import RedisUnavailableError
from rapids.health import RouterHealth
from rapids.trimming import Trimming

__all__ = ["Worker"]

logger = logging.getLogger("rapids.worker")

ANSWER_TIMEOUT = 5.0
"""Seconds a command other than the blocking read may take."""

CANCEL_GRACE = 2.0
"""Seconds a cancelled handler has to end before it is left behind."""

UNBLOCK_TIME = 1.0
"""Seconds a blocked read has to come back before it is cancelled."""

CLAIM_TIME = 1.0
"""Seconds a claim under way has to be answered, when no handler is to be waited for."""

RELEASE_TIME = 1.0
"""Seconds the consumer name has to be let go; else it is free when its time to live is over."""

FLUSH_TIME = 2.0
"""Seconds the last settlements have when Redis does not take them; what is not written is delivered again."""


class Worker:
    """Everything between `start()` and `stop()`, once. Made inside the event loop that runs it."""

    def __init__(
        self,
        client: Client,
        settings: RouterSettings,
        handlers: Handlers,
        middleware: Sequence[HandlerMiddleware],
        counts: Counts,
        look_around: Callable[[Commands], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._counts = counts
        counts.know_handlers([handler.name for handler in handlers])
        self._handlers = handlers
        self._middleware = middleware
        self._look_around = look_around
        self._reading = OwnConnection(client, settings.stream, timeout=settings.block_ms / 1000 + ANSWER_TIMEOUT)
        self._commands = OwnConnection(client, settings.stream, timeout=ANSWER_TIMEOUT)
        main = Source(settings.stream, settings.group)
        self._sources = (main, main.replays())
        self._identity = Identity(self._commands, main)
        self._stop = Stop()
        self._context: dict[str, object] = {}
        self._hurry = asyncio.Event()
        self.started = asyncio.Event()
        self.stopped = asyncio.Event()
        prefix = f"rapids:{settings.stream}:{settings.group}"
        self._supervisor = TaskSupervisor(prefix, self._stop.asked, logger, self._context)
        self._executors: dict[str, Executor] = {}

    @property
    def last_progress(self) -> float | None:
        """When the reader last took a turn, or leases were renewed while it waits for room (`time.monotonic()`)."""
        return max(self._reader.turned_at, self._leases.renewed_at) if self.started.is_set() else None

    @property
    def trimming(self) -> Trimming | None:
        """What the last look of the trimming saw."""
        return self._trimmer.seen if self.started.is_set() else None

    async def health(self, commands: Commands) -> RouterHealth:
        """How it is, in one round trip and within seconds. `commands`: not those that it works with itself."""
        return await self._checkup.run(commands)

    def look_at_pause(self) -> None:
        """Look now whether the group is paused, rather than within a second."""
        if self.started.is_set():
            self._reclaimer.wake()

    def is_handling(self, under_way: UnderWay) -> bool:
        """Whether this very delivery is in its handler now."""
        return any(executor.is_handling(under_way) for executor in self._executors.values())

    def ask_to_stop(self) -> None:
        """Let `run` stop, and return at once."""
        self._stop.asked.set()

    async def run(self) -> None:
        """Run until asked to stop or cancelled; both stop gracefully.

        Raises `RedisUnavailableError` if Redis cannot be reached at the start, `RedisError` if it refuses.
        """
        try:
            await self._open()
            raise_if_cancelled()
            self._start_tasks()
            self.started.set()
            logger.info("started", extra=self._context)
            await self._stop.asked.wait()
        finally:
            await self._closed()

    async def _closed(self) -> None:
        """Close, however often this task is cancelled meanwhile; being cancelled again only cuts the waiting short."""
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
            await self._abandon()
        closing.result()
        if cancelled:
            raise asyncio.CancelledError

    async def _abandon(self) -> None:
        """The closing itself was cancelled: by an event loop that goes down, and waits for every task of ours."""
        self._stop.interrupts.set()
        await self._supervisor.end_all()
        await self._disconnect()

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
            member = Member(
                *(self._commands, self._sources, settings, self._identity),
                *(self._outages, self._repair, self._context, self._counts),
            )
            self._make_tasks(member)
            await self._find_place()
        except (RedisError, OSError) as error:
            if is_outage(error):
                why = reason(error)
                raise RedisUnavailableError(f"cannot start: Redis does not answer as it should: {why}") from error
            raise

    async def _find_place(self) -> None:
        for source in self._sources:
            if await groups.misses_parked(self._commands, source):
                await groups.create_again(self._commands, source, "0-0", given_out=False)
            state = await streams.group_state(self._commands, source)
            self._reader.last_read[source] = state.last_delivered_id
        await self._pausing.look()
        if not self._settings.exclusive:  # then the active consumer takes what is pending, of whomever
            await self._reclaimer.recall()

    def _make_tasks(self, member: Member) -> None:
        self._intake = Intake(self._settings.batch_size, in_order=self._settings.exclusive)
        lease_seconds = self._settings.claim_min_idle_ms / 1000
        self._inflight = Inflight(self._sources, self._counts, lease_seconds=lease_seconds)
        self._leases = Leases(member, self._inflight)
        self._exclusivity = Exclusivity(member, self._wake_reclaimer, self._let_go)
        self._pausing = Pausing(member, self._intake, self._exclusivity, self._take_back, self._go_on)
        self._reclaimer = Reclaimer(
            *(member, self._intake, self._inflight, self._exclusivity, self._pausing, self._release_overdue)
        )
        acks = Acks(member, self._inflight)
        self._settler = Settler(member, self._inflight, self._leases, acks, self._reclaimer.expect)
        self._reader = Reader(
            self._reading,
            member,
            self._intake,
            self._inflight,
            self._leases,
            acks,
            self._exclusivity,
            self._reclaimer.wake,
        )
        self._trimmer = Trimmer(member)
        dlq, most = self._settings.dlq_stream, self._settings.dlq_maxlen
        self._letter_room = None if dlq is None or most is None else LetterRoom(member, dlq, most)
        self._crew = Crew(
            member=member,
            planner=Planner(self._handlers, self._counts),
            runners=runners_of(self._handlers, self._middleware),
            intake=self._intake,
            inflight=self._inflight,
            leases=self._leases,
            claim=self._reclaimer.claim,
            fetch=self._reclaimer.fetch,
            peek=self._reclaimer.peek,
            settler=self._settler,
            exclusivity=self._exclusivity,
            stop=self._stop,
            deadlines=Deadlines(),
        )
        self._pulse = Pulse(self._crew, acks)
        self._checkup = Checkup(
            *(member, self._supervisor, self._stop, self._pulse, self._reader, self._reclaimer, self._pausing),
            *(self._crew, acks),
        )
        count = self._settings.concurrency
        names = ["executor"] if count == 1 else [f"executor {number}" for number in range(1, count + 1)]
        self._executors.update({name: Executor(self._crew) for name in names})

    # The parts refer to one another in a circle; these close it.

    def _wake_reclaimer(self) -> None:
        self._reclaimer.wake()

    def _let_go(self) -> None:
        self._crew.let_go()

    def _release_overdue(self) -> None:
        if not self._pausing.is_paused:
            self._crew.release_overdue()

    async def _take_back(self) -> None:
        self._settler.hand_back(self._crew.take_back())
        await self._reader.unblock(self._commands)

    def _go_on(self) -> None:
        self._crew.go_on()

    def _start_tasks(self) -> None:
        tasks: dict[str, Callable[[], Awaitable[None]]] = {
            "pulse": self._pulse.run,
            "settler": self._settler.run,
            "leases": self._leases.run,
            "identity": lambda: self._identity.run(self._leases.keep_name, self._outages),
            **{name: executor.run for name, executor in self._executors.items()},
            **({"exclusivity": self._exclusivity.run} if self._settings.exclusive else {}),
            **({"trimmer": self._trimmer.run} if self._settings.trim else {}),
            **({} if self._letter_room is None else {"letter room": self._letter_room.run}),
            "reclaimer": self._reclaimer.run,
            "reader": self._reader.run,
        }
        for name, body in tasks.items():
            self._supervisor.start(name, body)

    async def _repair(self, error: Exception) -> None:
        """Make the groups again if they are gone, where this reader left off, with what this process holds.

        Whichever process is the first to make them: each of them tells what it holds itself.
        """
        if not is_no_group(error):
            return
        for source in self._sources:
            start, given_out = await self._where_to_resume(source)
            if await groups.create_again(self._commands, source, start, given_out=given_out):
                logger.error(
                    "the group was gone and is made again at %s; entries before it that processes now gone had not "
                    "finished may be missing, and so may ledgers and waiting times where the server lost its data",
                    *(start,),
                    extra={**self._context, "stream": source.stream},
                )
            await self._leases.register_again(source)

    async def _where_to_resume(self, source: Source) -> tuple[str, bool]:
        """The entry id to resume behind, and whether all up to it had been given out to the lost group."""
        own, last = self._reader.last_read.get(source), await streams.last_id(self._commands, source.stream)
        if own is None or last is None:
            return "0-0", False
        start = min(own, last, key=order)
        return start, start == own

    async def _close(self) -> None:
        """The order matters: each step may still need the ones after it."""
        if self._supervisor.tasks:
            self._intake.close()
            await self._end_reading()
            await self._end_handling()
            self._crew.deadlines.close()
            self._settler.hand_back(self._crew.take_back())
            await self._flush()
            await self._supervisor.end("pulse")
            await self._supervisor.end("leases")
            await self._supervisor.end("identity")
            await self._supervisor.end("exclusivity")
            await self._let_name_go()
            logger.info("stopped", extra=self._context)
        await self._disconnect()

    async def _disconnect(self) -> None:
        self._counts.outage_ended()
        if self._supervisor.tasks:
            self._inflight.lose_all()
        for connection in (self._reading, self._commands):
            await connection.close()
        self.stopped.set()

    async def _end_reading(self) -> None:
        for name in ("trimmer", "letter room"):
            await self._supervisor.end(name)
        await self._supervisor.end("reclaimer")
        self._reader.stop()
        reading = self._supervisor.tasks["reader"]
        try:
            async with asyncio.timeout(UNBLOCK_TIME):
                while not reading.done():
                    await self._reader.unblock(self._commands)
                    await asyncio.wait([reading], timeout=0.02)
        except (TimeoutError, RedisError, OSError):
            await self._supervisor.end("reader")

    async def _end_handling(self) -> None:
        executing = [self._supervisor.tasks[name] for name in self._executors]
        if not self._crew.solitude.is_occupied:  # then they wait for Redis, if for anything, which may be away for long
            await asyncio.wait(executing, timeout=CLAIM_TIME)
            for name in self._executors:
                await self._supervisor.end(name)
            return
        if not await self._ended_in_time(executing):
            logger.warning("shutdown_timeout is over: interrupting the running handlers", extra=self._context)
            self._stop.interrupts.set()
            self._supervisor.ending(self._executors)
            for task in executing:
                task.cancel()
            await asyncio.wait(executing, timeout=CANCEL_GRACE)
        if left := [task for task in executing if not task.done()]:
            logger.error(
                "%d handlers do not end though they were cancelled; left behind", len(left), extra=self._context
            )

    async def _ended_in_time(self, executing: Sequence[asyncio.Task[None]]) -> bool:
        hurry = asyncio.create_task(self._hurry.wait(), name=f"{self._supervisor.prefix}:hurry")
        handling = asyncio.create_task(asyncio.wait(executing), name=f"{self._supervisor.prefix}:handling")
        await asyncio.wait(
            [handling, hurry], timeout=self._settings.shutdown_timeout, return_when=asyncio.FIRST_COMPLETED
        )
        in_time = all(task.done() for task in executing)
        hurry.cancel()
        handling.cancel()
        return in_time

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(FLUSH_TIME):
                await self._settler.flushed()
        except TimeoutError:
            logger.error("could not settle everything before stopping: it is delivered again", extra=self._context)
        await self._supervisor.end("settler")

    async def _let_name_go(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIME):
                await self._exclusivity.release()
                await self._identity.release()
        except (RedisError, OSError):
            logger.info("could not let the consumer name go; it does by itself", extra=self._context)
