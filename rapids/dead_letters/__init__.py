"""Dead letters: what failed and why, and putting it right."""

from rapids.dead_letters.diffs import Difference
from rapids.dead_letters.groups import LetterGroup, LetterGroups, QueueStanding
from rapids.dead_letters.letters import DeadLetter, LetterChange, LetterFilter, LetterPage, Replay, ReplayOutcome, Scope
from rapids.dead_letters.operation import (
    Operation,
    OperationError,
    OperationKind,
    OperationPage,
    OperationState,
    Preview,
)
from rapids.dead_letters.operations import Operations
from rapids.dead_letters.parsing import ParseCheck, ParseProblem
from rapids.dead_letters.queue import DeadLetterQueue
from rapids.dead_letters.selecting import Selector
from rapids.storage.keys import default_dlq

__all__ = [
    "DeadLetter",
    "DeadLetterQueue",
    "Difference",
    "LetterChange",
    "LetterFilter",
    "LetterGroup",
    "LetterGroups",
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
    "QueueStanding",
    "Replay",
    "ReplayOutcome",
    "Scope",
    "Selector",
    "default_dlq",
]
