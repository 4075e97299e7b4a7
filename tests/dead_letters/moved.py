"""Letters for the tests of operations themselves: found as ever, and moved in the simplest way that counts as one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Redis, RedisCluster

from rapids._storage import scripts
from rapids._storage.client.connections import SharedPool, checked, run
from rapids._storage.letter_moves import Moved, WorkStoppedError
from rapids.dead_letters.letter import DeadLetter
from rapids.dead_letters.moves import Step
from rapids.dead_letters.operation import OperationKind
from rapids.dead_letters.operations import Operations
from rapids.dead_letters.selection import Selection, Selector
from rapids.exceptions import LetterNotFoundError
from tests.worker.helpers import DLQ, as_text

MOVED = f"{DLQ}:moved"

MOVE = """
local held = redis.call('HMGET', KEYS[1], 'state', 'owner')
if held[1] ~= 'running' or held[2] ~= ARGV[1] then return 'stopped' end
local done, skipped, last = 0, 0, ''
for i = 3, #ARGV do
  if ARGV[i] == ARGV[2] then break end
  if redis.call('XDEL', KEYS[2], ARGV[i]) == 1 then
    redis.call('RPUSH', KEYS[3], ARGV[i])
    done = done + 1
  else skipped = skipped + 1 end
  last = ARGV[i]
end
if last ~= '' then redis.call('HSET', KEYS[1], 'cursor', last) end
redis.call('HINCRBY', KEYS[1], 'done', done)
redis.call('HINCRBY', KEYS[1], 'skipped', skipped)
return {done, skipped, last}
"""


async def nothing(_: int) -> None:
    """Between steps, as a rule."""


class MovedLetters:
    """Moves letters to a list, in their order. Those in `blocked` go by themselves, those in `broken` not at all."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        self._redis = redis
        self._commands = SharedPool(redis, DLQ)
        self.blocked: set[str] = set()
        self.broken: dict[str, Exception] = {}
        self.before_step: Callable[[int], Awaitable[None]] = nothing
        """Awaited with the number of the step of many letters that follows."""
        self.after_step: Callable[[int], Awaitable[None]] = nothing
        self.steps = 0

    def select(self, kind: OperationKind, selector: Selector) -> Selection:
        return Selection(self._redis, DLQ, selector)

    async def read(self, kind: OperationKind, places: Sequence[str]) -> list[DeadLetter]:
        replies = await self._commands.send([("XRANGE", DLQ, place, place) for place in places])
        return [DeadLetter.read(place, rows[0][1]) for place, rows in zip(places, replies, strict=True) if rows]

    async def move_many(self, step: Step, places: Sequence[str]) -> Moved:
        await self.before_step(self.steps)
        single = next((place for place in places if place in self.blocked), "")
        found = await self._move(step, single, places)
        self.steps += 1
        await self.after_step(self.steps - 1)
        if found == b"stopped":
            raise WorkStoppedError
        done, skipped, last = found
        return Moved(done, skipped, last.decode() or None, (single, "blocked") if single else None)

    async def move_one(self, step: Step, place: str) -> None:
        if place in self.broken:
            raise self.broken[place]
        if not await self._redis.xrange(DLQ, place, place):
            raise LetterNotFoundError(place)
        if await self._move(step, "", [place]) == b"stopped":
            raise WorkStoppedError

    async def _move(self, step: Step, single: str, places: Sequence[str]) -> object:
        script = scripts.Script(MOVE.encode(), "0" * 40)
        calls = [((step.claim.key, DLQ, MOVED), (step.claim.token, single, *places))]
        return checked((await run(self._commands, script, calls))[0])


def make_operations(redis: Redis | RedisCluster) -> tuple[Operations, MovedLetters]:
    letters = MovedLetters(redis)
    return Operations(SharedPool(redis, DLQ), DLQ, letters), letters


async def moved(redis: Redis | RedisCluster) -> list[str]:
    """What was moved, in the order in which it was."""
    return [as_text(one) for one in await redis.lrange(MOVED, 0, -1)]
