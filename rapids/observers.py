"""Observers: functions that are told, one frozen detail at a time, what a router or an emitter does."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rapids._core.outcomes import Failure, Reason
from rapids.delivery import Delivery

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
"""When an entry was trimmed away: before the group read it, while it waited for a consumer, while one held it."""

NotEmitted: TypeAlias = Literal["not_stored", "unknown", "unreplicated", "unwritable"]
"""What became of an event whose emit raised: not in the stream; perhaps in it; in it, on fewer replicas than asked for;
nothing was sent, as JSON cannot hold it."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """An entry was taken from the group: new, due again, or abandoned by another consumer."""

    stream: str
    """Where the entry is: the router's stream, or the group's replay stream."""
    group: str
    entry_id: str
    event_type: str
    deliveries: int
    """How many times the group has been given it, this time included."""


@dataclass(frozen=True, slots=True)
class HandlerSucceeded:
    """A handler finished with a delivery."""

    delivery: Delivery
    """As its last attempt had it."""
    seconds: float
    """How long it took, quick retries and the waits before them included."""


@dataclass(frozen=True, slots=True)
class HandlerFailed:
    """A handler's delivery failed, its quick retries included."""

    delivery: Delivery
    """As its last attempt had it."""
    seconds: float
    """How long it took, quick retries and the waits before them included."""
    error: BaseException
    """What the last attempt raised; a `HandlerTimeoutError` where its time was over."""
    retry_in: float | None
    """Seconds until it is to run again; None where it is not."""


@dataclass(frozen=True, slots=True)
class DeadLettered:
    """A dead letter was written."""

    stream: str
    group: str
    entry_id: str
    event_id: str
    """Empty where the entry could not be read."""
    event_type: str
    handler: str
    """Empty where no handler was reached."""
    reason: Reason
    failure: Failure
    """The error as the letter has it."""
    deliveries: int


@dataclass(frozen=True, slots=True)
class Parked:
    """An entry was parked, as there is no dead-letter stream: it stays pending and is not run again."""

    stream: str
    group: str
    entry_id: str
    event_id: str
    event_type: str
    handlers: tuple[str, ...]
    """Those that failed for good."""
    deliveries: int


@dataclass(frozen=True, slots=True)
class Lost:
    """Entries were trimmed away before the group had finished them."""

    stream: str
    group: str
    count: int | None
    """How many; None where the server cannot tell."""
    when: Trimmed
    entry_ids: tuple[str, ...] = ()
    """Which, where that is known."""


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """An entry was not this consumer's any more when it was to settle it: another has it now, or had settled it."""

    stream: str
    group: str
    entry_id: str


@dataclass(frozen=True, slots=True)
class OutageStarted:
    """Redis is unavailable. One outage, however many commands fail in it."""

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
    """Since it was given to the emitter, encoded."""


@dataclass(frozen=True, slots=True)
class EmitFailed:
    """An event's emit raised."""

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
"""What an observer is told: a closed set, fit for `match`."""

Observer: TypeAlias = Callable[[Detail], None]
"""A plain function, called in the event loop right after what it is told about; what it raises is logged, no more."""


class Observers:
    """Tells all observers, and keeps what they raise from doing harm."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._silent_until = [0.0] * len(self._observers)
        self._failures = [0] * len(self._observers)

    def tell(self, detail: Detail) -> None:
        """Tell all of them, in the order in which they were given."""
        for at, observer in enumerate(self._observers):
            try:
                observer(detail)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # a CancelledError too: it would end a task of ours
                self._log(at, detail, error)

    def _log(self, at: int, detail: Detail, error: BaseException) -> None:
        self._failures[at] += 1
        if time.monotonic() < self._silent_until[at]:
            return
        self._silent_until[at] = time.monotonic() + LOG_INTERVAL
        with suppress(Exception):  # a log handler may raise, too
            logger.error(
                "observer %d raised on %s, %d times so far; this is logged once in %d s at the most",
                *(at + 1, type(detail).__name__, self._failures[at], LOG_INTERVAL),
                exc_info=error,
            )
