"""The executor: takes one delivery after another, runs its handlers, and says what became of each."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from rapids import correlation
from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.entry_id import order
from rapids._core.handlers import Handler
from rapids._core.outcomes import (
    ACK,
    NO_LEDGER,
    Dead,
    Failure,
    Keep,
    Outcome,
    Reason,
    Released,
    RetryAt,
    Settlement,
    settle,
)
from rapids._core.supervision import Stop
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._wire.letter_format import Origin
from rapids._worker.context import Member
from rapids._worker.deadlines import Deadlines
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.handler_run import Attempts, Runner
from rapids._worker.inflight import HeldEntry, Inflight, State
from rapids._worker.intake import Abandoned, Intake, Turn
from rapids._worker.lanes import Lanes
from rapids._worker.leases import Leases
from rapids._worker.observed import attempts_of
from rapids._worker.plan import NOTHING, Plan, Planned, Planner, Unplannable
from rapids._worker.run_alone import Solitude
from rapids._worker.settled import Settled
from rapids._worker.settler import Settler
from rapids.delivery import UnderWay
from rapids.events import Event

__all__ = ["Crew", "Executor"]

SETTLE_PATIENCE = 1.0
"""Seconds to wait for what has run to be settled before an abandoned entry is taken over."""

OVERDUE_GRACE = 2.0
"""Seconds after which an entry that was due again and did not come back is another consumer's."""

LANES_LIMIT = 10_000
"""Entries that wait in lanes, above which no more are read."""


@dataclass(frozen=True, slots=True)
class Crew:
    """What the executors of a worker share."""

    member: Member
    planner: Planner
    runners: Mapping[str, Runner]
    intake: Intake
    inflight: Inflight
    leases: Leases
    claim: Callable[[Abandoned], Awaitable[HeldEntry | None]]
    fetch: Callable[[HeldEntry], Awaitable[bool]]
    """Brings the payload of an entry back that was held without; False where it is gone."""
    peek: Callable[[Abandoned], Awaitable[RawEntry | None]]
    """Looks at an entry without claiming it; None where it is gone."""
    settler: Settler
    exclusivity: Exclusivity
    stop: Stop
    deadlines: Deadlines
    lanes: Lanes[HeldEntry | Abandoned] = field(default_factory=Lanes[HeldEntry | Abandoned])
    abandoned_in_lanes: set[tuple[Source, bytes]] = field(default_factory=set[tuple[Source, bytes]])
    solitude: Solitude = field(default_factory=Solitude)

    @property
    def has_idle_hands(self) -> bool:
        """Whether something is there to be begun, and no handler runs."""
        return not (self.intake.is_empty or self.intake.is_shut or self.solitude.is_occupied)

    def release_overdue(self) -> None:
        """Let lanes go on that waited too long for an entry to come back."""
        turns = [Turn(key, entry) for key, entry in self.lanes.overdue(time.monotonic())]
        if turns:
            self.intake.put_turns(turns)
            self.tell_room()

    def let_go(self) -> None:
        """Forget all that was not begun: another consumer is active now, and has taken it."""
        self.intake.drain()
        self.lanes.drain()
        self.abandoned_in_lanes.clear()
        self.inflight.lose_all()
        self.tell_room()

    def take_back(self) -> list[HeldEntry]:
        """All that was taken and not begun, in the order of the stream, to be handed back."""
        queued = [item for item in self.lanes.drain() if isinstance(item, HeldEntry)]
        self.abandoned_in_lanes.clear()
        self.tell_room()
        return sorted([*self.intake.drain(), *queued], key=lambda held: order(held.entry.entry_id))

    def go_on(self) -> None:
        """After a pause, in which nothing that lanes wait for could come back."""
        self.lanes.postpone(time.monotonic() + OVERDUE_GRACE)

    def tell_room(self) -> None:
        """See whether more may be read, as the lanes are."""
        self.intake.hold_up(self.lanes.queued >= LANES_LIMIT)


