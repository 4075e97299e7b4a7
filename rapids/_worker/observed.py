"""Attempts that observers are told of. Apart, so that those without observers pay nothing for them."""

import time
from collections.abc import Mapping

from rapids._core.counter_state import OfType
from rapids._core.handlers import Handler
from rapids._core.outcomes import Done, Outcome, Released, RetryAt
from rapids._core.supervision import Stop
from rapids._worker.context import Member
from rapids._worker.deadlines import Deadline
from rapids._worker.handler_run import Attempts, Runner
from rapids.delivery import UnderWay
from rapids.observers import HandlerFailed, HandlerSucceeded, Observers

__all__ = ["ObservedAttempts", "attempts_of"]


class ObservedAttempts(Attempts):
    """Tells how each handler's delivery ended, and how long it took."""

    def __init__(
        self, member: Member, runners: Mapping[str, Runner], stop: Stop, deadline: Deadline, observers: Observers
    ) -> None:
        super().__init__(member, runners, stop, deadline)
        self._observers = observers
        self._began = 0.0
        self._is_told = False

    async def run(self, handler: Handler, under_way: UnderWay, counts: OfType) -> Outcome:
        """As without observers, and told."""
        self._is_told = False
        self._began = time.monotonic()
        outcome = await super().run(handler, under_way, counts)
        if outcome is handler.done and not self._is_told:
            self._observers.tell(HandlerSucceeded(under_way.delivery(), self._seconds))
        return outcome

    def note(self, outcome: Outcome, last: UnderWay, error: BaseException | None) -> None:
        self._is_told = True
        if isinstance(outcome, Done):
            self._observers.tell(HandlerSucceeded(last.delivery(), self._seconds))
        elif error is not None and not isinstance(outcome, Released):
            retry_in = outcome.delay if isinstance(outcome, RetryAt) else None
            self._observers.tell(HandlerFailed(last.delivery(), self._seconds, error, retry_in))

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._began


def attempts_of(member: Member, runners: Mapping[str, Runner], stop: Stop, deadline: Deadline) -> Attempts:
    """Attempts for an executor, observed if anybody is to be told of them."""
    if (observers := member.counts.observers) is None:
        return Attempts(member, runners, stop, deadline)
    return ObservedAttempts(member, runners, stop, deadline, observers)
