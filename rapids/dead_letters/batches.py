"""The steps of an operation: letters moved many at once, or one by one."""

from collections.abc import Sequence

from redis.exceptions import RedisError

from rapids._core.outages import HaltedError, Retries
from rapids._core.redis_errors import is_outage, is_refused
from rapids._storage import operation_records as stored
from rapids._storage.client.connections import Commands
from rapids._storage.letter_moves import NoRoomError, WorkStoppedError
from rapids.dead_letters.moves import Letters, Step
from rapids.dead_letters.pacing import Pace
from rapids.dead_letters.stored_operations import write_error
from rapids.exceptions import LetterNotFoundError, LetterStateError

__all__ = ["Batches"]

MOST_SINGLY = 100


class Batches:
    """Moves letters in order, as many in one step as may be; those that others may not be moved with, by themselves."""

    def __init__(self, commands: Commands, letters: Letters, step: Step, retries: Retries, pace: Pace) -> None:
        self._commands = commands
        self._letters = letters
        self._step = step
        self._retries = retries
        self._pace = pace
        self._singly = 0
        """How many of the next letters to move by themselves: more each time that one after another has to be."""
        self._singly_before = 0

    async def dealt_with(self, places: Sequence[str]) -> bool:
        """Move them all; one that cannot be moved is counted, and the rest goes on.

        False after an outage: whether the last step was taken, Redis must be asked. Raises `HaltedError` when told to
        halt, or if the operation is not this process's to run any more.
        """
        try:
            while places:
                await self._retries.sleep(self._pace.wait)
                count = await (self._one(places[0]) if self._singly else self._many(places))
                self._retries.worked()
                self._pace.took(count)
                places = places[count:]
        except WorkStoppedError:
            raise HaltedError from None
        except (RedisError, OSError) as error:
            await self._retries.failed(error)
            return False
        return True

    async def _many(self, places: Sequence[str]) -> int:
        """How many were dealt with."""
        batch = places[: self._pace.batch]
        try:
            moved = await self._letters.move_many(self._step, batch)
        except RedisError as error:
            if _is_of_all(error):
                raise
            self._singly = len(batch)  # one of them is such that the script breaks: which, will be seen
            return 0
        if moved.last is not None:
            self._singly_before = 0
        if moved.blocked is not None or moved.last is None:
            self._singly = self._singly_before = min(2 * self._singly_before or 1, MOST_SINGLY)
        return 0 if moved.last is None else batch.index(moved.last) + 1

    async def _one(self, place: str) -> int:
        self._singly -= 1
        try:
            await self._letters.move_one(self._step, place)
        except (LetterNotFoundError, LetterStateError):
            await self._pass_over("skipped", place)
        except WorkStoppedError:
            raise
        except Exception as error:  # of one letter, which may hold anything
            if _is_of_all(error):
                raise
            await self._pass_over("failed", place, write_error(await self._id_of(place), error))
        return 1

    async def _id_of(self, place: str) -> str:
        """The letter's own id; its place where it is gone."""
        for letter in await self._letters.read(self._step.kind, [place]):
            return letter.id
        return place

    async def _pass_over(self, counted_as: str, place: str, error: str = "") -> None:
        if not await stored.pass_over(self._commands, self._step.claim, counted_as, place, error):
            raise HaltedError


def _is_of_all(error: Exception) -> bool:
    """Whether another letter would meet the same."""
    if isinstance(error, NoRoomError):
        return True
    return isinstance(error, RedisError | OSError) and (is_outage(error) or is_refused(error))
