"""Observers: functions that a router or an emitter calls with a detail of each thing it does."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rapids._core.failures import Failure, is_of_signal
from rapids._core.outcomes import Reason
from rapids.delivery import Delivery
from rapids.exceptions import RapidsError

__all__ = [
    "DeadLettered",
    "Delivered",
    "Detail",
    "EmitFailed",
    "Emitted",
    "HandlerFailed",
    "HandlerSucceeded",
    "LeaseLost",
    "Lost",
    "NotEmitted",
    "Observer",
    "Observers",
    "OutageEnded",
    "OutageStarted",
    "Parked",
    "Trimmed",
]

logger: logging.Logger = logging.getLogger("rapids.observers")

LOG_INTERVAL = 60.0
"""Seconds between two log lines about the same observer."""

Trimmed: TypeAlias = Literal["unread", "pending", "held"]
"""When an entry was trimmed: before the group read it, while it waited for a consumer, or while a consumer held it."""

NotEmitted: TypeAlias = Literal["not_stored", "unknown", "unreplicated", "unwritable"]
"""The result for an event whose emit raised: it is not in the stream; it may be in the stream; it is in the stream, on
fewer replicas than required; it was not sent, since JSON cannot hold it."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """An entry was delivered to this consumer: a new one, one that is due again, or one that another abandoned."""

    stream: str
    """The stream that has the entry: the router's stream, or the group's replay stream."""
    group: str
    entry_id: str
    event_type: str
    deliveries: int
    """How many times the entry was delivered to the group, this time included."""


@dataclass(frozen=True, slots=True)
class HandlerSucceeded:
    """A handler succeeded on a delivery."""

    delivery: Delivery
    """The delivery as the last attempt had it."""
    seconds: float
    """How long it took, quick retries and the waits before them included."""


@dataclass(frozen=True, slots=True)
class HandlerFailed:
    """A handler failed on a delivery, and so did its quick retries."""

    delivery: Delivery
    """The delivery as the last attempt had it."""
    seconds: float
    """How long it took, quick retries and the waits before them included."""
    error: BaseException
    """What the last attempt raised; a `HandlerTimeoutError` if it ran longer than its time limit."""
    retry_in: float | None
    """Seconds until the handler runs again; None if it does not."""


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A dead letter was written."""

    stream: str
    group: str
    entry_id: str
    event_id: str
    """Empty if the entry could not be read."""
    event_type: str
    handler: str
    """Empty if no handler was reached."""
    reason: Reason
    failure: Failure
    """The error as it is stored in the letter."""
    deliveries: int


@dataclass(frozen=True, slots=True)
class Parked:
    """An entry was parked, since there is no dead-letter stream: it stays pending and is not run again."""

    stream: str
    group: str
    entry_id: str
    event_id: str
    event_type: str
    handlers: tuple[str, ...]
    """The handlers that failed for good."""
    deliveries: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Entries were trimmed before the group had finished them."""

    stream: str
    group: str
    count: int | None
    """How many entries; None if the server does not know."""
    when: Trimmed
    entry_ids: tuple[str, ...] = ()
    """Their ids, as far as they are known."""


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """This consumer could not settle an entry, since the entry was no longer its own: another has it or settled it."""

    stream: str
    group: str
    entry_id: str


@dataclass(frozen=True, slots=True)
class OutageStarted:
    """Redis is unavailable. It is one outage, even if many commands fail in it."""

    stream: str
    group: str
    operation: str
    error: Exception


@dataclass(frozen=True, slots=True)
class OutageEnded:
    """Redis is available again, or the router has stopped."""

    stream: str
    group: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Emitted:
    """An event is known to be stored."""

    stream: str
    event_type: str
    event_id: str
    entry_id: str
    seconds: float
    """Seconds from when the encoded event was given to the emitter."""


@dataclass(frozen=True, slots=True)
class EmitFailed:
    """`emit` raised for an event."""

    stream: str
    event_type: str
    event_id: str
    outcome: NotEmitted
    error: Exception


Detail: TypeAlias = (
    Delivered
    | HandlerSucceeded
    | HandlerFailed
    | DeadLettered
    | Parked
    | Lost
    | LeaseLost
    | OutageStarted
    | OutageEnded
    | Emitted
    | EmitFailed
)
"""What an observer is called with: a closed set, suitable for `match`."""

Observer: TypeAlias = Callable[[Detail], None]
"""A plain function, called in the event loop right after the thing happened. Errors it raises are only logged."""


class Observers:
    """Calls all observers, and catches what they raise."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self.are_errors_logged: bool = True
        """Whether the texts of their errors are logged, which may quote what observers get: events, and errors."""
        self._silent_until = [0.0] * len(self._observers)
        self._failures = [0] * len(self._observers)

    def tell(self, detail: Detail) -> None:
        """Call all observers, in the order in which they were given."""
        for at, observer in enumerate(self._observers):
            try:
                observer(detail)
            except BaseException as error:  # any of them would end a task of Rapids
                if is_of_signal(error):
                    raise
                self._log(at, detail, error)

    def _log(self, at: int, detail: Detail, error: BaseException) -> None:
        self._failures[at] += 1
        if time.monotonic() < self._silent_until[at]:
            return
        self._silent_until[at] = time.monotonic() + LOG_INTERVAL
        if not self.are_errors_logged:
            withheld = f"{type(error).__name__}, whose text may quote what is hidden"
            error = RapidsError(withheld).with_traceback(error.__traceback__)
        with suppress(Exception):  # a log handler may raise
            logger.error(
                "observer %d raised on %s, %d times so far; this is logged at most once in %d s",
                at + 1,
                type(detail).__name__,
                self._failures[at],
                LOG_INTERVAL,
                exc_info=error,
            )
