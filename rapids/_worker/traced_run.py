"""Runs of handlers that are reported to a telemetry, with its span in the context of each attempt."""

from collections.abc import Mapping
from dataclasses import replace

from rapids._core.counter_state import OfType
from rapids._core.handlers import Handler
from rapids._core.outcomes import Dead, Done, Failure, Outcome, RetryAt
from rapids._core.supervision import Stop
from rapids._wire.entry_format import Fields
from rapids._wire.trace_context import trace_context_in
from rapids._worker.context import WorkerContext
from rapids._worker.deadlines import Deadline
from rapids._worker.handler_run import HandlerRunner, ObservedHandlerRunner
from rapids._worker.runners import Runner
from rapids.delivery import UnderWay
from rapids.hooks import RunHooks, TelemetryHooks

__all__ = ["TracedHandlerRunner"]


class TracedHandlerRunner(ObservedHandlerRunner):
    """Reports to a telemetry, and to observers if there are any."""

    def __init__(
        self,
        context: WorkerContext,
        runners: Mapping[str, Runner],
        stop: Stop,
        deadline: Deadline,
        telemetry: TelemetryHooks,
    ) -> None:
        super().__init__(context, runners, stop, deadline)
        self._telemetry = telemetry
        self._is_observed = self._observers is not None or self._measures
        self._untraced = self._clean
        """The context of the router's start. `_clean` is a copy for the present run, in which the span is current."""
        self._run: RunHooks | None = None

    async def run(self, handler: Handler, under_way: UnderWay, counts: OfType, fields: Fields) -> Outcome:
        """As without a telemetry, and reported."""
        run = self._run = self._telemetry.processing(
            stream=self._settings.stream,
            group=under_way.group,
            consumer=under_way.consumer,
            handler=handler.name,
            event=under_way.event,
            entry_id=under_way.entry_id.decode(),
            deliveries=under_way.deliveries,
            replay_of=under_way.replay_of,
            context=trace_context_in(fields),
        )
        self._clean = self._attempt = self._untraced.copy()
        self._clean.run(run.enter)
        try:
            if self._is_observed:
                outcome = await super().run(handler, under_way, counts, fields)
            else:
                outcome = await HandlerRunner.run(self, handler, under_way, counts, fields)
        except BaseException:
            run.ended("released", "")
            raise
        match outcome:
            case Done():
                run.ended("done", "")
            case RetryAt(failure=failure):
                run.ended("retry", failure.error_type)
            case Dead(failure=failure):
                return replace(outcome, run=run.ended("dead", failure.error_type))
            case _:
                run.ended("released", "")
        return outcome

    def note_attempt(self, attempt: int, failure: Failure, error: BaseException, fields: Fields) -> None:
        super().note_attempt(attempt, failure, error, fields)
        if self._run is not None:
            message, traceback = self._context.failures.texts_of((failure, error), fields)
            self._run.attempt_failed(attempt, failure.error_type, message, traceback)
