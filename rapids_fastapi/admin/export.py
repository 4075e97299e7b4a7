"""Export of all dead letters that match, as lines of JSON. Only few of them are in memory at a time."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Query, Request
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from rapids import DeadLetter, DeadLetterQueue, LetterFilter, LetterPage
from rapids.audit import AuditLog
from rapids.redaction import MASK, Redactor
from rapids_fastapi.admin.access import CREDENTIALS, AdminRoute, RunningDep, UserDep, check_again, needs
from rapids_fastapi.admin.letter_search import find
from rapids_fastapi.admin.pages import CursorQuery, path_of
from rapids_fastapi.admin.payload import clean
from rapids_fastapi.admin.problems import Problem, answers, problem_of, redis_calls
from rapids_fastapi.admin.query import FilterDep, QueueDep
from rapids_fastapi.admin.redacted_letter import whole_of

__all__ = ["router"]

MAX_EXPORTED = 1_000_000

FIRST_PAGE = 5
MAX_READ = 200
MAX_PAGE_BYTES = 1024 * 1024
"""Bytes of a page's letters. After a larger page, the next one has half as many letters, else twice as many."""
PIECE_BYTES = 256 * 1024
"""Bytes that are sent at once. The client must take them within the time limit for a part of an answer."""
PAGE_TIMEOUT = 15.0
"""Seconds within which a page must be read."""
CHECK_PAUSE = 15.0
"""Seconds after which it is checked again whether the user may still read. A live stream ends after as many."""
AUDIT_TIMEOUT = 5.0
"""Seconds within which the end of an export must be in the audit log."""

_logger = logging.getLogger("rapids")

_PROBLEMS = (
    "admin-closed",
    "unauthenticated",
    "auth-unavailable",
    "forbidden",
    "dlq-needed",
    "dlq-not-found",
    "invalid",
)
router: APIRouter = APIRouter(prefix="/api/dead-letters", route_class=AdminRoute, dependencies=CREDENTIALS)


class JsonLines(StreamingResponse):
    """A response of many JSON documents, one in each line."""

    media_type = "application/x-ndjson"


class ExportedLines(JsonLines):
    """The response of one export."""

    def __init__(self, export: "Export", first: LetterPage) -> None:
        named = {"Content-Disposition": 'attachment; filename="dead-letters.ndjson"'}
        super().__init__(export.lines(first), headers=named)
        self._export = export

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines, and then record the end of the export, however it came."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.move_on_after(AUDIT_TIMEOUT, shield=True):  # the client may have gone, which cancels this
                await self._export.record_end()


_LINES: dict[str, Any] = {
    "description": "The letters, one in each line. If there are more, the last line has `next_cursor` and no `id`",
    "content": {
        JsonLines.media_type: {
            "schema": {"type": "string"},
            "examples": {
                "more than max_items": {"value": json.dumps({"next_cursor": "bGV0dGVyczoxNzYzOTMyMDAwMDAwLTA"}) + "\n"},
            },
        }
    },
}


@router.get(
    "/export",
    summary="Export dead letters",
    openapi_extra=needs("read", limited="exports"),
    response_class=JsonLines,
    responses={**answers(*_PROBLEMS, "too-busy", "redis-unavailable", "not-running"), 200: _LINES},
)
async def export_dead_letters(
    request: Request,
    parts: RunningDep,
    user: UserDep,
    queue: QueueDep,
    wanted: FilterDep,
    cursor: CursorQuery = None,
    max_items: Annotated[
        int, Query(ge=1, le=MAX_EXPORTED, description="Letters at most.", examples=[10_000])
    ] = 100_000,
) -> JsonLines:
    """Dead letters, newest first, as lines of JSON, with the fields of one letter except history, replays, parse check.

    If there are more letters than `max_items`, the last line has `next_cursor` and no `id`. If Redis becomes
    unavailable during the export, or the user loses the permission, the last line is a problem that has `next_cursor`,
    too. The audit log has who exported what, and how many letters.
    """
    log, path = AuditLog(parts.redis, queue.stream), path_of(request)
    check = partial(check_again, parts, request, "read")
    export = Export(queue, wanted, parts.redactor, log, user.name, cursor or None, check, left=max_items, path=path)
    try:
        # Read before the answer begins, so that a wrong request gets a status of its own.
        first = await export.next_page()
    except ValueError as error:
        raise Problem("invalid", str(error)) from error
    await export.record_start()  # before anything is shown
    return ExportedLines(export, first)


