"""Failed work: the dead letters and parked entries that were left since a test began to track its streams."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from rapids.clients import RedisClient
from rapids.dead_letters import DeadLetter, DeadLetterQueue
from rapids.inspection import Inspector, ParkedFailure, PendingEntry
from rapids.router import EventRouter

__all__ = ["Failed", "ParkedEntry", "Place", "failed_in", "first_line", "letters_after", "pending_after"]

PAGE = 500


@dataclass(frozen=True, slots=True)
class ParkedEntry:
    """An entry that failed for good in a group without a dead-letter stream."""

    stream: str
    group: str
    entry: PendingEntry


@dataclass(frozen=True, slots=True)
class Place:
    """An entry in a group."""

    stream: str
    group: str
    entry_id: str

    def has(self, letter: DeadLetter) -> bool:
        """Whether the letter is of this entry and group."""
        return (letter.stream, letter.group, letter.entry_id) == (self.stream, self.group, self.entry_id)


@dataclass(frozen=True, slots=True)
class Failed:
    """A handler that failed for good on an entry."""

    id: str
    """Of the letter; for a parked entry, of the entry in its group, with the handler."""
    whose: tuple[str, str, str, str]
    """Which handler failed on which event, however often that was emitted: stream, group, handler, event id."""
    error: str
    """Its type, and the first line of its text."""


def failed_in(
    letters: Iterable[DeadLetter], parked: Iterable[ParkedEntry], event_ids: Mapping[tuple[str, str], str]
) -> Iterator[Failed]:
    """Every handler that failed for good. `event_ids`: by stream and entry id."""
    for one in letters:
        error = f"{one.error_type}: {first_line(one.error)}"
        yield Failed(one.id, (one.stream, one.group, one.handler, one.event_id), error)
    for one in parked:
        kinds = {of.handler: of.attempts[-1].error_type for of in one.entry.attempts if of.attempts}
        event_id = event_ids.get((one.stream, one.entry.entry_id), "")
        for failure in one.entry.failures or [ParkedFailure("", "parked", "")]:
            error = f"{kinds.get(failure.handler, failure.reason)}: {first_line(failure.error)}"
            whose = (one.stream, one.group, failure.handler, event_id)
            yield Failed(f"{one.stream} {one.group} {one.entry.entry_id} {failure.handler}", whose, error)


def first_line(text: str) -> str:
    """The first line of an error."""
    return (text.splitlines() or [""])[0]


async def letters_after(redis: RedisClient, dlq: str, began: str) -> list[DeadLetter]:
    """The letters of a dead-letter stream after the id `began`, oldest first."""
    after, found, cursor = _order(began), list[DeadLetter](), None
    while True:
        page = await DeadLetterQueue(redis, dlq).list(cursor=cursor, limit=PAGE)
        found += [letter for letter in page.items if _order(letter.id) > after]
        cursor = page.cursor
        if cursor is None or (page.items and _order(page.items[-1].id) <= after):
            return found[::-1]


async def pending_after(redis: RedisClient, router: EventRouter, began: str) -> list[PendingEntry]:
    """The pending entries of a router's group after the id `began`."""
    after, found, cursor = _order(began), list[PendingEntry](), None
    while True:
        page = await Inspector(redis).pending(router.stream, router.group, cursor=cursor, limit=PAGE)
        found += [one for one in page.items if _order(one.entry_id) > after]
        cursor = page.cursor
        if cursor is None:
            return found


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, seq = entry_id.partition("-")
    return int(ms), int(seq or 0)
