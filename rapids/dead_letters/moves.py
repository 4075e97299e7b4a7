"""The letters of a queue as operations use them: select, read and move many."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from redis.asyncio import Redis, RedisCluster

from rapids._core.settings import hash_tag
from rapids._storage import archive, letter_moves, letters
from rapids._storage.client.connections import SharedPool
from rapids._storage.letter_moves import Moved, MoveMany, Working
from rapids._storage.operation_records import Claim
from rapids.dead_letters.letter import DeadLetter, Scope, read_history, read_letters
from rapids.dead_letters.operation import OperationKind
from rapids.dead_letters.selection import ArchiveSelection, Chunk, Count, Selection, Selector

__all__ = ["Bounds", "Letters", "QueueLetters", "Selected", "Step"]

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


READ_STEP = 20
ENOUGH_BYTES = 4_000_000
"""Bytes of letters after which no more are read for a preview."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a queue keeps: see `DeadLetterQueue`."""

    retention_ms: int
    archive_maxlen: int
    dlq_maxlen: int | None
    maxlen: int | None


class QueueLetters:
    """Letters of one dead-letter stream, and of its archive. `move_one` moves one out of the stream."""

    def __init__(
        self,
        redis: Redis | RedisCluster,
        dlq: str,
        bounds: Bounds,
        move_one: Callable[[Step, str], Awaitable[None]],
    ) -> None:
        self._redis = redis
        self._dlq = dlq
        self._commands = SharedPool(redis, dlq)
        self._bounds = bounds
        self._move_one = move_one
        self._tag = (hash_tag(dlq) or dlq) if isinstance(redis, RedisCluster) else ""

    def select(self, kind: OperationKind, selector: Selector) -> Selected:
        """The letters of a selector: in the stream, or, to be restored, in the archive."""
        chosen = ArchiveSelection if kind == "restore" else Selection
        return chosen(self._redis, self._dlq, selector)

    async def read(self, kind: OperationKind, places: Sequence[str]) -> Sequence[DeadLetter]:
        """Letters by their places, in order; fewer where they are large."""
        found: list[DeadLetter] = []
        size = 0
        for at in range(0, len(places), READ_STEP):
            some = places[at : at + READ_STEP]
            read = await (self._archived(some) if kind == "restore" else self._dead(some))
            size += sum(len(part) for letter in read for part in letter.stored)
            found += read
            if size >= ENOUGH_BYTES:
                break
        return found

    async def _dead(self, places: Sequence[str]) -> list[DeadLetter]:
        rows = await letters.several(self._commands, self._dlq, places)
        return [letter for _, letter in await read_letters(self._commands, self._dlq, rows)]

    async def _archived(self, places: Sequence[str]) -> list[DeadLetter]:
        rows = await archive.several(self._commands, self._dlq, places)
        return [DeadLetter.read(one.letter_id, one.fields, read_history(one.history)) for one in rows]

    async def move_many(self, step: Step, places: Sequence[str]) -> Moved:
        """Move letters in one step, in which the operation counts them."""
        bounds = self._bounds
        if step.kind == "restore":
            return await letter_moves.restore_many(
                *(self._commands, self._dlq, step.working, step.change, places), dlq_maxlen=bounds.dlq_maxlen
            )
        many = MoveMany(
            *(step.working, step.change, bounds.retention_ms, bounds.archive_maxlen),
            scope=step.scope if step.kind == "replay" else "",
            tag=self._tag,
            maxlen=bounds.maxlen,
        )
        return await letter_moves.move_many(self._commands, self._dlq, many, places)

    async def move_one(self, step: Step, place: str) -> None:
        """Move a letter that could not be moved with others."""
        if step.kind == "restore":
            await self.move_many(step, [place])
        else:
            await self._move_one(step, place)
