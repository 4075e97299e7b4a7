"""The health check: whether a router does its work, by the state of its parts and one question to Redis."""

import asyncio
import math
import time
from dataclasses import dataclass

from redis.exceptions import RedisError

from rapids._core.redis_errors import reason
from rapids._core.settings import RouterSettings
from rapids._core.supervision import Stop, TaskSupervisor
from rapids._storage import group_control
from rapids._storage.client.connections import Commands
from rapids._storage.group_control import GroupProgress
from rapids._worker.acks import Acks
from rapids._worker.context import WorkerContext
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.fetcher import Fetcher
from rapids._worker.gate import Gate
from rapids._worker.inflight import Inflight
from rapids._worker.intake import Intake
from rapids._worker.pause_state import PauseState
from rapids._worker.reader import Reader
from rapids._worker.reclaimer import Reclaimer
from rapids.health import HealthReason, RouterHealth

__all__ = ["READY", "HealthCheck", "Limits", "LoopMonitor", "not_running"]

ANSWER_WITHIN = 2.0
"""Seconds that Redis has to answer the health check."""

ANSWER_TIME = 5.0
"""Seconds that Redis has to answer a command of the router."""

MAX_PAUSE = 2.0
"""The longest pause between two attempts during an outage, in seconds."""

NAMED = 5
"""How many entries a message names."""

INTERVAL = 0.5
"""Seconds between two beats of the loop monitor."""

STALL = 3.0
"""Seconds for which the event loop may be blocked: half of the time to live of a consumer's name."""

MEMORY = 10.0
"""Seconds for which a blocked loop is reported after its end. While the loop is blocked, nothing can be reported."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each part may take, in seconds. All limits follow from the settings and from the time limits of Redis.

    - `reader`: a turn of the reader: `block_ms`, the time for the answer, and a pause.
    - `lease`: a lease is not renewed: `claim_min_idle_ms`, after which it has lapsed, but at least `progress`.
    - `progress`: two answers, each with a pause. Within this time something is settled if there is more to read and no
      lease is held, the reclaimer takes a turn, and a handler begins if an entry is ready for it.
    - `standby`: a look at which consumer is active: half a second, an answer and a pause.
    - `failing`: a pause: how long Redis may refuse an operation.
    """

    reader: float
    lease: float
    progress: float
    standby: float
    failing: float

    @classmethod
    def of(cls, settings: RouterSettings, answer_time: float = ANSWER_TIME) -> "Limits":
        """The limits of a router with these settings. `answer_time`: how long an answer may take (seconds)."""
        answer = answer_time + MAX_PAUSE
        return cls(
            reader=settings.block_ms / 1000 + answer,
            lease=max(settings.claim_min_idle_ms / 1000, 2 * answer),
            progress=2 * answer,
            standby=answer + 0.5,
            failing=MAX_PAUSE,
        )


READY: tuple[HealthReason, ...] = ("caught_up", "working", "waiting", "starting", "paused", "standby")


class LoopMonitor:
    """Beats on the event loop of the router, so that a late beat shows that the loop was blocked."""

    def __init__(self, gate: Gate, intake: Intake, acks: Acks) -> None:
        self._gate = gate
        self._intake = intake
        self._acks = acks
        self._stall = 0.0
        self._stalled_at = 0.0
        self._idle_since: float | None = None

    async def run(self) -> None:
        """Beat until cancelled."""
        beat_at, last_settled_at = time.monotonic(), 0.0
        while True:
            await asyncio.sleep(INTERVAL)
            now = time.monotonic()
            if (late := now - beat_at - INTERVAL) > STALL:
                self._stall, self._stalled_at = late, now
            beat_at = now
            settled_at = self._acks.settled_at  # it changes when any handler has finished
            may_begin = not (self._intake.is_empty or self._gate.is_shut or self._gate.running)
            if not may_begin or last_settled_at != settled_at:
                self._idle_since, last_settled_at = None, settled_at
            elif self._idle_since is None:
                self._idle_since = now

    @property
    def stall(self) -> float:
        """For how many seconds the loop was blocked, now or a short time ago; 0 if that was not long."""
        return self._stall if time.monotonic() - self._stalled_at < MEMORY else 0.0

    @property
    def idle_seconds(self) -> float:
        """For how many seconds an entry has been ready to begin, and none began."""
        return 0.0 if self._idle_since is None else time.monotonic() - self._idle_since


