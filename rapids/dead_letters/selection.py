"""Selecting many dead letters, or archived ones: by id, by a filter, or by fingerprint; oldest first and frozen."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import instance
from rapids._core.entry_id import is_before, order, parsed_id
from rapids._storage import archive, letter_index, letters
from rapids._storage.archive import Archived
from rapids._storage.client.connections import SharedPool
from rapids._storage.letter_index import IndexState
from rapids._wire.entry_format import Fields
from rapids.dead_letters.find import Choice, Span, choose, span_of
from rapids.dead_letters.letter import DeadLetter, LetterFilter, read_history, read_letters

__all__ = ["MOST_IDS", "ArchiveSelection", "Chunk", "Count", "Selection", "Selector", "counted"]

MOST_IDS = 1_000

SMALLEST_STEP, SCAN_STEP = 20, 500
ENOUGH_BYTES = 2_000_000
"""Bytes of letters that are read at once if they are as large as the ones before."""
COUNT_STEP = 5_000
COUNT_STEPS = 20
"""How often to ask for ids to count them; what comes after these is not counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which letters an operation is about: exactly one of the three.

    Raises `ValueError` for more than one, none, or one that makes no sense, `TypeError` for what is none of these.
    """

    ids: tuple[str, ...] | None = None
    """1 to 1,000 ids of letters."""
    filter: LetterFilter | None = None
    fingerprint: str | None = None
    """16 hexadecimal digits, as `DeadLetterQueue.causes` gives them."""

    def __post_init__(self) -> None:
        given = [name for name in ("ids", "filter", "fingerprint") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"selector must have one of ids, filter and fingerprint, not {' and '.join(given) or 'none'}"
            )
        if self.ids is not None:
            self._check_ids(self.ids)
        instance("filter", self.filter, LetterFilter, "a LetterFilter")
        instance("fingerprint", self.fingerprint, str, "a string")
        if self.fingerprint is not None and re.fullmatch(r"[0-9a-f]{16}", self.fingerprint) is None:
            raise ValueError(
                f"fingerprint must be 16 hexadecimal digits, as causes have it, not {self.fingerprint[:50]!r}"
            )

    @staticmethod
    def _check_ids(ids: Sequence[str]) -> None:
        instance("ids", ids, (tuple, list), "a tuple of strings")
        if not 0 < len(ids) <= MOST_IDS:
            raise ValueError(f"ids must be 1 to {MOST_IDS:,} ids of letters, not {len(ids):,}")
        for one in ids:
            instance("each of ids", one, str, "a string")
            if parsed_id(one) != one:
                raise ValueError(f"ids must be ids of letters, such as 1763932000000-0, not {one[:50]!r}")

    @property
    def as_filter(self) -> LetterFilter:
        """The filter that selects the same; without meaning for `ids`."""
        return self.filter or LetterFilter(fingerprint=self.fingerprint)


@dataclass(frozen=True, slots=True)
class Count:
    """How many letters; at least so many where it is not exact."""

    total: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of the selected letters, oldest first."""

    entry_ids: tuple[str, ...]
    """Their entries in the dead-letter stream. A restored letter's differs from its own id."""
    scanned_to: str
    """The entry id to go on behind."""
    done: bool
    """Whether there are no more."""


async def counted(following: Callable[[str, str, int], Awaitable[Chunk]], upto: str, *, step: int, steps: int) -> Count:
    """How many there are, by asking for them `step` at a time, `steps` times at the most."""
    total, after = 0, "0-0"
    for _ in range(steps):
        chunk = await following(after, upto, step)
        total, after = total + len(chunk.entry_ids), chunk.scanned_to
        if chunk.done:
            return Count(total, True)
    return Count(total, False)


