"""Inspection of streams, groups, consumers and pending entries: read-only, at a limited cost."""

from rapids.inspection.causation_tree import (
    CausationTree,
    DeliveryState,
    LettersFound,
    Limit,
    ScannedWindow,
    TracedDelivery,
    TracedEvent,
    TracedHandler,
    TracedLetter,
    TracedReplay,
)
from rapids.inspection.feed import StreamEntry
from rapids.inspection.inspector import Inspector
from rapids.inspection.snapshots import (
    AnnouncedRouter,
    ConsumerSnapshot,
    FoundStreams,
    GroupSnapshot,
    HandlerAttempts,
    Page,
    ParkedFailure,
    PendingEntry,
    PendingState,
    StreamSnapshot,
)

__all__ = [
    "AnnouncedRouter",
    "CausationTree",
    "ConsumerSnapshot",
    "DeliveryState",
    "FoundStreams",
    "GroupSnapshot",
    "HandlerAttempts",
    "Inspector",
    "LettersFound",
    "Limit",
    "Page",
    "ParkedFailure",
    "PendingEntry",
    "PendingState",
    "ScannedWindow",
    "StreamEntry",
    "StreamSnapshot",
    "TracedDelivery",
    "TracedEvent",
    "TracedHandler",
    "TracedLetter",
    "TracedReplay",
]
