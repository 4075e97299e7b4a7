"""Moves of single letters: what is appended for a replay, and why a letter cannot be replayed."""

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import hash_tag, stream_name, text
from rapids._core.entry_id import parsed_id
from rapids._storage import letters
from rapids._storage.client.connections import SharedPool, share_a_slot
from rapids._storage.keys import BESIDE, default_dlq, replay_stream
from rapids._storage.letter_moves import Append, Bounds, LetterMoves
from rapids._wire import compat
from rapids._wire.entry_format import Fields
from rapids._wire.letter_format import original_fields, replay_fields
from rapids.dead_letters.letter import DeadLetter, Scope, read_letters
from rapids.dead_letters.operation import Step
from rapids.exceptions import DeserializationError, LetterNotFoundError

__all__ = ["QueueMoves", "check_values"]

MAX_VALUES = 7_000
"""Names and values of an entry that can be replayed; Lua's `unpack` gives up before 8,000."""
MAX_MOVED_VALUES = 7_900
"""Those of a letter that can be archived; the script has the same number."""


class QueueMoves(LetterMoves):
    """Moves letters of a queue: many together, or one by itself, which may be any that the queue can move at all."""

    def __init__(self, redis: Redis | RedisCluster, dlq: str, bounds: Bounds) -> None:
        tag = (hash_tag(dlq) or dlq) if isinstance(redis, RedisCluster) else ""
        super().__init__(SharedPool(redis, dlq), dlq, bounds, tag=tag)
        self._redis = redis

    async def move_one(self, step: Step, place: str) -> None:
        """Move a letter that cannot be moved together with others. The operation counts it in the same step.

        Raises `LetterNotFoundError` if it is gone, `WorkStoppedError`, and another error if it cannot be moved.
        """
        if step.kind == "restore":
            await self.restore_many([place], step.claim, step.change)
            return
        fields = await letters.read_letter(self._commands, self._dlq, place)
        if fields is None:
            raise LetterNotFoundError(place)
        [(_, letter)] = await read_letters(self._commands, self._dlq, [(place.encode(), fields)])
        append, change = None, step.change
        if step.kind == "replay":
            append = self.append_of(letter, await self.completed(letter, fields), step.scope)
            change |= {"stream": append.stream}
        if await self.move(place, change, append, step.claim) is None:
            raise LetterNotFoundError(letter.id)

    async def completed(self, letter: DeadLetter, fields: Fields) -> Fields:
        """The fields, and those that letters of rapids-streams lack, if the entry that failed still exists."""
        entry_id = parsed_id(letter.entry_id)
        if entry_id is None or compat.is_complete(fields):
            return fields
        entry = await letters.origin(SharedPool(self._redis, letter.stream), letter.stream, entry_id)
        return fields if entry is None else compat.completed(fields, entry)

    def append_of(self, letter: DeadLetter, fields: Fields, scope: Scope) -> Append:
        """The entry that replays a letter. Raises `DeserializationError` if there can be none."""
        try:
            stream_name("original_stream", letter.stream)
            text("original_group", letter.group)
        except ValueError as error:
            raise DeserializationError(
                letter.event_type, f"the letter does not say where it is from: {error}"
            ) from error
        if letter.stream == self._dlq or BESIDE in letter.stream:  # a forged letter would write into the audit log
            raise DeserializationError(
                letter.event_type,
                f"it names {letter.stream!r} as its stream, which is a key of Rapids itself",
            )
        if not share_a_slot(self._redis, self._dlq, letter.stream):
            raise DeserializationError(
                letter.event_type,
                f"its stream {letter.stream!r} is in another slot of the Cluster than the dead-letter stream "
                f"{self._dlq!r}, so the letter cannot be replayed from here; name dead-letter streams as in "
                f"{default_dlq(letter.stream)!r}",
            )
        if scope == "everyone":
            append = Append(letter.stream, original_fields(fields), self._bounds.maxlen)
        else:
            handler = letter.handler if scope == "handler" else ""
            replay = replay_fields(fields, handler=handler, letter_id=letter.id)
            append = Append(replay_stream(letter.stream, letter.group), replay)
        check_values(letter, append.fields, MAX_VALUES)
        return append


def check_values(letter: DeadLetter, fields: Fields, limit: int = MAX_MOVED_VALUES) -> None:
    """Raise `DeserializationError` if the fields are more than a Lua script can pass to a command."""
    if len(fields) > limit:
        raise DeserializationError(letter.event_type, f"{len(fields) // 2} fields are more than can be moved")
