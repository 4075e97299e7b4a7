"""All dead letters that match, as lines of JSON: whatever their number and size, few are in memory at a time."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from rapids import DeadLetter, DeadLetterQueue, LetterFilter, LetterPage
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, needs
from rapids_fastapi.admin.letter_search import find
from rapids_fastapi.admin.pages import CursorQuery
from rapids_fastapi.admin.problems import Problem, answers, problem_of
from rapids_fastapi.admin.query import FilterDep, QueueDep
from rapids_fastapi.admin.redacted_letter import whole_of
from rapids_fastapi.admin.redaction import Redactor

__all__ = ["router"]

MAX_EXPORTED = 1_000_000

FIRST_PAGE = 5
MAX_READ = 200
LARGE = 1024 * 1024
"""Bytes of a page's letters: after more, the next page has half as many; after less, twice as many."""
PIECE = 256 * 1024
"""Bytes of the letters that are written at once."""
PAGE_TIMEOUT = 15.0
"""Seconds within which Redis must answer for a page."""

_PROBLEMS = ("admin-closed", "unauthenticated", "forbidden", "dlq-needed", "dlq-not-found", "invalid")
router: APIRouter = APIRouter(prefix="/api/dead-letters", route_class=AdminRoute, dependencies=CREDENTIALS)


class JsonLines(StreamingResponse):
    """A response of many JSON documents, one a line."""

    media_type = "application/x-ndjson"


_LINES: dict[str, Any] = {
    "description": "The letters, one a line; a last line with `next_cursor` and no `id` says that they are not all",
    "content": {
        JsonLines.media_type: {
            "schema": {"type": "string"},
            "examples": {
                "letters": {"value": json.dumps(examples.WHOLE_LETTER) + "\n"},
                "more than max_items": {"value": json.dumps({"next_cursor": "bGV0dGVyczoxNzYzOTMyMDAwMDAwLTA"}) + "\n"},
            },
        }
    },
}


@router.get(
    "/export",
    summary="Export dead letters",
    openapi_extra=needs("read"),
    response_class=JsonLines,
    responses={**answers(*_PROBLEMS, "redis-unavailable", "not-running", example=None), 200: _LINES},
)
async def export_dead_letters(
    request: Request,
    parts: RunningDep,
    queue: QueueDep,
    wanted: FilterDep,
    cursor: CursorQuery = None,
    max_items: Annotated[
        int, Query(ge=1, le=MAX_EXPORTED, description="Letters at most.", examples=[10_000])
    ] = 100_000,
) -> JsonLines:
    """Dead letters, newest first, as lines of JSON: each as in its detail, without history, replays and parse check.

    Where they are not all, the last line has `next_cursor` and no `id`: it says where to continue, because there are
    more than `max_items`; or it is a problem, too, where Redis became unavailable during the export.
    """
    export = Export(queue, wanted, parts.redactor, cursor or None, left=max_items, path=request.scope["path"])
    try:
        # Read before the answer begins, so that what is wrong with the request gets its own status.
        first = await export.next_page()
    except ValueError as error:
        raise Problem("invalid", str(error)) from error
    named = {"Content-Disposition": 'attachment; filename="dead-letters.ndjson"'}
    return JsonLines(export.lines(first), headers=named)


@dataclass(slots=True)
class Export:
    """An export in progress."""

    queue: DeadLetterQueue
    wanted: LetterFilter
    redactor: Redactor
    cursor: str | None
    """Where to continue."""
    left: int
    """Letters that may still be written."""
    path: str
    """The path of the request."""
    page_size: int = FIRST_PAGE

    async def next_page(self) -> LetterPage:
        """The letters from the cursor on. Raises what the queue raises."""
        limit = min(self.page_size, self.left)
        return await find(self.queue, self.wanted, self.redactor, cursor=self.cursor, limit=limit)

    async def lines(self, page: LetterPage) -> AsyncGenerator[bytes]:
        """A line for each letter; then, if these are not all, one that says where to continue, and why it ends."""
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
            is_large = sum(map(_size, page.items)) > LARGE
            self.page_size = max(self.page_size // 2, 1) if is_large else min(self.page_size * 2, MAX_READ)
            try:
                async with asyncio.timeout(PAGE_TIMEOUT):
                    page = await self.next_page()
            except Exception as error:  # the status is sent: a line of its own has to report it
                yield self._last(problem_of(error).body(self.path))
                return

    def _written(self, letters: Sequence[DeadLetter]) -> bytes:
        exported = (whole_of(letter, self.queue.stream, self.redactor) for letter in letters)
        return b"".join(letter.model_dump_json(by_alias=True).encode() + b"\n" for letter in exported)

    def _last(self, reported: dict[str, object]) -> bytes:
        return json.dumps({**reported, "next_cursor": self.cursor}).encode() + b"\n"


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
