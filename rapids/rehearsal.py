"""Rehearsals: the handlers of a router run on one event without Redis, by the code of production, for tests."""

import asyncio
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from pydantic_core import to_json

from rapids._core.counter_state import Counts
from rapids._core.handlers import Handler, Handlers
from rapids._core.outcomes import Ack, Dead, Keep, Settlement
from rapids._core.settings import LogRedaction, RouterSettings
from rapids._core.supervision import Stop
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source, default_dlq
from rapids._wire.encoding import encode
from rapids._wire.entry_format import EVENT_FIELDS, decode
from rapids._worker.context import WorkerContext
from rapids._worker.deadlines import Deadlines
from rapids._worker.executor import Executor, ExecutorContext
from rapids._worker.failure_log import FailureLog
from rapids._worker.gate import Gate
from rapids._worker.identity import Identity
from rapids._worker.inflight import HeldEntry, Inflight
from rapids._worker.intake import Intake
from rapids._worker.plan import Planner
from rapids._worker.runners import Runner
from rapids.backoff import Backoff
from rapids.delivery import current_delivery
from rapids.events import Event
from rapids.exceptions import HandlerTimeoutError

if TYPE_CHECKING:
    from rapids._worker.settled import Settled

__all__ = ["HandlerOutcome", "HandlerState", "Rehearsal", "RehearsedAttempt", "stored_event"]

CONSUMER = "rehearsal"

HandlerState: TypeAlias = Literal["done", "dead", "waiting"]
"""`done`: the handler returned. `dead`: it failed for good, and would leave a dead letter, or park its entry without a
dead-letter stream. `waiting`: it would run again at another delivery, but there was to be none."""


@dataclass(frozen=True, slots=True)
class RehearsedAttempt:
    """One run of a handler."""

    delivery: int
    attempt: int
    """The number of the quick attempt within this delivery, from 1."""
    error: BaseException | None
    """What it raised; None if it returned."""
    retry_in: float | None = None
    """Seconds that a router would have waited before the next attempt; None after the last one."""


@dataclass(frozen=True, slots=True)
class HandlerOutcome:
    """What became of one handler."""

    handler: str
    """Its name; empty if the event cannot be read, so that no handler was reached."""
    state: HandlerState
    attempts: tuple[RehearsedAttempt, ...] = ()
    """All its runs, in order."""
    reason: str = ""
    """Of a dead one, the reason in its letter: `max_deliveries_exceeded`, `non_retryable`, `deserialization_error`."""
    error_text: str = ""
    """Of a dead one, the error in its letter."""

    @property
    def error(self) -> BaseException | None:
        """What its last attempt raised; None if that returned, or no handler was reached."""
        return self.attempts[-1].error if self.attempts else None

    @property
    def deliveries(self) -> int:
        """On how many deliveries it ran."""
        return len({one.delivery for one in self.attempts})


def stored_event(fields: Mapping[str, Any]) -> Event:
    """The event of an entry with these fields, as a worker reads it: migrated, if it is of an older schema version.

    `fields`: those of the wire format by name; `data` and `metadata` may be JSON values instead of text. Raises
    `DeserializationError` for what is no event, or what its class refuses.
    """
    texts = {name: value if isinstance(value, str) else to_json(value).decode() for name, value in fields.items()}
    stored = [part for name in EVENT_FIELDS for part in (name, texts.get(name.decode(), "").encode())]
    return decode(texts.get("event_type", ""), stored)


