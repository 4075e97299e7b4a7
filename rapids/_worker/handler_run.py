"""One handler on one delivery: its time limit, its quick attempts, and its outcome."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Coroutine, Generator, Mapping
from contextlib import suppress
from contextvars import Context, copy_context
from types import CoroutineType, coroutine
from typing import Any

from rapids import correlation
from rapids._core.attempt_log import NO_ATTEMPTS, Attempt, AttemptLog
from rapids._core.counter_state import OfType, TimesOfType
from rapids._core.failures import MAX_DELAY, begin_in_users_code, is_hopeless, is_of_signal, longest_wait
from rapids._core.handlers import Handler, no_handler
from rapids._core.outcomes import Dead, Done, Failure, Outcome, Reason, Released, RetryAt
from rapids._core.supervision import Stop, shed_cancellations
from rapids._storage.groups import MAX_DELIVERIES, RawEntry
from rapids._wire.entry_format import Fields
from rapids._worker.context import WorkerContext
from rapids._worker.deadlines import Deadline
from rapids._worker.runners import Runner
from rapids.backoff import Backoff
from rapids.delivery import UnderWay, under_way_variable
from rapids.exceptions import HandlerTimeoutError
from rapids.observers import HandlerFailed, HandlerSucceeded

__all__ = ["HandlerRunner", "handler_runner"]

logger = logging.getLogger("rapids.worker")

MIN_DELIVERIES = 2
"""Deliveries before an entry may be dead without a run: the first may have been to a process that never began it."""


class HandlerRunner:
    """Runs handlers, one at a time, in the task of one executor."""

    def __init__(self, context: WorkerContext, runners: Mapping[str, Runner], stop: Stop, deadline: Deadline) -> None:
        self._context = context
        self._settings = context.settings
        self._runners = runners
        self._stop = stop
        self._log = context.log
        self._deadline = deadline
        self._clean: Context = copy_context()
        """The context of the router's start, in which no code of the user runs: each attempt has a copy of its own."""
        self._attempt: Context = self._clean
        """The context of the last attempt."""
        self._under_way: UnderWay | None = None
        self._failed = NO_ATTEMPTS
        """The failed attempts of the running handler on this delivery."""
        self._ended_by: Outcome | None = None
        """The outcome of the running handler, if the program ends in it."""

    def take_interrupted(self, handler: Handler) -> Outcome:
        """The outcome of a handler that was interrupted, or had not begun. The first call is for the running one."""
        failed, self._failed = self._failed, NO_ATTEMPTS
        ended, self._ended_by = self._ended_by, None
        return ended or Released(handler.name, failed)

    def is_under_way(self, under_way: UnderWay) -> bool:
        """Whether this very delivery is in its handler now."""
        return under_way is self._under_way

    async def run(self, handler: Handler, under_way: UnderWay, counts: OfType, fields: Fields) -> Outcome:
        """Run the handler, with its quick attempts, and return its outcome, counted in `counts`.

        `fields`: those of the entry, for the log.

        Raises `CancelledError` only if the router interrupts its handlers, and `KeyboardInterrupt` or `SystemExit` only
        if a signal ends the program. If a handler cancels its own task, or calls `sys.exit`, that ends only this
        attempt.
        """
        if under_way.spent > max(self._settings.max_deliveries, MIN_DELIVERIES):
            why = (
                f"delivered {under_way.deliveries} times, and max_deliveries is {self._settings.max_deliveries}: "
                "the processes that took it ended before they reported an outcome"
            )
            if under_way.deliveries > MAX_DELIVERIES:
                why = "its delivery count was set to the highest one, as XNACK does with FATAL"
            return Dead(handler.name, Reason.MAX_DELIVERIES_EXCEEDED, Failure("", why))
        if self._stop.interrupts.is_set():
            raise asyncio.CancelledError
        # The fast path: one attempt, without another coroutine around it.
        error: BaseException | None = None
        self._under_way = under_way
        self._deadline.begin(handler.timeout)
        try:
            attempt = self._attempt = self._clean.copy()
            begun = attempt.run(_begun, self._runners[handler.name], under_way)
            if begun is not None:
                await _continued(attempt, begun[0], begun[1])
        except BaseException as raised:
            error = self._seen(handler, under_way, raised)
        finally:
            self._deadline.end()
            self._under_way = None
        if error is not None:
            try:  # not inside `except`: errors of later attempts would be shown as raised while this one was handled
                return await self._after_failure(error, handler, under_way, counts, fields)
            finally:
                del error  # its traceback refers to this frame
        if self._deadline.task.cancelling():
            await shed_cancellations()
        counts.handled[handler.name] += 1
        return handler.done

    async def _after_failure(
        self, error: BaseException | None, handler: Handler, under_way: UnderWay, counts: OfType, fields: Fields
    ) -> Outcome:
        """The handler's outcome after its first attempt failed: its other quick attempts, if it has any."""
        attempt = 1
        while True:
            if self._deadline.task.cancelling():
                await shed_cancellations()
            if error is None:
                outcome: Outcome = handler.done
                break
            if self._stop.interrupts.is_set() or (
                isinstance(error, asyncio.CancelledError) and self._stop.asked.is_set()
            ):  # it ends with the router or its event loop: whatever the handler made of that, it did not fail
                raise asyncio.CancelledError
            failure = Failure.of(error, _home_of(handler))
            failed = Attempt.of(failure, delivery=under_way.deliveries, attempt=attempt, consumer=under_way.consumer)
            self._failed = self._failed.then(AttemptLog.of(failed))
            self.note_attempt(attempt, failure, error, fields)
            ends_program, wait = is_of_signal(error), longest_wait(error)
            if not ends_program and is_hopeless(error, handler.retryable_exceptions):
                outcome = Dead(handler.name, Reason.NON_RETRYABLE, failure, self._failed, error)
                break
            if wait is not None or attempt > handler.retries or ends_program:
                outcome = self._attempt.run(self._outcome_of_failure, handler, under_way, error, failure, wait, fields)
                if ends_program:  # it spends a delivery: if it was the entry that ended it, so does its next one
                    self._ended_by = outcome
                    raise error
                break
            self._log_attempt(handler, under_way, error, failure, fields)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._attempt.run(_seconds, handler.backoff, attempt)):
                    await self._stop.asked.wait()
            if self._stop.asked.is_set():  # a stop does not wait for another attempt
                if isinstance(error, SystemExit | KeyboardInterrupt):  # it may be what stops the program
                    outcome = self._attempt.run(
                        self._outcome_of_failure, handler, under_way, error, failure, wait, fields
                    )
                else:
                    outcome = Released(handler.name, self._failed)
                break
            attempt += 1
            under_way = under_way._replace(attempt=attempt)
            error = await self._error_of(handler, under_way)
        self._failed = NO_ATTEMPTS
        if isinstance(outcome, Done):
            counts.handled[handler.name] += 1
        elif not isinstance(outcome, Released):
            counts.failed[handler.name] += 1
        self.note(outcome, under_way, error)
        return outcome

    def absent(self, name: str, spent: int, entry: RawEntry, why: str = "") -> Outcome:
        """The outcome of a handler that an entry waits for, if this process does not have it, or not for this type, or
        cannot read the entry (`why`).

        Another process of the group, with an older or newer version, may have it. So the entry is delivered again, as
        often as if the handler had run and failed.
        """
        if not why:
            why = f"the handler {name!r} is not for its type any more" if name in self._runners else no_handler(name)
        failure, entry_id = Failure("", why), entry.entry_id.decode()
        consumer = str(self._log["consumer"])
        log = AttemptLog.of(Attempt.of(failure, delivery=entry.deliveries, attempt=1, consumer=consumer))
        if spent >= self._settings.max_deliveries:
            return Dead(name, Reason.NON_RETRYABLE, failure, log)
        extra = {**self._log, "entry_id": entry_id, "handler": name}
        cause = ("a wait", "", name, "no such handler")
        self._context.failures.write(
            logging.WARNING, cause, "entry %s waits for %r: %s", entry_id, name, failure.message, extra=extra
        )
        return RetryAt(name, _seconds(self._settings.redelivery_delay, spent), failure, log)

    def note_attempt(self, attempt: int, failure: Failure, error: BaseException, fields: Fields) -> None:
        """Report a failed attempt."""

    def note(self, outcome: Outcome, last: UnderWay, error: BaseException | None) -> None:
        """Report the outcome of a handler whose first attempt failed, with its last attempt and its error."""

    async def _error_of(self, handler: Handler, under_way: UnderWay) -> BaseException | None:
        """The error of another attempt, if it had one."""
        self._under_way = under_way
        self._deadline.begin(handler.timeout)
        try:
            attempt = self._attempt = self._clean.copy()
            if (begun := attempt.run(_begun, self._runners[handler.name], under_way)) is not None:
                await _continued(attempt, begun[0], begun[1])
        except BaseException as error:
            return self._seen(handler, under_way, error)
        finally:
            self._deadline.end()
            self._under_way = None
        return None

    def _seen(self, handler: Handler, under_way: UnderWay, error: BaseException) -> BaseException:
        """The error of an attempt; after a time limit, a `HandlerTimeoutError`. It may not end the executor's task."""
        begin_in_users_code(error, _home_of(handler))
        if self._deadline.end() and isinstance(error, asyncio.CancelledError):
            expired = HandlerTimeoutError(handler.name, handler.timeout, under_way.event.id)
            expired.__cause__ = error  # its traceback shows where the handler was
            return expired
        return error

    def _outcome_of_failure(
        self,
        handler: Handler,
        delivery: UnderWay,
        error: BaseException,
        failure: Failure,
        wait: float | None,
        fields: Fields,
    ) -> Outcome:
        """The outcome of a failed delivery: another delivery, or a dead letter after the last one. It is called in the
        attempt's context.

        `wait`: seconds until the next delivery, if the handler asked for it. Such a delivery is not spent.
        """
        if wait is None and delivery.spent >= self._settings.max_deliveries:
            return Dead(handler.name, Reason.MAX_DELIVERIES_EXCEEDED, failure, self._failed, error)
        backoff = self._settings.redelivery_delay
        delay = _seconds(backoff, delivery.spent) if wait is None else wait
        self._context.failures.write(
            logging.WARNING,
            ("a failed delivery", delivery.event.routing_key, handler.name, failure.error_type),
            "handler %r failed on event %r (entry %s), delivery %d, %s; next one in %.1f s: %s",
            handler.name,
            delivery.event.routing_key,
            delivery.entry_id.decode(),
            delivery.deliveries,
            "1 attempt" if delivery.attempt == 1 else f"{delivery.attempt} attempts",
            delay,
            extra=self._extra(delivery, failure.error_type),
            raised=[(failure, error)],
            fields=fields,
        )
        return RetryAt(handler.name, delay, failure, self._failed, spends=wait is None)

    def _log_attempt(
        self, handler: Handler, delivery: UnderWay, error: BaseException, failure: Failure, fields: Fields
    ) -> None:
        if not logger.isEnabledFor(logging.DEBUG):
            return
        logger.debug(
            "handler %r: attempt %d of %d failed on event %s: %s",
            handler.name,
            delivery.attempt,
            handler.retries + 1,
            delivery.event.id,
            self._context.failures.text_of((failure, error), fields),
            extra=self._extra(delivery, failure.error_type),
        )

    def _extra(self, delivery: UnderWay, error_type: str) -> dict[str, object]:
        return {
            **self._log,
            "stream": delivery.stream,
            "entry_id": delivery.entry_id.decode(),
            "event_id": delivery.event.id,
            "event_type": delivery.event.routing_key,
            "correlation_id": delivery.event.correlation_id or delivery.event.id,
            "handler": delivery.handler,
            "deliveries": delivery.deliveries,
            "error_type": error_type,
        }