def not_running(settings: RouterSettings) -> RouterHealth:
    """The health of a router that has not started, or has stopped."""
    return RouterHealth(False, "not_running", "the router does not run", settings.stream, settings.group)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Judges a running router."""

    context: WorkerContext
    supervisor: TaskSupervisor
    stop: Stop
    gate: Gate
    inflight: Inflight
    acks: Acks
    loop_monitor: LoopMonitor
    reader: Reader
    reclaimer: Reclaimer
    fetcher: Fetcher
    exclusivity: Exclusivity
    pause_state: PauseState
    answer_time: float
    """Seconds that an answer may take."""

    async def run(self, commands: Commands) -> RouterHealth:
        """The router's health. One round trip."""
        settings = self.context.settings
        progress: GroupProgress | Exception | None
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                progress = await group_control.progress(commands, self.context.sources)
        except TimeoutError as error:
            progress = error if str(error) else TimeoutError(f"no answer within {ANSWER_WITHIN:g} s")
        except (RedisError, OSError) as error:
            progress = error
        limits = Limits.of(settings, self.answer_time)
        judged = self._fault(progress, limits)
        known = progress if isinstance(progress, GroupProgress) else None
        if judged is None:
            assert known is not None  # noqa: S101 - otherwise it is a fault
            judged = self._work(known, limits)
        why, message = judged
        if unfetched := self.fetcher.unfetched:
            message += f"; {len(unfetched)} entries cannot be fetched: {', '.join(unfetched[:NAMED])}"
        since_progress = min(self._since_settled, self._since_begin)
        return RouterHealth(
            why in READY,
            why,
            message,
            settings.stream,
            settings.group,
            self.context.name,
            running=self.gate.running,
            held=len(self.inflight),
            pending=known and known.pending,
            waiting=known and known.waiting,
            last_delivered_id=known and known.last_delivered_id,
            last_id=known and known.last_id,
            seconds_since_progress=since_progress if math.isfinite(since_progress) else None,
        )

    @property
    def _since_settled(self) -> float:
        """Seconds since something was settled."""
        return time.monotonic() - self.acks.settled_at

    @property
    def _since_begin(self) -> float:
        """Seconds since the router started, became active, or was resumed."""
        began_at = max(self.supervisor.started_at, self.pause_state.resumed_at, self.exclusivity.gained_at)
        return time.monotonic() - began_at

    def _fault(self, progress: GroupProgress | Exception | None, limits: Limits) -> tuple[HealthReason, str] | None:
        """What is wrong even if there is no work, in one line.

        `progress`: None if there is no such group, the error if Redis did not answer.
        """
        now, gate, name = time.monotonic(), self.gate, self.context.name
        if self.stop.asked.is_set():
            return "stopping", "the router stops"
        if ended := self.supervisor.broken:
            return (
                "task_ended",
                f"these tasks have ended and are not restarted: {', '.join(ended)}; restart the process",
            )
        if stall := self.loop_monitor.stall:
            why = "a handler that does not await, or the process was stopped"
            return "loop_blocked", f"the event loop stood still for {stall:.1f} s: {why}"
        if isinstance(progress, Exception):
            return "redis_unavailable", f"Redis unavailable: {type(progress).__name__}: {reason(progress)}"
        if progress is None:
            return "group_lost", "the stream or its consumer group is gone, and not recreated yet"
        failing = self.context.outages.longest
        if failing is not None and (seconds := now - failing.since) > limits.failing:
            return "redis_unavailable", f"{failing.operation} has been failing for {seconds:.0f} s: {failing.error}"
        if (seconds := now - self.reclaimer.turned_at) > limits.progress:
            return "reclaimer_stuck", f"the reclaimer has taken no turn for {seconds:.0f} s"
        if self.context.settings.exclusive and (seconds := now - self.exclusivity.looked_at) > limits.standby:
            return "standby_stuck", f"it has not been known for {seconds:.0f} s which consumer is active"
        reads_as = self.reader.reads_as if gate.is_active else None
        if now >= gate.name_until or reads_as not in (None, name):
            return "name_taken", f"another process took the consumer's name, and nothing is read as {name!r}"
        return None

    def _work(self, progress: GroupProgress, limits: Limits) -> tuple[HealthReason, str]:
        """Whether the work is done if nothing is wrong, in one line."""
        now, running, held = time.monotonic(), self.gate.running, len(self.inflight)
        since_settled, since_begin = self._since_settled, self._since_begin
        settled = f"the last settled {since_settled:.1f} s ago" if since_settled < math.inf else "none settled yet"
        doing = f"{running} entries in their handlers, {held} held, {settled}"
        if progress.paused is not None:
            return "paused", f"the group is paused {progress.paused.description}"
        if not self.gate.is_active:
            return "standby", "another consumer of the group is the active one"
        if not self.reader.is_waiting and (seconds := now - self.reader.turned_at) > limits.reader:
            return "reader_stuck", f"the reader has taken no turn for {seconds:.0f} s"
        if (seconds := self.loop_monitor.idle_seconds) > limits.progress:
            return "handlers_stuck", f"no handler began for {seconds:.0f} s, although {held} entries are held"
        if not progress.has_more:
            if progress.waiting and not held:
                return "waiting", f"everything was delivered; {progress.waiting} entries wait for their next delivery"
            return "caught_up", f"everything was delivered to the group; {doing}"
        if now - self.inflight.freshest_lease <= limits.lease or since_settled <= limits.progress:
            return "working", doing
        if since_begin <= limits.progress:
            return "starting", f"there is more to read since {since_begin:.1f} s"
        if running and not held:
            return "leases_lost", f"other consumers took over all it held; {running} of its handlers still run"
        seconds = min(since_settled, since_begin)
        return "no_progress", f"there is more to read, and nothing was settled for {seconds:.0f} s; {doing}"