class Selection:
    """The selected letters of one dead-letter stream: each call does a bounded amount of work.

    Raises `redis.exceptions.RedisError` if Redis does not answer.
    """

    def __init__(self, redis: Redis | RedisCluster, dlq: str, selector: Selector) -> None:
        self._dlq = dlq
        self._commands = SharedPool(redis, dlq)
        self._selector = selector
        self._wanted = selector.as_filter
        self._span = span_of(self._wanted)
        self._known: tuple[IndexState, Choice] | None = None
        self._step = SMALLEST_STEP
        """How many letters to look at next."""

    async def newest(self) -> str:
        """The stream's last id by now: what is written later is not selected."""
        return (await letter_index.state(self._commands, self._dlq, letters=1)).last

    async def count(self, upto: str) -> Count:
        """How many letters are selected up to an entry id."""
        if self._selector.ids is not None:
            return Count(len(await self._entries(self._selector.ids, "0-0", upto)), True)
        state, choice = await self._choice(anew=True)
        is_whole = state.to == state.last and not is_before(upto, state.last)
        if choice.tells_all and is_whole and self._wanted.since is None and self._wanted.until is None:
            return Count(choice.count, True)
        return await counted(self.following, upto, step=COUNT_STEP, steps=COUNT_STEPS)

    async def following(self, after: str, upto: str, count: int) -> Chunk:
        """The next ones behind `after` ("0-0" to begin with) and up to `upto`: up to `count`, none perhaps.

        A letter that is moved at the same time may still be among them.
        """
        if self._selector.ids is not None:
            entries = await self._entries(self._selector.ids, after, upto)
            chunk = tuple(entries[:count])
            return Chunk(chunk, chunk[-1] if chunk else upto, len(entries) <= count)
        if self._span is None:
            return Chunk((), upto, True)
        after = after if is_before(self._span.after, after) else self._span.after
        end = upto if is_before(upto, self._span.upto) else self._span.upto
        if not is_before(after, end):
            return Chunk((), upto, True)
        return await self._between(Span(after, end), upto, count)

    async def _between(self, span: Span, upto: str, count: int) -> Chunk:
        state, choice = await self._choice()
        if not is_before(span.after, state.to):
            return await self._looked_at(span, upto, count)
        is_all = not is_before(state.to, span.upto)
        selected = await letter_index.select(
            *(self._commands, self._dlq, state.epoch, choice.names),
            behind=span.after,
            until=span.upto if is_all else state.to,
            count=count,
            whole=not choice.tells_all,
        )
        if selected is None:  # the index was rebuilt
            self._known = None
            return Chunk((), span.after, False)
        if choice.tells_all:
            found = tuple(entry_id.decode() for entry_id in selected.rows)
        else:
            found = await self._matching([(row[0], row[1]) for row in selected.rows])
        if not selected.done:
            return Chunk(found, selected.last, False)
        return Chunk(found, upto if is_all else state.to, is_all)

    async def _looked_at(self, span: Span, upto: str, count: int) -> Chunk:
        """Letters that are not indexed yet."""
        self._known = None  # by the next time they may be
        step = min(count, self._step)
        rows = await letters.first(self._commands, self._dlq, behind=span.after, upto=span.upto, count=step)
        size = sum(len(part) for _, fields in rows for part in fields)
        self._step = max(SMALLEST_STEP, min(2 * len(rows), SCAN_STEP, ENOUGH_BYTES * len(rows) // max(size, 1)))
        found = await self._matching(rows)
        done = len(rows) < step
        return Chunk(found, upto if done else rows[-1][0].decode(), done)

    async def _matching(self, rows: Sequence[tuple[bytes, Fields]]) -> tuple[str, ...]:
        read = await read_letters(self._commands, self._dlq, rows)
        return tuple(entry_id for entry_id, letter in read if self._wanted.matches(letter))

    async def _choice(self, *, anew: bool = False) -> tuple[IndexState, Choice]:
        """What is known of the index. It stays right: what is indexed later has later ids, and is looked at."""
        if self._known is None or anew:
            state = await letter_index.state(self._commands, self._dlq)
            self._known = state, choose(state, self._wanted)
        return self._known

    async def _entries(self, ids: Sequence[str], after: str, upto: str) -> list[str]:
        """Where these letters are now, in order; those that are gone by their own ids."""
        names = [one.encode() for one in dict.fromkeys(ids)]
        entries = list[str]()
        for name, at in zip(names, await letters.restored_at(self._commands, self._dlq, names), strict=True):
            restored = None if at is None else await letters.find_restored(self._commands, self._dlq, name.decode())
            entries.append(name.decode() if restored is None else restored[0])
        # A restored letter may be named twice: by its own id, and by its entry's.
        wanted = {entry for entry in entries if is_before(after, entry) and not is_before(upto, entry)}
        return sorted(wanted, key=order)


MAX_ARCHIVED_SCANNED = 2_000
MAX_ARCHIVED_BYTES = 4_000_000
"""Letters, and bytes of them, after which one call is over."""
ARCHIVED_COUNT_STEPS = 10
"""How often to look at so many, to count them; what comes after these is not counted."""


class ArchiveSelection:
    """The selected letters among those of the archive that were discarded last: each call does a bounded amount of
    work. Places are ids of entries of the archive, as `letter_moves.restore_many` takes them.

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
        return await counted(self.following, upto, step=MAX_ARCHIVED_SCANNED, steps=ARCHIVED_COUNT_STEPS)

    async def following(self, after: str, upto: str, count: int) -> Chunk:
        """The next ones behind `after` ("0-0" to begin with) and up to `upto`: up to `count`, none perhaps.

        One that is restored at the same time may still be among them.
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
                if len(found) >= count or scanned >= MAX_ARCHIVED_SCANNED or size >= MAX_ARCHIVED_BYTES:
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
    return max(SMALLEST_STEP, min(2 * len(rows), SCAN_STEP, ENOUGH_BYTES // each))
