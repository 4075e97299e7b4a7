"""Searching dead letters without revealing what redaction hides."""

import json
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter, DeadLetterQueue, LetterFilter, LetterPage
from rapids.dead_letters import ArchivePage
from rapids.redaction import Redactor, Searched
from rapids_fastapi.admin.payload import MAX_IN_PART, MAX_SEARCHED

__all__ = ["MAX_PAGE_BYTES", "bounded_page", "find"]

MAX_SCANNED = 1_000
"""Letters that are read for one page of a search. The next page continues after them."""

MAX_PAGE_BYTES = 1024 * 1024
"""Bytes of payloads that are searched for one page. It has fewer letters if theirs are more, but at least one."""

Page = TypeVar("Page", LetterPage, ArchivePage)

MIN_READ = 10
"""Letters that are read at a time, at least: a page of one letter must not take a thousand round trips. Not more, since
each may be large."""


async def find(
    queue: DeadLetterQueue, wanted: LetterFilter, redactor: Redactor, *, cursor: str | None, limit: int
) -> LetterPage:
    """A page of letters. A text is searched only in what the admin may show of them.

    `DeadLetterQueue.list` would also find it in hidden values. Its results, and even the number of letters that it
    reads, would reveal them. So letters are read without the text, and searched here.

    Raises `ValueError` for a cursor that did not come from a page.
    """
    if wanted.q is None or not redactor.names:
        return await _page(queue, wanted, cursor, limit, MAX_PAGE_BYTES)
    found: list[DeadLetter] = []
    scanned = size = 0
    is_first = cursor is None
    while True:
        room = limit - len(found)
        count = max(room, MIN_READ)
        while True:
            page = await _page(queue, replace(wanted, q=None), cursor, count, MAX_PAGE_BYTES - size)
            size += sum(map(_size, page.items))
            matching = await run_in_threadpool(_matching, page.items, wanted.q, redactor)
            if len(matching) <= room:
                break
            # Read fewer letters again, so that the cursor is after the last letter of this page.
            count = matching[room - 1] + 1
        found += [page.items[at] for at in matching]
        scanned += page.scanned
        cursor = page.cursor
        if cursor is None or len(found) == limit or scanned >= MAX_SCANNED or size >= MAX_PAGE_BYTES:
            is_all = is_first and cursor is None
            return LetterPage(tuple(found), cursor, len(found) if is_all else page.total, is_all, scanned)


async def _page(queue: DeadLetterQueue, wanted: LetterFilter, cursor: str | None, limit: int, most: int) -> LetterPage:
    return await bounded_page(lambda limit: queue.list(wanted, cursor=cursor, limit=limit), limit, most)


async def bounded_page(read: Callable[[int], Awaitable[Page]], limit: int, most: int) -> Page:
    """A page of one letter, or of as many as have `most` bytes of payloads to be searched. `read` takes the limit."""
    while True:
        page = await read(limit)
        sizes = list(accumulate(map(_size, page.items)))
        if not sizes or len(page.items) <= (fitting := max(bisect_right(sizes, most), 1)):
            return page
        limit = fitting


def _size(letter: DeadLetter) -> int:
    """Bytes of its payloads that are searched."""
    return sum(len(raw) for raw in (letter.data, letter.metadata) if len(raw) <= MAX_IN_PART)


def _matching(letters: Sequence[DeadLetter], text: str, redactor: Redactor) -> list[int]:
    """The indexes of the letters that have the text in what may be shown.

    Payloads of more than `MAX_IN_PART` bytes are not searched: a thousand of them would take minutes. Then the error is
    not searched either, since what to hide in it is not known.
    """
    found: list[int] = []
    wanted = text.casefold()
    for at, letter in enumerate(letters):
        metadata = _searched(letter.metadata, redactor)
        data = _searched(letter.data, redactor, metadata.values if metadata else ())
        error = redactor.text(letter.error, redactor.hidden(data, metadata), MAX_SEARCHED)
        names = [letter.error_type, letter.id, letter.entry_id, letter.event_id, letter.correlation_id]
        places = [*_as_text(data), error, *names, letter.event_type, letter.handler]
        if any(wanted in place.casefold() for place in places):
            found.append(at)
    return found


def _searched(raw: bytes, redactor: Redactor, also: Collection[str] = ()) -> Searched | None:
    return redactor.document(raw, also) if len(raw) <= MAX_IN_PART else None


def _as_text(searched: Searched | None) -> Iterator[str]:
    """What may be shown, as Rapids writes JSON, and as other programs do, with spaces after separators."""
    if searched is not None:
        yield to_json(searched.shown).decode()
        yield json.dumps(searched.shown, ensure_ascii=False)