@dataclass(slots=True)
class Export:
    """An export in progress."""

    queue: DeadLetterQueue
    wanted: LetterFilter
    redactor: Redactor
    log: AuditLog
    actor: str
    cursor: str | None
    """Where to continue."""
    check: Callable[[], Awaitable[None]]
    """Raises `Problem` if the user may no longer read."""
    left: int
    """Letters that may still be written."""
    path: str
    """The path of the request."""
    page_size: int = FIRST_PAGE
    sent: int = 0
    """Letters whose lines were sent."""
    end: str = "interrupted"
    """How it ended: `complete`; `max_items` if there are more letters; `failed`; `interrupted` by the client."""

    async def next_page(self) -> LetterPage:
        """The next letters. Raises what `DeadLetterQueue.list` raises."""
        limit = min(self.page_size, self.left)
        return await find(self.queue, self.wanted, self.redactor, cursor=self.cursor, limit=limit)

    async def lines(self, page: LetterPage) -> AsyncGenerator[bytes]:
        """A line for each letter. If there are more, then a line with the cursor for them, and perhaps a problem."""
        now = asyncio.get_running_loop().time
        checked = now()
        while True:
            for some in _in_pieces(page.items):
                written = await run_in_threadpool(self._written, some)
                for at in range(0, len(written), PIECE_BYTES):  # a letter may be large, and the client slow
                    yield written[at : at + PIECE_BYTES]
                self.sent += len(some)
            self.left -= len(page.items)
            self.cursor = page.cursor
            if self.cursor is None:
                self.end = "complete"
                return
            if self.left <= 0:
                self.end = "max_items"
                yield self._last({})
                return
            is_large = sum(map(_size, page.items)) > MAX_PAGE_BYTES
            self.page_size = max(self.page_size // 2, 1) if is_large else min(self.page_size * 2, MAX_READ)
            try:
                if now() - checked >= CHECK_PAUSE:
                    await self.check()
                    checked = now()
                async with redis_calls(PAGE_TIMEOUT):
                    page = await self.next_page()
            except Exception as error:  # the status is sent already, so that a line reports the error
                self.end = "failed"
                yield self._last(problem_of(error).body(self.path))
                return

    async def record_start(self) -> None:
        """Record in the audit log who exports what."""
        wanted = {name: value for name, value in asdict(self.wanted).items() if value is not None}
        if self.wanted.q and self.redactor.names:  # somebody may search for a secret that is hidden here
            wanted["q"] = MASK
        text = json.dumps(wanted, default=datetime.isoformat)
        details = {"filter": clean(text), "max_items": str(self.left)}
        await self.log.add("export_started", actor=self.actor, details=details)

    async def record_end(self) -> None:
        """Record in the audit log how many letters were sent. Without Redis, the log of the service has it."""
        details = {"letters": str(self.sent), "end": self.end}
        try:
            await self.log.add("export_ended", actor=self.actor, details=details)
        except (RedisError, OSError) as error:
            _logger.warning("the end of an export by %s is not in the audit log: %s; %s", self.actor, error, details)

    def _written(self, letters: Sequence[DeadLetter]) -> bytes:
        exported = (whole_of(letter, self.queue.stream, self.redactor) for letter in letters)
        return b"".join(letter.model_dump_json(by_alias=True).encode() + b"\n" for letter in exported)

    def _last(self, reported: dict[str, object]) -> bytes:
        return json.dumps({**reported, "next_cursor": self.cursor}).encode() + b"\n"


def _in_pieces(letters: Sequence[DeadLetter]) -> Iterator[Sequence[DeadLetter]]:
    """The letters in parts of about `PIECE_BYTES` bytes, so that the lines of a whole page are never in memory."""
    piece: list[DeadLetter] = []
    size = 0
    for letter in letters:
        piece.append(letter)
        size += _size(letter)
        if size > PIECE_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _size(letter: DeadLetter) -> int:
    return len(letter.data) + len(letter.metadata) + len(letter.error) + len(letter.traceback)
