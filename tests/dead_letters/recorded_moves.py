"""Moves for the tests of operations themselves: a short script records each moved letter in a list."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis, RedisCluster

from rapids._storage import scripts
from rapids._storage.client.connections import SharedPool, checked, run
from rapids._storage.letter_moves import Bounds, Moved, WorkStoppedError
from rapids._storage.operation_records import Claim
from rapids.dead_letters.moves import QueueMoves
from rapids.dead_letters.operation import Step
from rapids.dead_letters.operations import Operations
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


class RecordedMoves(QueueMoves):
    """Moves letters to a list, in their order. Those in `blocked` go by themselves, those in `broken` not at all."""

    def __init__(self, redis: Redis | RedisCluster) -> None:
        super().__init__(redis, DLQ, Bounds(retention_ms=1_000, archive_maxlen=1))
        self.blocked: set[str] = set()
        self.broken: dict[str, Exception] = {}
        self.before_step: Callable[[int], Awaitable[None]] = nothing
        """Awaited with the number of the step of many letters that follows."""
        self.after_step: Callable[[int], Awaitable[None]] = nothing
        self.steps = 0

    async def move_many(
        self, entry_ids: Sequence[str], claim: Claim, change: Mapping[str, str], *, scope: str = ""
    ) -> Moved:
        await self.before_step(self.steps)
        single = next((place for place in entry_ids if place in self.blocked), "")
        found = await self._record(claim, single, entry_ids)
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
        if await self._record(step.claim, "", [place]) == b"stopped":
            raise WorkStoppedError

    async def _record(self, claim: Claim, single: str, places: Sequence[str]) -> Any:
        script = scripts.Script(MOVE.encode(), "0" * 40)
        calls = [((claim.key, DLQ, MOVED), (claim.token, single, *places))]
        return checked((await run(self._commands, script, calls))[0])


def make_operations(redis: Redis | RedisCluster) -> tuple[Operations, RecordedMoves]:
    moves = RecordedMoves(redis)
    return Operations(SharedPool(redis, DLQ), DLQ, moves), moves


async def moved(redis: Redis | RedisCluster) -> list[str]:
    """What was moved, in the order in which it was."""
    return [as_text(one) for one in await redis.lrange(MOVED, 0, -1)]
