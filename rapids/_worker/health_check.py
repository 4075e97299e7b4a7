"""The health check: what a router knows of itself, one question to Redis, and whether that is health."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from rapids._core.outages import Failing
from rapids._core.redis_errors import reason
from rapids._core.settings import RouterSettings
from rapids._core.supervision import Stop, TaskSupervisor
from rapids._storage import group_control
from rapids._storage.client.connections import Commands
from rapids._storage.group_control import GroupProgress
from rapids._storage.keys import Source
from rapids._worker.acks import Acks
from rapids._worker.context import WorkerContext
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.gate import Gate
from rapids._worker.inflight import Inflight
from rapids._worker.intake import Intake
from rapids._worker.pause_state import PauseState
from rapids._worker.reader import Reader
from rapids._worker.reclaimer import Reclaimer
from rapids.health import HealthReason, RouterHealth

__all__ = ["READY", "HealthCheck", "HealthSnapshot", "Limits", "LoopMonitor", "judge", "not_running"]

ANSWER_WITHIN = 2.0
"""Seconds Redis has to answer."""

ANSWER_TIME = 5.0
"""Seconds Redis has to answer."""

MAX_PAUSE = 2.0
"""Seconds between two tries of what Redis did not do."""

INTERVAL = 0.5
"""Seconds between two beats. Nothing is asked of Redis."""

STALL = 3.0
"""Seconds for which the loop may stand still: half of what a consumer's name lasts without being kept."""

MEMORY = 10.0
"""Seconds for which a stall is remembered. While the loop stands still nothing can be reported."""


@dataclass(frozen=True, slots=True)
class Limits:
    """For how long each thing may take, in seconds; all of them follow from the settings and from Redis' time limits.

    - `reader`: `block_ms`, the time for the answer, and a pause: a turn of the reader.
    - `lease`: `claim_min_idle_ms`, after which a lease that was not renewed has lapsed; `progress` at the least.
    - `progress`: twice an answer and a pause: within it something is settled, where there is more to read and no lease
      is held; the reclaimer, which turns each second, comes round; and a handler is begun where something is there.
    - `standby`: an answer and a pause beyond half a second: a look at who is active.
    - `failing`: a pause: how long Redis may refuse something before that is more than a hiccup.
    """

    reader: float
    lease: float
    progress: float
    standby: float
    failing: float

    @classmethod
    def of(cls, settings: RouterSettings) -> "Limits":
        """Those of a router with these settings."""
        answer = ANSWER_TIME + MAX_PAUSE
        return cls(
            reader=settings.block_ms / 1000 + answer,
            lease=max(settings.claim_min_idle_ms / 1000, 2 * answer),
            progress=2 * answer,
            standby=answer + 0.5,
            failing=MAX_PAUSE,
        )


@dataclass(frozen=True, slots=True)
class HealthSnapshot:
    """A router at one moment. Times are seconds that have passed since."""

    consumer: str
    ended: tuple[str, ...]
    """Its tasks that have ended."""
    is_stopping: bool
    stall: float
    failing: Failing | None
    failing_for: float
    is_active: bool
    standby: float
    """Since it looked who is active; 0 where any may be."""
    reads_as: str | None
    name_lasts: bool
    reader: float
    """Since the reader turned; 0 where it waits for its turn or, no longer than it may, for something to read."""
    reclaimer: float
    idle_hands: float
    running: int
    held: int
    lease: float
    """Since a lease was known to last; infinite where none is held."""
    progress: float
    """Since something was settled."""
    new: float
    """Since it started, became active, or came out of a pause."""


READY: tuple[HealthReason, ...] = ("caught_up", "working", "waiting", "starting", "paused", "standby")


def judge(
    snapshot: HealthSnapshot, progress: GroupProgress | Exception | None, limits: Limits
) -> tuple[HealthReason, str]:
    """Why a router is ready or is not, and that in a line. `progress`: how far its group is; None where it has no
    group, the error where Redis did not say."""
    return _fault(snapshot, progress, limits) or _work(snapshot, progress, limits)


def _fault(
    v: HealthSnapshot, progress: GroupProgress | Exception | None, limits: Limits
) -> tuple[HealthReason, str] | None:
    """What is wrong whatever there is to do."""
    if v.is_stopping:
        return "stopping", "the router stops"
    if v.ended:
        return "task_ended", f"its {', '.join(v.ended)} has ended and does not come back: restart the process"
    if v.stall:
        why = "a handler that does not await, or the process was stopped"
        return "loop_blocked", f"the event loop stood still for {v.stall:.1f} s: {why}"
    if isinstance(progress, Exception):
        return "redis_unavailable", f"Redis unavailable: {type(progress).__name__}: {reason(progress)}"
    if progress is None:
        return "group_lost", "the stream or its consumer group is gone, and not recreated yet"
    if v.failing is not None and v.failing_for > limits.failing:
        what, error = v.failing.operation, v.failing.error
        return "redis_unavailable", f"{what} has been failing for {v.failing_for:.0f} s: {error}"
    if v.reclaimer > limits.progress:
        return "reclaimer_stuck", f"the reclaimer has not come round for {v.reclaimer:.0f} s"
    if v.standby > limits.standby:
        return "standby_stuck", f"it has not been known for {v.standby:.0f} s which consumer is active"
    if not v.name_lasts or v.reads_as not in (None, v.consumer):
        return "name_taken", f"the consumer's name was taken by another process, and nothing is read as {v.consumer!r}"
    return None