class ObservedHandlerRunner(HandlerRunner):
    """Reports to observers and histograms how each handler's delivery ended, and how long it took. It is a class of its
    own, so that routers without both pay nothing."""

    def __init__(self, context: WorkerContext, runners: Mapping[str, Runner], stop: Stop, deadline: Deadline) -> None:
        super().__init__(context, runners, stop, deadline)
        self._counts = context.counts
        self._measures = context.counts.measures
        self._observers = context.counts.observers
        self._times: TimesOfType | None = None
        self._began = 0.0
        self._is_reported = False

    async def run(self, handler: Handler, under_way: UnderWay, counts: OfType, fields: Fields) -> Outcome:
        """As without observers, and reported."""
        self._is_reported = False
        if self._measures:
            self._times = counts.times or self._counts.times_of(counts)
        self._began = time.monotonic()
        outcome = await HandlerRunner.run(self, handler, under_way, counts, fields)
        if outcome is handler.done and not self._is_reported:
            self._report(under_way)
        return outcome

    def note(self, outcome: Outcome, last: UnderWay, error: BaseException | None) -> None:
        self._is_reported = True
        if isinstance(outcome, Done):
            self._report(last)
        elif error is not None and not isinstance(outcome, Released):
            self._report(last, error, outcome.delay if isinstance(outcome, RetryAt) else None)

    def _report(self, last: UnderWay, error: BaseException | None = None, retry_in: float | None = None) -> None:
        """Report in the attempt's context: what observers log or emit has the event's correlation id."""
        seconds = time.monotonic() - self._began
        if (times := self._times) is not None:
            (times.handling.get(last.handler) or times.of_handler(last.handler)).add(seconds)
        if self._observers is not None:
            failed = None if error is None else HandlerFailed(last.delivery(), seconds, error, retry_in)
            self._attempt.run(self._observers.tell, failed or HandlerSucceeded(last.delivery(), seconds))


