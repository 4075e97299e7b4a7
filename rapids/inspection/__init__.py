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
from rapids.inspection.diagnosis import CommandCounts, Diagnosis, Finding, Severity, count_commands, diagnose
from rapids.inspection.feed import StreamEntry
from rapids.inspection.group_reader import GroupReader, GroupReadings, QueueReading, WatchedGroup
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
    "CommandCounts",
    "ConsumerSnapshot",
    "DeliveryState",
    "Diagnosis",
    "Finding",
    "FoundStreams",
    "GroupReader",
    "GroupReadings",
    "GroupSnapshot",
    "HandlerAttempts",
    "Inspector",
    "LettersFound",
    "Limit",
    "Page",
    "ParkedFailure",
    "PendingEntry",
    "PendingState",
    "QueueReading",
    "ScannedWindow",
    "Severity",
    "StreamEntry",
    "StreamSnapshot",
    "TracedDelivery",
    "TracedEvent",
    "TracedHandler",
    "TracedLetter",
    "TracedReplay",
    "WatchedGroup",
    "count_commands",
    "diagnose",
]