class Rehearsal:
    """What the handlers of a router do with an event, without Redis and without waiting.

    The same code as in production plans and runs the handlers and decides about retries. Only the entry and its
    settlement are not in Redis. `EventRouter.rehearsal` makes it.
    """

    def __init__(
        self,
        settings: RouterSettings,
        handlers: Iterable[Handler],
        runners: dict[str, Runner],
        log_redaction: LogRedaction | None,
    ) -> None:
        # Letters say what failed, so there are letters. Where the group parks instead, it does so in the same cases.
        self._settings = replace(settings, dlq_stream=settings.dlq_stream or default_dlq(settings.stream))
        self._handlers = tuple(handlers)
        self._runners = runners
        self._log_redaction = log_redaction

    def handlers_of(self, event_type: str) -> tuple[str, ...]:
        """The names of the handlers that run for events of a type, in the order of their registration."""
        return tuple(handler.name for handler in Handlers(self._handlers).for_type(event_type))

    async def run(
        self, event: Event, *, first: int = 1, most: int = 100, only: str | None = None
    ) -> tuple[HandlerOutcome, ...]:
        """Deliver the event until its entry would be settled, at most `most` times. One outcome for each handler.

        Waits between attempts are left out, but time limits count: an attempt may take as long as its handler's
        `timeout`. `first`: the number of the first delivery, above 1 if processes died with the entry before. `only`:
        the name of the one handler to run. Raises `SerializationError` for an event that could not be emitted.
        """
        fields = encode(event, correlation_id=event.correlation_id, causation_id=event.causation_id)
        source = Source(self._settings.stream, self._settings.group)
        handlers = [handler for handler in self._handlers if only in (None, handler.name)]
        course = _Course(handlers)
        now_ms = time.time_ns() // 1_000_000
        entry_id = b"%d-0" % now_ms
        ledger: bytes | None = None
        for delivery in range(first, first + most):
            entry = RawEntry(source, entry_id, fields, delivery, ledger, now_ms if ledger else 0)
            settlement = await self._settlement(entry, course)
            if isinstance(settlement, Ack | Keep):
                course.dead.update({letter.handler: letter for letter in settlement.letters})
            course.waiting = {}
            if not isinstance(settlement, Keep):
                break
            # As the script does that settles an entry: a delay becomes a time.
            waits = [
                wait if wait.due_ms is not None else replace(wait, delay=0, due_ms=now_ms + round(wait.delay * 1_000))
                for wait in settlement.ledger.waits
            ]
            course.wait({wait.handler: (wait.due_ms or 0) - now_ms for wait in waits})
            now_ms = max(now_ms, min(wait.due_ms or 0 for wait in waits))  # the time passes at once
            ledger = replace(settlement.ledger, waits=tuple(waits)).dump()
        return course.outcomes(name for name in self.handlers_of(event.routing_key) if only in (None, name))

    async def _settlement(self, entry: RawEntry, course: "_Course") -> Settlement:
        """Deliver an entry once. Returns its settlement."""
        settings, absent = self._settings, cast(Any, None)  # the parts that only Redis needs are absent
        gate = Gate(lease_seconds=math.inf)
        gate.keep_name(math.inf)
        log: dict[str, object] = {"stream": settings.stream, "group": settings.group, "consumer": CONSUMER}
        counts = Counts(settings.stream, settings.group, settings.observers)
        if counts.observers is not None:
            counts.observers.are_errors_logged = self._log_redaction is None
        identity = Identity(absent, entry.source, gate, absent, counts)
        identity.name = CONSUMER
        failures = FailureLog(log, self._log_redaction)
        inflight = Inflight((entry.source,), counts, lease_seconds=math.inf)
        intake = Intake(gate, 1, few=1)
        intake.put(inflight.add_new(entry.source, [entry], since=time.monotonic()))
        settled, stop, deadlines = _SettlementStore(gate), Stop(), Deadlines()
        executor = Executor(
            ExecutorContext(
                worker=WorkerContext(
                    commands=absent,
                    fetching=absent,
                    sources=(entry.source,),
                    settings=settings,
                    identity=identity,
                    outages=absent,
                    log=log,
                    counts=counts,
                    failures=failures,
                    clock=absent,
                ),
                gate=gate,
                inflight=inflight,
                intake=intake,
                leases=absent,
                exclusivity=absent,
                reclaimer=absent,
                fetcher=absent,
                settler=cast(Any, settled),
                planner=Planner(Handlers(course.handlers), counts, log, settings.order_by),
                runners={name: course.recorded(runner, deadlines) for name, runner in self._runners.items()},
                stop=stop,
                deadlines=deadlines,
            )
        )
        # In a task of its own: time limits cancel it, and a cancellation of the caller must not count as a handler's.
        task = asyncio.create_task(executor.run(), name=f"rapids:{settings.stream}:{settings.group}:rehearsal")
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            stop.asked.set()
            stop.interrupts.set()
            task.cancel()
            await asyncio.wait([task])
            raise
        finally:
            deadlines.close()
            failures.close()
        task.result()
        return settled.settlement


