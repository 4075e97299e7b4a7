"""Contracts: what a service says of its events, for other teams and for the next version of itself."""

from rapids.contracts.asyncapi_document import ASYNCAPI_VERSION, asyncapi_document
from rapids.contracts.schema_differences import Compatibility, Difference
from rapids.contracts.schema_gate import EventChange, EventSnapshot, Requirement, Snapshot, SnapshotError, compare

__all__ = [
    "ASYNCAPI_VERSION",
    "Compatibility",
    "Difference",
    "EventChange",
    "EventSnapshot",
    "Requirement",
    "Snapshot",
    "SnapshotError",
    "asyncapi_document",
    "compare",
]