def _home_of(handler: Handler) -> str:
    module = getattr(handler.function, "__module__", None)
    return module if isinstance(module, str) else ""


# An attempt runs in a context of its own, so that context variables that it sets are unset in the next one. It is
# stepped inside that context, since a task for each attempt would cost more than a quick handler.


def _begun(runner: Runner, under_way: UnderWay) -> tuple[Coroutine[Any, Any, object], object] | None:
    """Begin an attempt in the current context, which must be its own: the attempt, and what it waits for.

    None if it has ended already, since it never had to wait.
    """
    event = under_way.event
    under_way_variable.set(under_way)
    correlation.handle(event.correlation_id, event.id)
    attempt: Any = runner(event)
    if attempt.__class__ is not CoroutineType:  # of a function that is only marked as a coroutine function
        attempt = _awaited(attempt)
    try:
        return attempt, attempt.send(None)
    except StopIteration:
        return None


async def _awaited(result: Awaitable[object]) -> object:
    return await result


@coroutine
def _continued(
    context: Context, attempt: Coroutine[Any, Any, object], waits_for: object
) -> Generator[object, object, None]:
    """Continue an attempt in its context, to its end."""
    while True:
        raised: BaseException | None = None
        try:
            yield waits_for
        except BaseException as error:
            raised = _exit_in(waits_for) or error
        try:
            waits_for = context.run(attempt.send, None) if raised is None else context.run(attempt.throw, raised)
        except StopIteration:
            return
        finally:
            del raised  # its traceback refers to this frame


