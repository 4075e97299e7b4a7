"""Rapids: a typed, async-first event router on Redis Streams."""

from rapids._core.attempt_log import Attempt
from rapids._core.settings import GroupStartPosition
from rapids.audit import AuditEntry, AuditLog
from rapids.control import GroupControl, Pause
from rapids.correlation import correlation_scope, get_causation_id, get_correlation_id
from rapids.dead_letters import DeadLetter, DeadLetterQueue, LetterFilter, LetterPage, Operation, Selector
from rapids.delivery import CallNext, Delivery, HandlerMiddleware, current_delivery
from rapids.emitter import EventEmitter
from rapids.events import BaseEvent, Event, GenericEvent, get_event_class
from rapids.exceptions import EmitError, NonRetryableError, RapidsError, RetryAfter
from rapids.health import HealthReason, HeldBack, RouterHealth, Trimming
from rapids.router import ConsumerLag, EventRouter

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
