"""Selecting many discarded letters in the archive, to be restored; in the order in which they were archived."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from redis.asyncio import Redis, RedisCluster

from rapids._core.entry_id import is_before
from rapids._storage import archive
from rapids._storage.archive import Archived
from rapids._storage.client.connections import SharedPool
from rapids.dead_letters.find import span_of
from rapids.dead_letters.letter import DeadLetter, read_history
from rapids.dead_letters.selection import Chunk, Count, Selector, counted

__all__ = ["ArchiveSelection"]

SMALLEST_STEP, LARGEST_STEP = 20, 500
"""Letters read at once: more each time, as long as they are small."""
SCAN_LIMIT = 2_000
ENOUGH_BYTES = 4_000_000
"""Letters, and bytes of them, after which one call is over."""
COUNT_STEPS = 10
"""How often to look at so many, to count them; what comes after these is not counted."""


class ArchiveSelection:
    """The selected letters among those of the archive that were discarded last: each call does a bounded amount of
    work. Places are ids of entries of the archive, as `storage.moving.restore_many` takes them.

    Raises `redis.exceptions.RedisError` if Redis does not answer.
    """

    def __init__(self, redis: Redis | RedisCluster, dlq: str, selector: Selector) -> None:
        self._dlq = dlq
        self._commands = SharedPool(redis, dlq)
        self._ids = selector.ids
        self._wanted = selector.as_filter
        self._span = span_of(self._wanted)

    async def newest(self) -> str:
        """The last place in the archive by now: what is archived later is not selected."""
        return await archive.last(self._commands, self._dlq)

    async def count(self, upto: str) -> Count:
        """How many letters are selected up to a place."""
        return await counted(self.following, upto, step=SCAN_LIMIT, steps=COUNT_STEPS)

    async def following(self, after: str, upto: str, count: int) -> Chunk:
        """The next ones behind `after` ("0-0" to begin with) and up to `upto`: up to `count`, none perhaps.

        One that somebody else restores meanwhile may still be among them.
        """
        if self._span is None or not is_before(after, upto):
            return Chunk((), upto, True)
        found = list[str]()
        scanned = size = 0
        async with aclosing(self._behind(after, upto)) as behind:
            async for one in behind:
                if self._is_selected(one):
                    found.append(one.place)
                scanned += 1
                size += sum(map(len, one.fields))
                if len(found) >= count or scanned >= SCAN_LIMIT or size >= ENOUGH_BYTES:
                    return Chunk(tuple(found), one.place, False)
        return Chunk(tuple(found), upto, True)

    async def _behind(self, after: str, upto: str) -> AsyncGenerator[Archived]:
        if self._ids is not None:
            places = await archive.places(self._commands, self._dlq, self._ids)
            wanted = [place for place in places if is_before(after, place) and not is_before(upto, place)]
            for at in range(0, len(wanted), SMALLEST_STEP):
                for one in await archive.several(self._commands, self._dlq, wanted[at : at + SMALLEST_STEP]):
                    yield one
            return
        step = SMALLEST_STEP
        while True:
            rows = await archive.first(self._commands, self._dlq, behind=after, upto=upto, count=step)
            for one in rows:
                yield one
            if len(rows) < step:
                return
            after, step = rows[-1].place, _next_step(rows)

    def _is_selected(self, one: Archived) -> bool:
        history = read_history(one.history)
        if not history or history[-1].action != "discarded":
            return False
        if self._ids is not None:
            return True
        span = self._span
        if span is None or not is_before(span.after, one.letter_id) or is_before(span.upto, one.letter_id):
            return False
        return self._wanted.matches(DeadLetter.read(one.letter_id, one.fields))


def _next_step(rows: Sequence[Archived]) -> int:
    """How many to read next: twice as many, if they will be no more than some 2 MB."""
    each = sum(len(part) for one in rows for part in one.fields) // len(rows) + 1
    return max(SMALLEST_STEP, min(2 * len(rows), LARGEST_STEP, ENOUGH_BYTES // 2 // each))
