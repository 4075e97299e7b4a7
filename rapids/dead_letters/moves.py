"""What an operation needs of a dead-letter queue: which letters there are, and to move them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rapids._storage.letter_moves import Moved, Working
from rapids._storage.operation_records import Claim
from rapids.dead_letters.letter import DeadLetter, Scope
from rapids.dead_letters.operation import OperationKind
from rapids.dead_letters.selection import Chunk, Count, Selector

__all__ = ["Letters", "Selected", "Step"]


ACTIONS: dict[OperationKind, str] = {"replay": "replayed", "discard": "discarded", "restore": "restored"}


@dataclass(frozen=True, slots=True)
class Step:
    """What is done to letters, for which operation, and on whose behalf."""

    claim: Claim
    kind: OperationKind
    scope: Scope
    actor: str
    reason: str

    @property
    def working(self) -> Working:
        """The operation, as the scripts that move letters know it."""
        return Working(self.claim.key, self.claim.token)

    @property
    def change(self) -> dict[str, str]:
        """What is noted with each letter."""
        noted = {"action": ACTIONS[self.kind], "actor": self.actor, "reason": self.reason}
        scope = {"scope": self.scope} if self.kind == "replay" else {}
        return {**noted, **scope, "operation": self.claim.operation_id}


class Selected(Protocol):
    """Letters selected for an operation: `Selection`, or those of the archive."""

    async def newest(self) -> str: ...
    async def count(self, upto: str) -> Count: ...
    async def following(self, after: str, upto: str, count: int) -> Chunk: ...


class Letters(Protocol):
    """A queue's letters, as operations see them. Each method raises `RedisError` if Redis is unavailable."""

    def select(self, kind: OperationKind, selector: Selector) -> Selected:
        """The letters of a selector that an operation of this kind is for."""
        ...

    async def read(self, kind: OperationKind, places: Sequence[str]) -> Sequence[DeadLetter]:
        """Letters by their places in a selection, without those that are gone; fewer where they are large."""
        ...

    async def move_many(self, step: Step, places: Sequence[str]) -> Moved:
        """Move letters in order, at least one unless it is blocked. Raises `WorkStoppedError`."""
        ...

    async def move_one(self, step: Step, place: str) -> None:
        """Move a letter that was blocked, counting it as done in the same step.

        Raises `LetterNotFoundError` and `LetterStateError` where somebody was faster, `WorkStoppedError`, and another
        error where it cannot be moved.
        """
        ...
