"""Rapids: a typed, async-first event router on Redis Streams."""

import importlib
from typing import TYPE_CHECKING

__version__ = "0.2.0"

importlib.import_module("rapids.logs").protect_loggers()

if TYPE_CHECKING:
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
    from rapids.health import ConsumerLag, HealthReason, HeldBack, RouterHealth, Trimming
    from rapids.providers import Depends
    from rapids.router import EventRouter
    from rapids.typed_emitter import Emits

__all__ = [  # noqa: RUF022 - grouped by concept
    # Events
    "BaseEvent",
    "Event",
    "GenericEvent",
    "get_event_class",
    # Emitting
    "EmitError",
    "Emits",
    "EventEmitter",
    "correlation_scope",
    "get_causation_id",
    "get_correlation_id",
    # Handling
    "CallNext",
    "ConsumerLag",
    "Delivery",
    "Depends",
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

_NAMES = {
    "rapids._core.attempt_log": ("Attempt",),
    "rapids._core.settings": ("GroupStartPosition",),
    "rapids.audit": ("AuditEntry", "AuditLog"),
    "rapids.control": ("GroupControl", "Pause"),
    "rapids.correlation": ("correlation_scope", "get_causation_id", "get_correlation_id"),
    "rapids.dead_letters": (
        "DeadLetter",
        "DeadLetterQueue",
        "LetterFilter",
        "LetterPage",
        "Operation",
        "Selector",
    ),
    "rapids.delivery": ("CallNext", "Delivery", "HandlerMiddleware", "current_delivery"),
    "rapids.providers": ("Depends",),
    "rapids.emitter": ("EventEmitter",),
    "rapids.events": ("BaseEvent", "Event", "GenericEvent", "get_event_class"),
    "rapids.exceptions": ("EmitError", "NonRetryableError", "RapidsError", "RetryAfter"),
    "rapids.health": ("ConsumerLag", "HealthReason", "HeldBack", "RouterHealth", "Trimming"),
    "rapids.router": ("EventRouter",),
    "rapids.typed_emitter": ("Emits",),
}
"""The module of each name. A module is imported when a name of it is used: a process that only emits events imports no
router, and most processes import nothing for dead letters."""

_MODULES = {name: module for module, names in _NAMES.items() for name in names}


if not TYPE_CHECKING:  # a type checker would accept any name of a module with this function

    def __getattr__(name: str) -> object:
        """Import a name, or a public module of the package, when it is used first (https://peps.python.org/pep-0562/)."""
        if name in _MODULES:
            value: object = getattr(importlib.import_module(_MODULES[name]), name)
            globals()[name] = value
            return value
        module = f"{__name__}.{name}"
        try:
            if not name.startswith("_"):
                return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
