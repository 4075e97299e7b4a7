"""The executor: takes one delivery after another, runs its handlers, and says what became of each."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from rapids.correlation import CorrelationScope
from rapids.delivery import Delivery, HandlerMiddleware
from rapids.events import Event
from rapids.exceptions import DeserializationError
from rapids.outcomes import ACK, Dead, Failure, Ledger, Outcome, Reason, Released, settle
from rapids.registration import Handler, Handlers
from rapids.settings import RouterSettings
from rapids.storage.groups import RawEntry
from rapids.wire.events import Replay, StoredEvent, event_type_in
from rapids.wire.letters import Origin
from rapids.worker.attempts import Attempts
from rapids.worker.intake import Abandoned, Intake
from rapids.worker.leases import Leases
from rapids.worker.settler import Settled, Settler

__all__ = ["Executor"]


@dataclass(frozen=True, slots=True)
class Plan:
    """An entry that was understood: its event and the handlers that have yet to finish it."""

    event: Event
    handlers: Sequence[Handler]
    replay: Replay | None


class Executor:
    """Takes entries from the intake in order; handlers of one entry run in order of registration, each for itself."""

    def __init__(
        self,
        handlers: Handlers,
        middleware: Sequence[HandlerMiddleware],
        consumer: str,
        settings: RouterSettings,
        intake: Intake,
        leases: Leases,
        claim: Callable[[Abandoned], Awaitable[RawEntry | None]],
        settler: Settler,
        stream: str,
        context: Mapping[str, object],
    ) -> None:
        self._handlers = handlers
        self._attempts = Attempts(handlers, middleware, settings, context)
        self._consumer = consumer
        self._settings = settings
        self._intake = intake
        self._leases = leases
        self._claim = claim
        self._settler = settler
        self._stream = stream

    def is_handling(self, delivery: Delivery) -> bool:
        """Whether this very delivery is in its handler now."""
        return self._attempts.is_under_way(delivery)

    async def run(self) -> None:
        """Work until the intake is closed. Cancelled, it settles what it was at, as interrupted."""
        while (next_ := await self._intake.take()) is not None:
            entry = await self._claim(next_) if isinstance(next_, Abandoned) else next_
            if entry is not None and await self._may_begin(entry):
                await self._deliver(entry)

    async def _may_begin(self, entry: RawEntry) -> bool:
        try:
            return await self._leases.still_ours(entry)
        except BaseException:
            self._intake.put([entry])  # interrupted before it was begun: it is handed back like the others
            raise

    async def _deliver(self, entry: RawEntry) -> None:
        event_type = event_type_in(entry.fields)
        if event_type is not None and not entry.source.is_replay and not self._handlers.for_type(event_type):
            self._settler.put(Settled(entry, ACK, self._origin(entry, None)))
            return
        ledger = Ledger.load(entry.ledger)
        outcomes: list[Outcome] = []
        plan: Plan | None = None
        try:
            plan = self._plan(entry, ledger)
            await self._run_all(plan, entry, outcomes)
        except DeserializationError as error:
            outcomes.append(Dead("", Reason.DESERIALIZATION_ERROR, Failure.of(error)))
        finally:  # also when cancelled: what had finished by then is settled as finished
            self._settle(entry, plan, outcomes, ledger)

    def _plan(self, entry: RawEntry, ledger: Ledger) -> Plan:
        stored = StoredEvent.read(entry.fields)
        replay = stored.replay() if entry.source.is_replay else None
        event = stored.decode()
        handlers = self._handlers.for_type(stored.event_type)
        if replay is not None and replay.handler:
            handlers = tuple(handler for handler in self._handlers if handler.name == replay.handler)
            if not handlers:
                raise DeserializationError(stored.event_type, f"the group has no handler {replay.handler!r}")
        return Plan(event, [handler for handler in handlers if handler.name not in ledger.finished], replay)

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
            consumer=self._consumer,
            entry_id=entry.entry_id.decode(),
            deliveries=entry.deliveries,
            attempt=1,
            replay_of=plan.replay.letter_id if plan.replay else None,
        )

    def _settle(self, entry: RawEntry, plan: Plan | None, outcomes: Sequence[Outcome], ledger: Ledger) -> None:
        settlement = settle(outcomes, ledger, entry.deliveries, dead_letters=self._settings.dlq_stream is not None)
        event = plan.event if plan else None
        self._settler.put(
            Settled(
                *(entry, settlement, self._origin(entry, plan.replay if plan else None)),
                event_id=event.id if event else "",
                correlation_id=(event.correlation_id or event.id) if event else "",
            )
        )

    def _origin(self, entry: RawEntry, replay: Replay | None) -> Origin:
        return Origin(
            entry_id=(replay.original_entry_id if replay else "") or entry.entry_id.decode(),
            stream=self._stream,
            group=entry.source.group,
            consumer=self._consumer,
            deliveries=entry.deliveries,
            replay_of=replay.letter_id if replay else "",
            replay_count=replay.count if replay else 0,
        )
