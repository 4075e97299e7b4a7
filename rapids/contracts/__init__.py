"""Contracts: what a service says of its events, for other teams and for the next version of itself."""

from rapids.contracts.asyncapi_document import ASYNCAPI_VERSION, asyncapi_document
from rapids.contracts.schema_differences import Compatibility, SchemaDifference
from rapids.contracts.schema_gate import EventChange, EventSnapshot, Requirement, Snapshot, SnapshotError, compare
from rapids.contracts.stored_check import (
    StoredCheck,
    StoredEventsGate,
    StoredPlace,
    StoredProblem,
    check_newest,
    check_stored,
)

__all__ = [
    "ASYNCAPI_VERSION",
    "Compatibility",
    "EventChange",
    "EventSnapshot",
    "Requirement",
    "SchemaDifference",
    "Snapshot",
    "SnapshotError",
    "StoredCheck",
    "StoredEventsGate",
    "StoredPlace",
    "StoredProblem",
    "asyncapi_document",
    "check_newest",
    "check_stored",
    "compare",
]
