"""Inspection: how streams, their groups and consumers are, and what is pending. Read-only, at a bounded cost."""

from rapids.inspection.inspector import Inspector
from rapids.inspection.snapshots import (
    ConsumerSnapshot,
    GroupSnapshot,
    HandlerAttempts,
    Page,
    ParkedFailure,
    PendingEntry,
    PendingState,
    StreamSnapshot,
)
from rapids.inspection.trees import (
    CausationTree,
    LettersFound,
    ScannedWindow,
    TracedDelivery,
    TracedEvent,
    TracedHandler,
    TracedLetter,
    TracedReplay,
)

__all__ = [
    "CausationTree",
    "ConsumerSnapshot",
    "GroupSnapshot",
    "HandlerAttempts",
    "Inspector",
    "LettersFound",
    "Page",
    "ParkedFailure",
    "PendingEntry",
    "PendingState",
    "ScannedWindow",
    "StreamSnapshot",
    "TracedDelivery",
    "TracedEvent",
    "TracedHandler",
    "TracedLetter",
    "TracedReplay",
]
