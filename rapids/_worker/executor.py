"""The executor: takes one entry after another, runs its handlers, and makes a settlement of their outcomes."""

import asyncio
import time
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from rapids._core.attempt_log import Attempt, AttemptLog
from rapids._core.outcomes import (
    ACK,
    NO_LEDGER,
    Dead,
    Failure,
    Keep,
    Ledger,
    Outcome,
    Reason,
    RetryAt,
    Settlement,
    settle,
)
from rapids._core.supervision import Stop
from rapids._wire.letter_format import Origin
from rapids._worker.context import WorkerContext
from rapids._worker.deadlines import Deadlines
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.fetcher import Fetcher, UnfetchableError
from rapids._worker.gate import Answer, Gate
from rapids._worker.handler_run import HandlerRunner, handler_runner
from rapids._worker.inflight import HeldEntry, Inflight, State
from rapids._worker.intake import Abandoned, Intake, Turn
from rapids._worker.leases import Leases
from rapids._worker.plan import Nothing, Plan, Planned, Planner, Unplannable
from rapids._worker.reclaimer import Reclaimer
from rapids._worker.runners import Runner
from rapids._worker.settled import Settled
from rapids._worker.settler import Settler
from rapids.delivery import UnderWay
from rapids.events import Event

__all__ = ["Executor", "ExecutorContext"]

MAX_SETTLE_WAIT = 1.0
"""Seconds to wait for the settlements of earlier entries before an abandoned entry is claimed."""


BEGIN = Answer.BEGIN


@dataclass(frozen=True, slots=True)
class ExecutorContext:
    """What the executors of a worker share."""

    worker: WorkerContext
    gate: Gate
    inflight: Inflight
    intake: Intake
    leases: Leases
    exclusivity: Exclusivity
    reclaimer: Reclaimer
    fetcher: Fetcher
    settler: Settler
    planner: Planner
    runners: Mapping[str, Runner]
    stop: Stop
    deadlines: Deadlines