def _exit_in(awaited: object) -> BaseException | None:
    """The exit of a task that the attempt waits for, if that is what ends the event loop, and so interrupts the
    attempt: then the attempt has failed by it."""
    if isinstance(awaited, asyncio.Future) and awaited.done() and not awaited.cancelled():
        error = awaited.exception()
        if isinstance(error, SystemExit | KeyboardInterrupt):
            return error
    return None


def handler_runner(
    context: WorkerContext, runners: Mapping[str, Runner], stop: Stop, deadline: Deadline
) -> HandlerRunner:
    """Runs handlers for one executor, and reports to observers, histograms and a telemetry if there are any."""
    if (telemetry := context.counts.telemetry) is not None:
        from rapids._worker.traced_run import TracedHandlerRunner

        return TracedHandlerRunner(context, runners, stop, deadline, telemetry)
    if context.counts.observers is not None or context.counts.measures:
        return ObservedHandlerRunner(context, runners, stop, deadline)
    return HandlerRunner(context, runners, stop, deadline)


def _seconds(backoff: Backoff, failures: int) -> float:
    """The delay that a backoff returns. An invalid result of a user's own backoff counts as no delay."""
    try:
        delay = float(backoff(failures))
    except BaseException as error:
        if is_of_signal(error):
            raise
        logger.exception("a backoff raised; continuing without a delay")
        return 0.0
    return min(delay, MAX_DELAY) if math.isfinite(delay) and delay > 0 else 0.0
