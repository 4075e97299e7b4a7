"""Vitals: what a router knows of itself, and whether that is health. Plain decisions, without I/O."""

import math
from dataclasses import dataclass

from rapids._core.outages import Failing
from rapids._core.redis_errors import reason
from rapids._core.settings import RouterSettings
from rapids._storage.group_control import Standing
from rapids.health import HealthReason

__all__ = ["Limits", "Vitals", "judge"]

ANSWER_TIME = 5.0
"""Seconds Redis has to answer."""

LONGEST_PAUSE = 2.0
"""Seconds between two tries of what Redis did not do."""


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
        answer = ANSWER_TIME + LONGEST_PAUSE
        return cls(
            reader=settings.block_ms / 1000 + answer,
            lease=max(settings.claim_min_idle_ms / 1000, 2 * answer),
            progress=2 * answer,
            standby=answer + 0.5,
            failing=LONGEST_PAUSE,
        )


@dataclass(frozen=True, slots=True)
class Vitals:
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


def judge(vitals: Vitals, standing: "Standing | Exception | None", limits: Limits) -> tuple[HealthReason, str]:
    """Why a router is ready or is not, and that in a line. `standing`: how far its group is; None where it has no
    group, the error where Redis did not say."""
    return _fault(vitals, standing, limits) or _work(vitals, standing, limits)


def _fault(v: Vitals, standing: "Standing | Exception | None", limits: Limits) -> tuple[HealthReason, str] | None:
    """What is wrong whatever there is to do."""
    if v.is_stopping:
        return "stopping", "the router stops"
    if v.ended:
        return "task_ended", f"its {', '.join(v.ended)} has ended and does not come back: restart the process"
    if v.stall:
        why = "a handler that does not await, or the process was stopped"
        return "loop_blocked", f"the event loop stood still for {v.stall:.1f} s: {why}"
    if isinstance(standing, Exception):
        return "redis_unavailable", f"Redis unavailable: {type(standing).__name__}: {reason(standing)}"
    if standing is None:
        return "group_lost", "the stream or its consumer group is gone, and not made again yet"
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


def _work(v: Vitals, standing: "Standing | Exception | None", limits: Limits) -> tuple[HealthReason, str]:
    """Whether the work gets done, where nothing is wrong."""
    assert isinstance(standing, Standing)  # noqa: S101 - else it is a fault
    settled = f"the last settled {v.progress:.1f} s ago" if v.progress < math.inf else "none settled yet"
    doing = f"{v.running} entries in their handlers, {v.held} held, {settled}"
    if standing.paused is not None:
        return "paused", f"the group is paused {standing.paused.told}"
    if not v.is_active:
        return "standby", "another consumer of the group is the active one"
    if v.reader > limits.reader:
        return "reader_stuck", f"the reader has not come round for {v.reader:.0f} s"
    if v.idle_hands > limits.progress:
        return "handlers_stuck", f"no handler was begun for {v.idle_hands:.0f} s, though {v.held} entries are there"
    if not standing.has_more:
        if standing.waiting and not v.held:
            return "waiting", f"everything was delivered; {standing.waiting} entries wait for their next delivery"
        return "caught_up", f"everything was delivered to the group; {doing}"
    if v.lease <= limits.lease or v.progress <= limits.progress:
        return "working", doing
    if v.new <= limits.progress:
        return "starting", f"there is more to read since {v.new:.1f} s"
    if v.running and not v.held:
        return "leases_lost", f"other consumers took over all it held; {v.running} of its handlers still run"
    return "no_progress", f"there is more to read, and nothing was settled for {min(v.progress, v.new):.0f} s; {doing}"
