"""Testing of services on Rapids: emitters that record, handlers without a server, and everything an event sets off."""

from rapids.rehearsal import HandlerOutcome, HandlerState, RehearsedAttempt
from rapids.testing.deliveries import Outcomes, deliver, load_event
from rapids.testing.failed_work import ParkedEntry
from rapids.testing.recording_emitter import RecordingEmitter
from rapids.testing.records import EventRecord
from rapids.testing.tracked_block import TrackedBlock, TrackedInThread, tracked
from rapids.testing.tracked_work import Tracked

__all__ = [
    "EventRecord",
    "HandlerOutcome",
    "HandlerState",
    "Outcomes",
    "ParkedEntry",
    "RecordingEmitter",
    "RehearsedAttempt",
    "Tracked",
    "TrackedBlock",
    "TrackedInThread",
    "deliver",
    "load_event",
    "tracked",
]
