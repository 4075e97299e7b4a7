"""Rapids: a typed, async-first event router on Redis Streams."""

import importlib
from typing import TYPE_CHECKING

from rapids._core.attempt_log import Attempt
from rapids._core.settings import GroupStartPosition
from rapids.control import GroupControl, Pause
from rapids.correlation import correlation_scope, get_causation_id, get_correlation_id
from rapids.delivery import CallNext, Delivery, HandlerMiddleware, current_delivery
from rapids.emitter import EventEmitter
from rapids.events import BaseEvent, Event, GenericEvent, get_event_class
from rapids.exceptions import EmitError, NonRetryableError, RapidsError, RetryAfter
from rapids.health import HealthReason, HeldBack, RouterHealth, Trimming
from rapids.router import ConsumerLag, EventRouter

if TYPE_CHECKING:
    from rapids.audit import AuditEntry, AuditLog
    from rapids.dead_letters import DeadLetter, DeadLetterQueue, LetterFilter, LetterPage, Operation, Selector

__all__ = [  # noqa: RUF022 - grouped by concept
    # Events
    "BaseEvent",
    "Event",
    "GenericEvent",
    "get_event_class",
    # Emitting
    "EmitError",
    "EventEmitter",
    "correlation_scope",
    "get_causation_id",
    "get_correlation_id",
    # Handling
    "CallNext",
    "ConsumerLag",
    "Delivery",
    "EventRouter",
    "GroupStartPosition",
    "HandlerMiddleware",
    "HeldBack",
    "NonRetryableError",
    "RetryAfter",
    "Trimming",
    "current_delivery",
    # Operating
    "AuditEntry",
    "AuditLog",
    "GroupControl",
    "HealthReason",
    "Pause",
    "RouterHealth",
    # What failed
    "Attempt",
    "DeadLetter",
    "DeadLetterQueue",
    "LetterFilter",
    "LetterPage",
    "Operation",
    "RapidsError",
    "Selector",
]

_IMPORTED_WHEN_USED = {
    "AuditEntry": "rapids.audit",
    "AuditLog": "rapids.audit",
    "DeadLetter": "rapids.dead_letters",
    "DeadLetterQueue": "rapids.dead_letters",
    "LetterFilter": "rapids.dead_letters",
    "LetterPage": "rapids.dead_letters",
    "Operation": "rapids.dead_letters",
    "Selector": "rapids.dead_letters",
}
"""Most processes that emit or handle events never look at dead letters: `import rapids` does not wait for them."""


def __getattr__(name: str) -> object:
    """Import a name when it is used first (https://peps.python.org/pep-0562/)."""
    if name not in _IMPORTED_WHEN_USED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(_IMPORTED_WHEN_USED[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
