"""The executor: runs the handlers of one delivery after another, and says what became of each."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from rapids.backoff import Backoff
from rapids.correlation import CorrelationScope
from rapids.delivery import CallNext, Delivery, HandlerMiddleware, delivery_variable
from rapids.events import Event
from rapids.exceptions import (
    DeserializationError,
    HandlerTimeoutError,
    MaxRetriesExceededError,
    NonRetryableError,
    RetryAfter,
)
from rapids.outcomes import ACK, Dead, Done, Failure, Ledger, Outcome, Reason, Released, RetryAt, settle
from rapids.registration import Handler, Handlers
from rapids.settings import RouterSettings
from rapids.storage.groups import RawEntry
from rapids.wire.events import Replay, StoredEvent, event_type_in
from rapids.wire.letters import Origin
from rapids.worker.intake import Intake
from rapids.worker.settler import Settled, Settler

__all__ = ["Executor"]

logger = logging.getLogger("rapids.worker")

Runner = Callable[[Delivery], Awaitable[None]]


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
        settler: Settler,
        stream: str,
        context: Mapping[str, object],
    ) -> None:
        self._handlers = handlers
        self._runners = {handler.name: _folded(handler, middleware) for handler in handlers}
        self._consumer = consumer
        self._settings = settings
        self._intake = intake
        self._settler = settler
        self._stream = stream
        self._context = context

    async def run(self) -> None:
        """Work until the intake is closed. Cancelled, it settles what it was at, as interrupted."""
        while (entry := await self._intake.take()) is not None:
            await self._deliver(entry)

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
                    outcomes.append(await self._run(handler, self._delivery(handler, plan, entry)))
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

    async def _run(self, handler: Handler, delivery: Delivery) -> Outcome:
        if delivery.deliveries > self._settings.max_deliveries:
            return Dead(handler.name, Reason.MAX_DELIVERIES_EXCEEDED, _abandoned(delivery, self._settings))
        for attempt in range(1, handler.retries + 2):
            try:
                await self._attempt(handler, replace(delivery, attempt=attempt))
                return Done(handler.name)
            except NonRetryableError as error:
                return Dead(handler.name, Reason.NON_RETRYABLE, Failure.of(error))
            except RetryAfter as error:
                return self._failed(handler, delivery, error, delay=error.seconds)
            except asyncio.CancelledError as error:
                if _is_being_cancelled():
                    raise
                last: BaseException = error  # the handler's own: something it awaited had been cancelled
            except Exception as error:
                if handler.retryable_exceptions and not isinstance(error, handler.retryable_exceptions):
                    refused = NonRetryableError(handler.name, error, delivery.event.id)
                    return Dead(handler.name, Reason.NON_RETRYABLE, Failure.of(refused))
                last = error
            if attempt <= handler.retries:
                self._log_attempt(delivery, attempt, handler, last)
                await asyncio.sleep(_seconds(handler.backoff, attempt))
        exhausted = MaxRetriesExceededError(handler.name, handler.retries + 1, delivery.event.id, last)
        return self._failed(handler, delivery, exhausted)

    def _failed(
        self,
        handler: Handler,
        delivery: Delivery,
        error: MaxRetriesExceededError | RetryAfter,
        delay: float | None = None,
    ) -> Outcome:
        """What a failed delivery leads to: another one, or a dead letter after the last."""
        failure = Failure.of(error.last_error if isinstance(error, MaxRetriesExceededError) else error)
        if delivery.deliveries >= self._settings.max_deliveries:
            return Dead(handler.name, Reason.MAX_DELIVERIES_EXCEEDED, failure)
        logger.warning("%s", error, extra=self._extra(delivery, error_type=failure.error_type))
        if delay is None:
            delay = _seconds(self._settings.redelivery_delay, delivery.deliveries)
        return RetryAt(handler.name, delay, failure)

    async def _attempt(self, handler: Handler, delivery: Delivery) -> None:
        token = delivery_variable.set(delivery)
        limit = asyncio.timeout(handler.timeout)
        try:
            async with limit:
                await self._runners[handler.name](delivery)
        except TimeoutError as error:
            if limit.expired():
                raise HandlerTimeoutError(handler.name, handler.timeout, delivery.event.id) from error
            raise
        finally:
            delivery_variable.reset(token)

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

    def _log_attempt(self, delivery: Delivery, attempt: int, handler: Handler, error: BaseException) -> None:
        logger.warning(
            "attempt %d of %d failed: %s: %s",
            *(attempt, handler.retries + 1, type(error).__name__, error),
            extra=self._extra(delivery, error_type=type(error).__name__),
        )

    def _extra(self, delivery: Delivery, **more: object) -> dict[str, object]:
        return {
            **self._context,
            "stream": delivery.stream,
            "entry_id": delivery.entry_id,
            "event_id": delivery.event.id,
            "correlation_id": delivery.event.correlation_id or delivery.event.id,
            "handler": delivery.handler,
            "deliveries": delivery.deliveries,
            **more,
        }


def _folded(handler: Handler, middleware: Sequence[HandlerMiddleware]) -> Runner:
    """The handler inside its middleware, the first one outermost."""

    async def call(delivery: Delivery) -> None:
        await handler.function(delivery.event)

    folded: CallNext = call
    for layer in reversed(middleware):
        folded = partial(_layered, layer, folded)
    return folded


async def _layered(layer: HandlerMiddleware, call_next: CallNext, delivery: Delivery) -> None:
    await layer(delivery, call_next)


def _abandoned(delivery: Delivery, settings: RouterSettings) -> Failure:
    return Failure(
        "",
        f"delivered {delivery.deliveries} times where max_deliveries is {settings.max_deliveries}: "
        "processes took it and ended without saying what became of it",
    )


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _seconds(backoff: Backoff, failures: int) -> float:
    """What a backoff says; nonsense from a user's own one is taken as no wait."""
    try:
        delay = float(backoff(failures))
    except Exception:
        logger.exception("a backoff raised; going on without a wait")
        return 0.0
    return delay if math.isfinite(delay) and delay > 0 else 0.0
