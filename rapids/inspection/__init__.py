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

__all__ = [
    "ConsumerSnapshot",
    "GroupSnapshot",
    "HandlerAttempts",
    "Inspector",
    "Page",
    "ParkedFailure",
    "PendingEntry",
    "PendingState",
    "StreamSnapshot",
]
