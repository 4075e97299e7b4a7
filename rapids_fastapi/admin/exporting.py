"""Dead letters as lines of JSON, read page by page: whatever their number and size, few are in memory at a time."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter, DeadLetterQueue, LetterFilter, LetterPage
from rapids_fastapi.admin.letters import exported_of
from rapids_fastapi.admin.problems import problem_of
from rapids_fastapi.admin.redaction import Redactor
from rapids_fastapi.admin.searching import find

__all__ = ["Export"]

FIRST_PAGE = 5
LARGEST_PAGE = 200
LARGE = 1024 * 1024
"""Bytes of a page's letters beyond which the next page has half as many; it has twice as many while there is less."""
PIECE = 256 * 1024
"""Bytes of the letters that are written at once."""
PAGE_WITHIN = 15.0
"""Seconds within which Redis must answer for a page."""


@dataclass(slots=True)
class Export:
    """An export under way."""

    queue: DeadLetterQueue
    wanted: LetterFilter
    redactor: Redactor
    cursor: str | None
    """Where to go on."""
    left: int
    """Letters that may still be written."""
    path: str
    """What was asked for."""
    page_size: int = FIRST_PAGE

    async def first(self) -> LetterPage:
        """The first page, so that what is wrong with the request is known before the answer begins.

        Raises what the queue raises.
        """
        return await self._page()

    async def lines(self, page: LetterPage) -> AsyncGenerator[bytes]:
        """A line for each letter; then, if these are not all, one that says where to go on, and why it ends."""
        while True:
            for some in _in_pieces(page.items):
                yield await run_in_threadpool(self._written, some)
            self.left -= len(page.items)
            self.cursor = page.cursor
            if self.cursor is None:
                return
            if self.left <= 0:
                yield self._last({})
                return
            self._adapt(sum(map(_size, page.items)))
            try:
                async with asyncio.timeout(PAGE_WITHIN):
                    page = await self._page()
            except Exception as error:  # the status is sent: a line of its own has to say it
                yield self._last(problem_of(error).body(self.path))
                return

    async def _page(self) -> LetterPage:
        limit = min(self.page_size, self.left)
        return await find(self.queue, self.wanted, self.redactor, cursor=self.cursor, limit=limit)

    def _written(self, letters: Sequence[DeadLetter]) -> bytes:
        exported = (exported_of(letter, self.queue.stream, self.redactor) for letter in letters)
        return b"".join(letter.model_dump_json().encode() + b"\n" for letter in exported)

    def _adapt(self, size: int) -> None:
        self.page_size = max(self.page_size // 2, 1) if size > LARGE else min(self.page_size * 2, LARGEST_PAGE)

    def _last(self, told: dict[str, object]) -> bytes:
        return json.dumps({**told, "next_cursor": self.cursor}).encode() + b"\n"


def _in_pieces(letters: Sequence[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
    """As many at a time as make a piece worth sending, so that a page is not in memory as lines, too."""
    piece: list[DeadLetter] = []
    size = 0
    for letter in letters:
        piece.append(letter)
        size += _size(letter)
        if size > PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _size(letter: DeadLetter) -> int:
    return len(letter.data) + len(letter.metadata) + len(letter.error) + len(letter.traceback)