class _SettlementStore:
    """Stands in for the settler: keeps the settlement of the one entry, after which the executor ends."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.settlement: Settlement = Ack()

    def acknowledge(self, held: HeldEntry) -> None:
        """Keep that nothing else is to be written."""
        self._gate.close()

    def put(self, settled: "Settled") -> None:
        """Keep the settlement."""
        self.settlement = settled.settlement
        self._gate.close()


class _Course:
    """What the handlers did, over all deliveries."""

    def __init__(self, handlers: Sequence[Handler]) -> None:
        self._timeouts = {handler.name: handler.timeout for handler in handlers}
        self._attempts: dict[str, list[RehearsedAttempt]] = {handler.name: [] for handler in handlers}
        self.dead: dict[str, Dead] = {}
        self.waiting: dict[str, int] = {}
        """The handlers that wait for another delivery, and how long (milliseconds)."""
        self.handlers = [
            replace(handler, backoff=self._without_wait(handler.name, handler.backoff)) for handler in handlers
        ]

    def recorded(self, runner: Runner, deadlines: Deadlines) -> Runner:
        """The same runner, whose runs are recorded. `deadlines`: those of the executor that runs it."""

        async def run(event: Event) -> None:
            delivery = current_delivery()
            assert delivery is not None  # noqa: S101 - the handler's runner has just set it
            error: BaseException | None = None
            try:
                await runner(event)
            except BaseException as raised:
                error = raised
                if (
                    isinstance(raised, asyncio.CancelledError) and deadlines.has_expired()
                ):  # what the router makes of it
                    error = HandlerTimeoutError(delivery.handler, self._timeouts[delivery.handler], event.id)
                    error.__cause__ = raised  # its traceback shows where the handler was
                raise
            finally:
                attempt = RehearsedAttempt(delivery.deliveries, delivery.attempt, error)
                self._attempts[delivery.handler].append(attempt)

        return run

    def wait(self, delays_ms: dict[str, int]) -> None:
        """Note which handlers wait for another delivery, and how long (milliseconds)."""
        self.waiting = delays_ms
        for name, delay in delays_ms.items():
            self._pause(name, delay / 1_000)

    def outcomes(self, names: Iterable[str]) -> tuple[HandlerOutcome, ...]:
        """One outcome for each handler, and for an event that no handler was reached with."""
        return tuple(self._outcome(name) for name in dict.fromkeys((*names, *self.dead)))

    def _outcome(self, name: str) -> HandlerOutcome:
        attempts = tuple(self._attempts.get(name, ()))
        if (dead := self.dead.get(name)) is not None:
            text = f"{dead.failure.error_type}: {dead.failure.message}".removeprefix(": ")
            return HandlerOutcome(name, "dead", attempts, str(dead.reason), text)
        return HandlerOutcome(name, "waiting" if name in self.waiting else "done", attempts)

    def _without_wait(self, name: str, backoff: Backoff) -> Backoff:
        def noted(failures: int) -> float:
            self._pause(name, backoff(failures))
            return 0.0

        return noted

    def _pause(self, name: str, seconds: float) -> None:
        if (attempts := self._attempts.get(name)) and attempts[-1].retry_in is None:
            attempts[-1] = replace(attempts[-1], retry_in=seconds)