def _work(v: HealthSnapshot, progress: GroupProgress | Exception | None, limits: Limits) -> tuple[HealthReason, str]:
    """Whether the work gets done, where nothing is wrong."""
    assert isinstance(progress, GroupProgress)  # noqa: S101 - else it is a fault
    settled = f"the last settled {v.progress:.1f} s ago" if v.progress < math.inf else "none settled yet"
    doing = f"{v.running} entries in their handlers, {v.held} held, {settled}"
    if progress.paused is not None:
        return "paused", f"the group is paused {progress.paused.description}"
    if not v.is_active:
        return "standby", "another consumer of the group is the active one"
    if v.reader > limits.reader:
        return "reader_stuck", f"the reader has not come round for {v.reader:.0f} s"
    if v.idle_hands > limits.progress:
        return "handlers_stuck", f"no handler was begun for {v.idle_hands:.0f} s, though {v.held} entries are there"
    if not progress.has_more:
        if progress.waiting and not v.held:
            return "waiting", f"everything was delivered; {progress.waiting} entries wait for their next delivery"
        return "caught_up", f"everything was delivered to the group; {doing}"
    if v.lease <= limits.lease or v.progress <= limits.progress:
        return "working", doing
    if v.new <= limits.progress:
        return "starting", f"there is more to read since {v.new:.1f} s"
    if v.running and not v.held:
        return "leases_lost", f"other consumers took over all it held; {v.running} of its handlers still run"
    return "no_progress", f"there is more to read, and nothing was settled for {min(v.progress, v.new):.0f} s; {doing}"


class LoopMonitor:
    """Beats on the event loop that everything of a router runs on."""

    def __init__(self, gate: Gate, intake: Intake, acks: Acks) -> None:
        self._gate = gate
        self._intake = intake
        self._acks = acks
        self._beat_at = time.monotonic()
        self._stall = 0.0
        self._stalled_at = 0.0
        self._idle_since: float | None = None
        self._idle_mark = 0.0

    async def run(self) -> None:
        """Beat until cancelled."""
        self._beat_at = time.monotonic()
        while True:
            await asyncio.sleep(INTERVAL)
            self._beat(time.monotonic())

    def _beat(self, now: float) -> None:
        if (late := now - self._beat_at - INTERVAL) > STALL:
            self._stall, self._stalled_at = late, now
        self._beat_at = now
        settled_at = self._acks.settled_at  # which moves when any handler has come to an end
        may_begin = not (self._intake.is_empty or self._gate.is_shut or self._gate.running)
        if not may_begin or self._idle_mark != settled_at:
            self._idle_since, self._idle_mark = None, settled_at
        elif self._idle_since is None:
            self._idle_since = now

    @property
    def stall(self) -> float:
        """Seconds for which the loop stood still just now or lately; 0 where that was not for long."""
        return self._stall if time.monotonic() - self._stalled_at < MEMORY else 0.0

    @property
    def idle_seconds(self) -> float:
        """For how long something has been there to be begun, and nothing was."""
        return 0.0 if self._idle_since is None else time.monotonic() - self._idle_since


def not_running(settings: RouterSettings) -> RouterHealth:
    """The health of a router that has not started, or has stopped."""
    return RouterHealth(False, "not_running", "the router does not run", settings.stream, settings.group)


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """Looks at the parts of a running router."""

    context: WorkerContext
    supervisor: TaskSupervisor
    stop: Stop
    gate: Gate
    inflight: Inflight
    acks: Acks
    loop_monitor: LoopMonitor
    reader: Reader
    reclaimer: Reclaimer
    exclusivity: Exclusivity
    pause_state: PauseState

    async def run(self, commands: Commands) -> RouterHealth:
        """How the router is. One round trip."""
        settings, progress = self.context.settings, await _progress(commands, self.context.sources)
        snapshot = self._snapshot()
        why, message = judge(snapshot, progress, Limits.of(settings))
        since = min(snapshot.progress, snapshot.new)
        known = progress if isinstance(progress, GroupProgress) else None
        return RouterHealth(
            why in READY,
            why,
            message,
            settings.stream,
            settings.group,
            snapshot.consumer,
            running=snapshot.running,
            held=snapshot.held,
            pending=known and known.pending,
            waiting=known and known.waiting,
            last_delivered_id=known and known.last_delivered_id,
            last_id=known and known.last_id,
            seconds_since_progress=since if math.isfinite(since) else None,
        )

    def _snapshot(self) -> HealthSnapshot:
        now, failing = time.monotonic(), self.context.outages.longest
        gate, exclusivity, inflight = self.gate, self.exclusivity, self.inflight
        return HealthSnapshot(
            consumer=self.context.name,
            ended=self.supervisor.broken,
            is_stopping=self.stop.asked.is_set(),
            stall=self.loop_monitor.stall,
            failing=failing,
            failing_for=0.0 if failing is None else now - failing.since,
            is_active=gate.is_active,
            standby=now - exclusivity.looked_at if self.context.settings.exclusive else 0.0,
            reads_as=self.reader.reads_as if gate.is_active else None,
            name_lasts=now < gate.name_until,
            reader=0.0 if self.reader.is_waiting else now - self.reader.turned_at,
            reclaimer=now - self.reclaimer.turned_at,
            idle_hands=self.loop_monitor.idle_seconds,
            running=gate.running,
            held=len(inflight),
            lease=now - inflight.freshest_lease,
            progress=now - self.acks.settled_at,
            new=now - max(self.supervisor.started_at, self.pause_state.resumed_at, exclusivity.gained_at),
        )


async def _progress(commands: Commands, sources: Sequence[Source]) -> GroupProgress | Exception | None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await group_control.progress(commands, sources)
    except TimeoutError as error:
        return error if str(error) else TimeoutError(f"no answer within {ANSWER_WITHIN:g} s")
    except (RedisError, OSError) as error:
        return error
