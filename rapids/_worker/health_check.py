"""The checkup: a router's vitals, and one question to Redis, within a bounded time."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from rapids._core.settings import RouterSettings
from rapids._core.supervision import Stop, TaskSupervisor
from rapids._storage import group_control
from rapids._storage.client.connections import Commands
from rapids._storage.group_control import Standing
from rapids._storage.keys import Source
from rapids._worker.acks import Acks
from rapids._worker.context import Member
from rapids._worker.executor import Crew
from rapids._worker.health_decision import READY, Limits, Vitals, judge
from rapids._worker.loop_monitor import Pulse
from rapids._worker.pause_state import Pausing
from rapids._worker.reader import Reader
from rapids._worker.reclaimer import Reclaimer
from rapids.health import RouterHealth

__all__ = ["Checkup", "not_running"]

ANSWER_WITHIN = 2.0
"""Seconds Redis has to answer."""


def not_running(settings: RouterSettings) -> RouterHealth:
    """The health of a router that has not started, or has stopped."""
    return RouterHealth(False, "not_running", "the router does not run", settings.stream, settings.group)


@dataclass(frozen=True, slots=True)
class Checkup:
    """Looks at the parts of a running router."""

    member: Member
    supervisor: TaskSupervisor
    stop: Stop
    pulse: Pulse
    reader: Reader
    reclaimer: Reclaimer
    pausing: Pausing
    crew: Crew
    acks: Acks

    async def run(self, commands: Commands) -> RouterHealth:
        """How the router is. One round trip."""
        settings, standing = self.member.settings, await _standing(commands, self.member.sources)
        vitals = self._vitals()
        reason, message = judge(vitals, standing, Limits.of(settings))
        since = min(vitals.progress, vitals.new)
        known = standing if isinstance(standing, Standing) else None
        return RouterHealth(
            *(reason in READY, reason, message, settings.stream, settings.group, vitals.consumer),
            running=vitals.running,
            held=vitals.held,
            pending=known and known.pending,
            waiting=known and known.waiting,
            last_delivered_id=known and known.last_delivered_id,
            last_id=known and known.last_id,
            seconds_since_progress=since if math.isfinite(since) else None,
        )

    def _vitals(self) -> Vitals:
        now, crew, failing = time.monotonic(), self.crew, self.member.outages.longest
        exclusivity, inflight = crew.exclusivity, crew.inflight
        return Vitals(
            consumer=self.member.name,
            ended=self.supervisor.broken,
            is_stopping=self.stop.asked.is_set(),
            stall=self.pulse.stall,
            failing=failing,
            failing_for=0.0 if failing is None else now - failing.since,
            is_active=exclusivity.is_active,
            standby=now - exclusivity.looked_at if self.member.settings.exclusive else 0.0,
            reads_as=self.reader.reads_as if exclusivity.is_active else None,
            name_lasts=self.member.identity.lasts,
            reader=0.0 if self.reader.is_waiting else now - self.reader.turned_at,
            reclaimer=now - self.reclaimer.turned_at,
            idle_hands=self.pulse.idle_seconds,
            running=crew.solitude.inside,
            held=len(inflight),
            lease=now - inflight.freshest_lease,
            progress=now - self.acks.settled_at,
            new=now - max(self.supervisor.started_at, self.pausing.resumed_at, exclusivity.gained_at),
        )


async def _standing(commands: Commands, sources: Sequence[Source]) -> Standing | Exception | None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN):
            return await group_control.standing(commands, sources)
    except TimeoutError as error:
        return error if str(error) else TimeoutError(f"no answer within {ANSWER_WITHIN:g} s")
    except (RedisError, OSError) as error:
        return error
