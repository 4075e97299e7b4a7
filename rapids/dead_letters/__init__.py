"""Dead letters: what failed and why, and how to replay, discard or restore it."""

from rapids._core.outcomes import Reason
from rapids._storage.keys import default_dlq
from rapids.dead_letters.canary import Canary, CanaryFailure, CanaryProgress, CanaryStep
from rapids.dead_letters.causes import Cause, Causes, QueueStats
from rapids.dead_letters.edit import Difference
from rapids.dead_letters.letter import ArchivePage, DeadLetter, LetterChange, LetterPage, Replay, ReplayOutcome, Scope
from rapids.dead_letters.operation import (
    Operation,
    OperationError,
    OperationKind,
    OperationPage,
    OperationState,
    Preview,
    Selector,
)
from rapids.dead_letters.operations import Operations
from rapids.dead_letters.parse_check import ParseCheck, ParseProblem
from rapids.dead_letters.queue import DeadLetterQueue, FailedReplay
from rapids.dead_letters.selection import LetterFilter

__all__ = [
    "ArchivePage",
    "Canary",
    "CanaryFailure",
    "CanaryProgress",
    "CanaryStep",
    "Cause",
    "Causes",
    "DeadLetter",
    "DeadLetterQueue",
    "Difference",
    "FailedReplay",
    "LetterChange",
    "LetterFilter",
    "LetterPage",
    "Operation",
    "OperationError",
    "OperationKind",
    "OperationPage",
    "OperationState",
    "Operations",
    "ParseCheck",
    "ParseProblem",
    "Preview",
    "QueueStats",
    "Reason",
    "Replay",
    "ReplayOutcome",
    "Scope",
    "Selector",
    "default_dlq",
]