class Executor:
    """Takes entries from the intake in order; handlers of one entry run in order of registration, each for itself."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._settings = crew.member.settings
        self._order_by = crew.member.settings.order_by
        self._is_alone = crew.member.settings.concurrency == 1
        self._has_solitude = False
        self._attempts: Attempts | None = None

    def is_handling(self, under_way: UnderWay) -> bool:
        """Whether this very delivery is in its handler now."""
        return self._attempts is not None and self._attempts.is_under_way(under_way)

    async def run(self) -> None:
        """Work until the intake is closed. Cancelled, it settles what it was at, as interrupted."""
        crew = self._crew
        deadline = crew.deadlines.of_current_task()
        self._attempts = attempts_of(crew.member, crew.runners, crew.stop, deadline)
        intake, solitude = crew.intake, crew.solitude
        try:
            while True:
                if not solitude.is_free:
                    await solitude.free()
                    continue
                next_ = intake.pop()
                if next_ is None:
                    if intake.closed.is_set():
                        return
                    await intake.filled()
                elif isinstance(next_, HeldEntry):
                    await self._begin(next_)
                elif isinstance(next_, Turn):
                    await self._run_lane(next_.key, next_.item)
                else:
                    await self._take_over(next_)
        finally:
            crew.deadlines.forget(deadline)

    # --- what may begin, and when ---

    async def _take_over(self, abandoned: Abandoned) -> None:
        """Run an abandoned entry, or have it wait in its lane: not claimed, since that would spend a delivery."""
        if self._order_by is None:
            await self._run_abandoned(abandoned)
            return
        place = (abandoned.source, abandoned.entry_id)
        if place in self._crew.abandoned_in_lanes:
            return  # found again, for nobody has claimed it yet
        seen = await self._crew.peek(abandoned)
        key = None if seen is None else self._key_of(self._crew.planner.plan(seen))[0]
        if key is None:
            await self._run_abandoned(abandoned)
        elif self._crew.lanes.enter(key, abandoned.entry_id, abandoned):
            await self._run_lane(key, abandoned)
        else:
            self._crew.abandoned_in_lanes.add(place)
            self._crew.tell_room()

    async def _run_abandoned(self, abandoned: Abandoned) -> Settlement | None:
        """Claim an abandoned entry and run it; None where another consumer was faster.

        It may be what kills processes. At its second crash, or before its last chance, it runs with nothing beside it;
        the first time it does not hold up the others, which could fall with it only once.
        """
        self._crew.abandoned_in_lanes.discard((abandoned.source, abandoned.entry_id))
        may_have_killed_twice = abandoned.deliveries >= 2
        is_last_chance = abandoned.deliveries + 1 >= self._settings.max_deliveries
        stands_in_line = self._settings.exclusive  # nothing newer is to overtake it
        if not self._is_alone and (may_have_killed_twice or is_last_chance or stands_in_line):
            async with self._crew.solitude:
                self._has_solitude = True
                try:
                    return await self._claim_and_run(abandoned)
                finally:
                    self._has_solitude = False
        return await self._claim_and_run(abandoned)

    async def _claim_and_run(self, abandoned: Abandoned) -> Settlement | None:
        # What has run by then must be settled, or it would be delivered again with it, each time. A settlement that
        # Redis goes on refusing is no reason to wait for longer.
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_PATIENCE):
                await self._crew.settler.flushed()
        if self._crew.intake.is_shut:
            return None
        held = await self._crew.claim(abandoned)
        if held is None or not await self._may_begin(held):
            return None
        _, planned = self._key_of(self._crew.planner.plan(held.entry))
        return await self._run(held, planned)

    async def _begin(self, held: HeldEntry) -> None:
        if not self._is_certain(held) and not await self._may_begin(held):
            return
        planned = self._crew.planner.plan(held.entry)
        if self._order_by is None or planned is NOTHING:
            await self._run(held, planned)
            return
        key, planned = self._key_of(planned)
        if key is None:
            await self._run(held, planned)
        elif self._crew.lanes.enter(key, held.entry.entry_id, held):
            await self._run_lane(key, held, planned)
        else:
            self._wait_in_lane(held)

    def _is_certain(self, held: HeldEntry) -> bool:
        """Whether an entry may be begun without a question; most may."""
        return self._crew.leases.certain(held) and self._crew.exclusivity.lasts and not self._crew.intake.is_shut

    async def _may_begin(self, held: HeldEntry) -> bool:
        """Whether an entry is still ours, and handlers are still begun. If not, it is handed back like the others."""
        intake, exclusivity = self._crew.intake, self._crew.exclusivity
        if not self._crew.leases.certain(held) or not exclusivity.lasts:
            try:
                if not exclusivity.lasts and not await exclusivity.confirm():
                    self._crew.inflight.lose(held)
                    return False
                if not await self._crew.leases.still_ours(held):
                    return False
            except BaseException:
                intake.put((held,))
                raise
        if intake.is_shut:
            intake.put((held,))
            return False
        return True

    def _key_of(self, planned: Planned) -> tuple[Hashable, Planned]:
        """What entries are kept in order by; None for those that need no order. `order_by` is the user's code."""
        if not isinstance(planned, Plan) or self._order_by is None:
            return None, planned
        try:
            key = self._order_by(planned.event)
            hash(key)
        except Exception as error:
            dead = Dead("", Reason.NON_RETRYABLE, Failure.of(error))
            return None, Unplannable(dead, planned.fields, planned.counts, planned.ledger, planned.replay)
        return key, planned

    def _wait_in_lane(self, held: HeldEntry) -> None:
        """An entry waits without its payload where many do, so that memory holds their ids only."""
        held.enter(State.IN_LANE)
        if self._crew.lanes.queued > self._settings.batch_size + self._settings.concurrency:
            held.entry = held.entry._replace(fields=())
        self._crew.tell_room()

    async def _run_lane(self, key: Hashable, first: HeldEntry | Abandoned, planned: Planned | None = None) -> None:
        """Run an entry of a lane, and then those that were queued behind it."""
        lanes, following = self._crew.lanes, first
        while True:
            try:
                settlement = await self._run_in_lane(following, planned)
            except BaseException:  # whatever ends this executor, the lane goes on with another, or is handed back
                if (next_ := lanes.leave(key)) is not None:
                    self._crew.intake.put_turns((Turn(key, next_),))
                raise
            if isinstance(settlement, Keep) and self._settings.retry_blocks_key:
                entry_id = following.entry_id if isinstance(following, Abandoned) else following.entry.entry_id
                lanes.hold(key, entry_id, time.monotonic() + settlement.delay + OVERDUE_GRACE)
                return
            if self._crew.intake.closed.is_set() or (next_ := lanes.leave(key)) is None:
                return
            self._crew.tell_room()
            following, planned = next_, None

    async def _run_in_lane(self, held: HeldEntry | Abandoned, planned: Planned | None) -> Settlement | None:
        """Run an entry whose turn has come; None where it was somebody else's by then, or gone."""
        if isinstance(held, Abandoned):
            return await self._run_abandoned(held)
        if planned is not None:
            return await self._run(held, planned)
        if not await self._may_begin(held) or not (held.entry.fields or await self._crew.fetch(held)):
            return None
        return await self._run(held, self._crew.planner.plan(held.entry))

    # --- running it ---

    async def _run(self, held: HeldEntry, planned: Planned) -> Settlement | None:
        if isinstance(planned, Plan):
            solitude = self._crew.solitude
            if not solitude.is_free and not self._has_solitude:
                await solitude.free()  # also for a lane's backlog: somebody is alone, or waits to be
                if not await self._may_begin(held):
                    return None
            held.enter(State.RUNNING)
            solitude.enter()
            try:
                return await self._deliver(held, planned)
            finally:
                solitude.leave()
        if isinstance(planned, Unplannable):
            attempt = Attempt.of(
                planned.dead.failure, delivery=held.entry.deliveries, attempt=1, consumer=self._crew.member.name
            )
            return self._settle(held, planned, None, [replace(planned.dead, attempts=AttemptLog.of(attempt))])
        self._crew.member.counts.ignored += 1
        self._crew.settler.acknowledge(held)
        return ACK

    async def _deliver(self, held: HeldEntry, plan: Plan) -> Settlement:
        entry = held.entry
        event, handlers, attempts = plan.event, plan.handlers, self._attempts
        assert attempts is not None  # noqa: S101 - made when the executor began to run
        correlation.handle(event.correlation_id, event.id)
        outcomes: list[Outcome] = []
        failed = False
        try:
            for handler in handlers:
                outcome = await attempts.run(handler, self._under_way(handler, plan, entry), plan.counts)
                outcomes.append(outcome)
                failed = failed or outcome is not handler.done
        except BaseException:  # what had finished by then is settled as finished
            left = handlers[len(outcomes) :]  # the first of them was at it
            outcomes += [Released(handler.name, attempts.take_failed()) for handler in left]
            self._settle(held, plan, event, outcomes)
            raise
        if plan.ledger is NO_LEDGER and not failed:
            self._crew.settler.acknowledge(held)
            return ACK
        for name in plan.absent:
            spent = plan.ledger.deliveries_of(name, entry.deliveries)
            outcomes.append(attempts.absent(name, spent, entry))
        return self._settle(held, plan, event, outcomes)

    def _under_way(self, handler: Handler, plan: Plan, entry: RawEntry) -> UnderWay:
        source, ledger, replay = entry.source, plan.ledger, plan.replay
        return UnderWay(
            plan.event,
            handler.name,
            source.stream,
            source.group,
            self._crew.member.name,
            entry.entry_id,
            entry.deliveries,
            1,
            replay.letter_id if replay else None,
            entry.deliveries if ledger is NO_LEDGER else ledger.deliveries_of(handler.name, entry.deliveries),
        )

    def _settle(
        self, held: HeldEntry, planned: Plan | Unplannable, event: Event | None, outcomes: list[Outcome]
    ) -> Settlement:
        entry = held.entry
        settlement = settle(
            *(outcomes, planned.ledger, entry.deliveries),
            dead_letters=self._settings.dlq_stream is not None,
            now_ms=entry.taken_ms,
        )
        replay = planned.replay
        origin = Origin(
            entry_id=(replay.original_entry_id if replay else "") or entry.entry_id.decode(),
            stream=self._settings.stream,
            group=entry.source.group,
            consumer=self._crew.member.name,
            deliveries=entry.deliveries,
            replay_of=replay.letter_id if replay else "",
            replay_count=replay.count if replay else 0,
        )
        self._crew.settler.put(
            Settled(
                *(held, entry._replace(fields=planned.fields), settlement, origin),
                event_id=event.id if event else "",
                correlation_id=(event.correlation_id or event.id) if event else "",
                counts=planned.counts,
                retried=tuple(outcome.handler for outcome in outcomes if isinstance(outcome, RetryAt)),
            )
        )
        return settlement