class Executor:
    """Takes entries from the intake. The handlers of an entry run in order of registration; a failure of one does not
    prevent the others."""

    def __init__(self, context: ExecutorContext) -> None:
        self._context = context
        self._gate = context.gate
        self._intake = context.intake
        self._settler = context.settler
        self._planner = context.planner
        self._settings = context.worker.settings
        self._identity = context.worker.identity
        self._order_by = self._settings.order_by
        self._measures = context.worker.counts.measures
        self._runs_alone = False
        """Whether its entry runs alone now."""
        self._runner: HandlerRunner | None = None

    def is_handling(self, under_way: UnderWay) -> bool:
        """Whether this very delivery is in its handler now."""
        return self._runner is not None and self._runner.is_under_way(under_way)

    async def run(self) -> None:
        """Work until the intake is closed. If cancelled, settle the current entry as interrupted."""
        context, intake, gate = self._context, self._intake, self._gate
        deadline = context.deadlines.of_current_task()
        self._runner = handler_runner(context.worker, context.runners, context.stop, deadline)
        try:
            while True:
                if not gate.is_free:
                    await gate.free()
                    continue
                next_ = intake.pop()
                if next_ is None:
                    if gate.closed.is_set():
                        return
                    await intake.filled()
                elif isinstance(next_, HeldEntry):
                    if not (next_.entry.fields or await self._fetch(next_)):
                        continue
                    if gate.ask(next_) is BEGIN or await self._may_begin(next_):
                        key, planned = None, self._planner.plan(next_.entry)
                        if self._order_by is not None:
                            key, planned = self._planner.key_of(planned)
                        if key is None:
                            await self._run(next_, planned)
                        elif intake.enter_lane(key, next_):
                            await self._run_lane(key, next_, planned)
                elif isinstance(next_, Turn):
                    await self._run_lane(next_.key, next_.item)
                else:
                    await self._take_over(next_)
        finally:
            context.deadlines.forget(deadline)

    # --- what may begin, and when ---

    async def _take_over(self, abandoned: Abandoned) -> None:
        """Run an abandoned entry, or let it wait in its lane, unclaimed: a claim counts as a delivery."""
        if self._order_by is None:
            await self._run_abandoned(abandoned)
            return
        if self._intake.is_in_lane(abandoned):
            return  # found again, since it is not claimed yet
        seen = await self._context.reclaimer.peek(abandoned)
        key = None if seen is None else self._planner.key_of(self._planner.plan(seen))[0]
        if key is None:
            await self._run_abandoned(abandoned)
        elif self._intake.enter_lane_abandoned(key, abandoned):
            await self._run_lane(key, abandoned)

    async def _run_abandoned(self, abandoned: Abandoned) -> Settlement | None:
        """Claim an abandoned entry and run it; None if another consumer was faster.

        The entry may be what kills processes. After a second crash, or at its last delivery, it runs alone, so that no
        other entry is interrupted with it again. After the first crash it does not run alone, since that would delay
        all others.
        """
        self._intake.forget_in_lane(abandoned)
        may_have_killed_twice = abandoned.deliveries >= 2
        is_last_chance = abandoned.deliveries + 1 >= self._settings.max_deliveries
        must_be_next = self._settings.exclusive  # no newer entry may begin before it
        if self._settings.concurrency > 1 and (may_have_killed_twice or is_last_chance or must_be_next):
            async with self._gate.alone():
                self._runs_alone = True
                try:
                    return await self._claim_and_run(abandoned)
                finally:
                    self._runs_alone = False
        return await self._claim_and_run(abandoned)

    async def _claim_and_run(self, abandoned: Abandoned) -> Settlement | None:
        # Entries that have run must be settled first: if this entry kills the process, they would be delivered again
        # each time. But a settlement that Redis keeps refusing must not block it for longer.
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_SETTLE_WAIT):
                await self._settler.flushed()
        if self._gate.is_shut:
            return None
        held = await self._context.reclaimer.claim(abandoned)
        if held is None or not (held.entry.fields or await self._fetch(held)) or not await self._may_begin(held):
            return None
        _, planned = self._planner.key_of(self._planner.plan(held.entry))
        return await self._run(held, planned)

    async def _fetch(self, held: HeldEntry, *, again: bool = False) -> bool:
        """Fetch the fields of an entry that is held without them. False if it is not to run now."""
        try:
            return await self._context.fetcher.fetch(held, again=again)
        except UnfetchableError as error:
            dead = Dead("", Reason.NON_RETRYABLE, Failure("", str(error)))
            counts, ledger = self._context.worker.counts.of_type(None), Ledger.load(held.entry.ledger)
            self._settle_unrun(held, Unplannable(dead, (), counts, ledger, None))
            return False
        except BaseException:  # also if cancelled: another executor takes the entry
            self._intake.put((held,))
            raise

    async def _may_begin(self, held: HeldEntry) -> bool:
        """Whether an entry begins, once that is known. If it does not, it is released, unless another consumer has it.

        Redis is asked if it is not certain that this consumer still has the entry: a process that was suspended must
        not run what others have taken over.
        """
        gate, is_confirmed = self._gate, False
        while (answer := gate.ask(held, is_confirmed=is_confirmed, is_alone=self._runs_alone)) is Answer.WAIT:
            try:
                if is_confirmed or gate.is_sure_of(held):
                    await gate.free()
                    is_confirmed = False
                    continue
                if time.monotonic() >= gate.active_until and not await self._context.exclusivity.confirm():
                    self._context.inflight.lose(held)
                else:
                    await self._context.leases.confirm(held)
                is_confirmed = True
            except BaseException:  # also if cancelled: another executor takes the entry
                self._intake.put((held,))
                raise
        if answer is Answer.RELEASE and held.state is not State.LOST:
            self._intake.put((held,))
        return answer is BEGIN

    async def _run_lane(self, key: Hashable, first: HeldEntry | Abandoned, planned: Planned | None = None) -> None:
        """Run an entry of a lane, and then those that wait for it there."""
        intake, following = self._intake, first
        while True:
            try:
                if isinstance(following, Abandoned):
                    settlement = await self._run_abandoned(following)
                elif planned is not None:
                    settlement = await self._run(following, planned)
                elif await self._may_begin(following) and (
                    following.entry.fields or await self._fetch(following, again=True)
                ):
                    settlement = await self._run(following, self._planner.plan(following.entry))
                else:
                    settlement = None  # another consumer has it, or it was trimmed from the stream
            except BaseException:  # this executor ends: another one continues the lane, or the lane is released
                intake.pass_lane_on(key)
                raise
            if isinstance(settlement, Keep) and self._settings.retry_blocks_key:
                entry_id = following.entry_id if isinstance(following, Abandoned) else following.entry.entry_id
                intake.hold_lane(key, entry_id, settlement.delay)
                return
            if self._gate.closed.is_set() or (next_ := intake.leave_lane(key)) is None:
                return
            following, planned = next_, None

    # --- running it ---

    async def _run(self, held: HeldEntry, planned: Planned) -> Settlement | None:
        """Run the handlers of an entry, and have it settled; None if it is not to begin."""
        if not isinstance(planned, Plan):
            return self._settle_unrun(held, planned)
        gate = self._gate
        if not (gate.is_free or self._runs_alone or await self._may_begin(held)):
            return None
        entry, source, ledger, runner = held.entry, held.entry.source, planned.ledger, self._runner
        event, handlers, deliveries = planned.event, planned.handlers, entry.deliveries
        assert runner is not None  # noqa: S101 - made when the executor began to run
        outcomes: list[Outcome] = []
        failed = False
        gate.begin(held)
        if self._measures and ledger is NO_LEDGER and handlers:
            worker = self._context.worker
            worker.counts.begun(planned.counts, entry.entry_id, time.monotonic() + worker.clock.ahead)
        try:
            for handler in handlers:
                under_way = UnderWay(
                    event,
                    handler.name,
                    source.stream,
                    source.group,
                    self._identity.name,
                    entry.entry_id,
                    deliveries,
                    1,
                    planned.replay.letter_id if planned.replay else None,
                    deliveries if ledger is NO_LEDGER else ledger.deliveries_of(handler.name, deliveries),
                )
                outcome = await runner.run(handler, under_way, planned.counts, planned.fields)
                outcomes.append(outcome)
                failed = failed or outcome is not handler.done
        except BaseException:  # the handlers that had finished by then are settled as finished
            left = handlers[len(outcomes) :]  # the first of them was running
            outcomes += [runner.take_interrupted(handler) for handler in left]
            self._settle(held, planned, event, outcomes)
            raise
        finally:
            gate.end()
        if ledger is NO_LEDGER and not failed and not planned.absent:
            self._settler.acknowledge(held)
            return ACK
        for name in planned.absent:
            spent = ledger.deliveries_of(name, deliveries)
            outcomes.append(runner.absent(name, spent, entry, planned.absent_because))
        return self._settle(held, planned, event, outcomes)

    def _settle_unrun(self, held: HeldEntry, planned: Unplannable | Nothing) -> Settlement:
        """Settle an entry of which no handler can run, or that the group has no handler for."""
        if isinstance(planned, Unplannable):
            attempt = Attempt.of(
                planned.dead.failure, delivery=held.entry.deliveries, attempt=1, consumer=self._identity.name
            )
            return self._settle(held, planned, None, [replace(planned.dead, attempts=AttemptLog.of(attempt))])
        self._context.worker.counts.ignored += 1
        self._settler.acknowledge(held)
        return ACK

    def _settle(
        self, held: HeldEntry, planned: Plan | Unplannable, event: Event | None, outcomes: list[Outcome]
    ) -> Settlement:
        entry = held.entry
        settlement = settle(
            outcomes,
            planned.ledger,
            entry.deliveries,
            dead_letters=self._settings.dlq_stream is not None,
            now_ms=entry.taken_ms,
        )
        replay = planned.replay
        origin = Origin(
            entry_id=(replay.original_entry_id if replay else "") or entry.entry_id.decode(),
            stream=self._settings.stream,
            group=entry.source.group,
            consumer=self._identity.name,
            deliveries=entry.deliveries,
            replay_of=replay.letter_id if replay else "",
            replay_count=replay.count if replay else 0,
        )
        self._settler.put(
            Settled(
                held=held,
                entry=entry._replace(fields=planned.fields),
                settlement=settlement,
                origin=origin,
                event_id=event.id if event else "",
                correlation_id=(event.correlation_id or event.id) if event else "",
                counts=planned.counts,
                retried=tuple(outcome.handler for outcome in outcomes if isinstance(outcome, RetryAt)),
            )
        )
        return settlement
