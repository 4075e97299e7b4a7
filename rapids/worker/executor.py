"""The executor: takes one delivery after another, runs its handlers, and says what became of each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from rapids.correlation import CorrelationScope
from rapids.delivery import Delivery, HandlerMiddleware
from rapids.events import Event
from rapids.exceptions import NonRetryableError
from rapids.outcomes import ACK, Dead, Failure, Ledger, Outcome, Reason, Released, settle
from rapids.registration import Handler, Handlers
from rapids.storage.groups import RawEntry
from rapids.wire.events import Replay, StoredEvent, event_type_in
from rapids.wire.letters import Origin, taken_apart
from rapids.worker.attempts import Attempts, Stop
from rapids.worker.intake import Abandoned, Intake
from rapids.worker.leases import Leases
from rapids.worker.member import Member
from rapids.worker.settler import Settled, Settler

__all__ = ["Executor"]

SETTLE_PATIENCE = 1.0
"""Seconds to wait for what has run to be settled before an abandoned entry is taken over."""


@dataclass(frozen=True, slots=True)
class Plan:
    """An entry that was understood: its event and the handlers that have yet to finish it."""

    event: Event
    handlers: Sequence[Handler]
    replay: Replay | None
    ledger: Ledger


class Executor:
    """Takes entries from the intake in order; handlers of one entry run in order of registration, each for itself."""

    def __init__(
        self,
        member: Member,
        handlers: Handlers,
        middleware: Sequence[HandlerMiddleware],
        intake: Intake,
        leases: Leases,
        claim: Callable[[Abandoned], Awaitable[RawEntry | None]],
        settler: Settler,
        stop: Stop,
    ) -> None:
        self._member = member
        self._settings = member.settings
        self._handlers = handlers
        self._attempts = Attempts(handlers, middleware, member.settings, stop, member.context)
        self._intake = intake
        self._leases = leases
        self._claim = claim
        self._settler = settler
        self.is_delivering = False
        """Whether handlers run; once the intake is closed, they will not if they do not now."""

    def is_handling(self, delivery: Delivery) -> bool:
        """Whether this very delivery is in its handler now."""
        return self._attempts.is_under_way(delivery)

    async def run(self) -> None:
        """Work until the intake is closed. Cancelled, it settles what it was at, as interrupted."""
        while (next_ := await self._intake.take()) is not None:
            entry = await self._take_over(next_) if isinstance(next_, Abandoned) else next_
            if entry is not None and await self._may_begin(entry):
                self.is_delivering = True
                try:
                    await self._deliver(entry)
                finally:
                    self.is_delivering = False

    async def _take_over(self, abandoned: Abandoned) -> RawEntry | None:
        # It may be what kills processes: what has run by then must be settled, or it would be delivered again with it,
        # each time. A settlement that Redis goes on refusing is no reason to wait for longer.
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_PATIENCE):
                await self._settler.flushed()
        return await self._claim(abandoned)

    async def _may_begin(self, entry: RawEntry) -> bool:
        try:
            is_ours = await self._leases.still_ours(entry)
        except BaseException:
            self._intake.put([entry])  # interrupted before it was begun: it is handed back like the others
            raise
        if is_ours and self._intake.closed.is_set():
            self._intake.put([entry])
            return False
        return is_ours

    async def _deliver(self, entry: RawEntry) -> None:
        replay: Replay | None = None
        if entry.source.is_replay:
            own, replay = taken_apart(entry.fields)
            entry = replace(entry, fields=own)
        event_type = event_type_in(entry.fields)
        if event_type is not None and not entry.source.is_replay and not self._handlers.for_type(event_type):
            self._settler.put(Settled(entry, ACK, self._origin(entry, None)))
            return
        ledger = Ledger.load(entry.ledger)
        plan = self._plan_or_end(entry, replay, ledger)
        outcomes: list[Outcome] = []
        try:
            if isinstance(plan, Plan):
                await self._run_all(plan, entry, outcomes)
            else:
                outcomes.append(plan)
        finally:  # also when cancelled: what had finished by then is settled as finished
            self._settle(entry, plan.event if isinstance(plan, Plan) else None, replay, outcomes, ledger)

    def _plan_or_end(self, entry: RawEntry, replay: Replay | None, ledger: Ledger) -> Plan | Dead:
        """What to run, or why nothing can be. The handler a replay names keeps its name: no other is to run for it."""
        handler = replay.handler if replay else ""
        try:
            return self._plan(entry, replay, ledger)
        except NonRetryableError as error:
            return Dead(handler, Reason.NON_RETRYABLE, Failure.of(error))
        except Exception as error:
            return Dead(handler, Reason.DESERIALIZATION_ERROR, Failure.of(error))

    def _plan(self, entry: RawEntry, replay: Replay | None, ledger: Ledger) -> Plan:
        handlers: Sequence[Handler] = ()
        if replay is not None and replay.handler:
            handlers = [handler for handler in self._handlers if handler.name == replay.handler]
            if not handlers:
                raise NonRetryableError(f"the group has no handler {replay.handler!r}")
        stored = StoredEvent.read(entry.fields)
        event = stored.decode()
        handlers = handlers or self._handlers.for_type(stored.event_type)
        due = [handler for handler in handlers if not ledger.waits_for(handler.name, entry.taken_ms)]
        return Plan(event, [handler for handler in due if handler.name not in ledger.finished], replay, ledger)

    async def _run_all(self, plan: Plan, entry: RawEntry, outcomes: list[Outcome]) -> None:
        """Fill `outcomes` as handlers end, so that a cancellation loses none of them."""
        event = plan.event
        with CorrelationScope.handling(event.correlation_id, event.id):
            for handler in plan.handlers:
                try:
                    outcomes.append(await self._attempts.run(handler, self._delivery(handler, plan, entry)))
                except BaseException:
                    left = plan.handlers[len(outcomes) :]
                    outcomes += [Released(handler.name) for handler in left]
                    raise

    def _delivery(self, handler: Handler, plan: Plan, entry: RawEntry) -> Delivery:
        return Delivery(
            event=plan.event,
            handler=handler.name,
            stream=entry.source.stream,
            group=entry.source.group,
            consumer=self._member.name,
            entry_id=entry.entry_id.decode(),
            deliveries=plan.ledger.deliveries_of(handler.name, entry.deliveries),
            attempt=1,
            replay_of=plan.replay.letter_id if plan.replay else None,
        )

    def _settle(
        self,
        entry: RawEntry,
        event: Event | None,
        replay: Replay | None,
        outcomes: Sequence[Outcome],
        ledger: Ledger,
    ) -> None:
        settlement = settle(
            *(outcomes, ledger, entry.deliveries),
            dead_letters=self._settings.dlq_stream is not None,
            now_ms=entry.taken_ms,
        )
        self._settler.put(
            Settled(
                *(entry, settlement, self._origin(entry, replay)),
                event_id=event.id if event else "",
                correlation_id=(event.correlation_id or event.id) if event else "",
            )
        )

    def _origin(self, entry: RawEntry, replay: Replay | None) -> Origin:
        return Origin(
            entry_id=(replay.original_entry_id if replay else "") or entry.entry_id.decode(),
            stream=self._settings.stream,
            group=entry.source.group,
            consumer=self._member.name,
            deliveries=entry.deliveries,
            replay_of=replay.letter_id if replay else "",
            replay_count=replay.count if replay else 0,
        )
