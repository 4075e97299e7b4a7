"""Searching dead letters without telling what redaction hides."""

from collections.abc import Sequence
from dataclasses import replace

from starlette.concurrency import run_in_threadpool

from rapids import DeadLetter, DeadLetterQueue, LetterFilter, LetterPage
from rapids_fastapi.admin.letters import matches_shown
from rapids_fastapi.admin.redaction import Redactor

__all__ = ["find"]

_MOST_SCANNED = 1_000
"""Letters looked at for one page of a search; the next page goes on from there."""
_FEWEST_READ = 10
"""Letters asked for at a time, lest a page of one letter takes a thousand round trips; few, as each may be large."""


async def find(
    queue: DeadLetterQueue, wanted: LetterFilter, redactor: Redactor, *, cursor: str | None, limit: int
) -> LetterPage:
    """A page of letters. Text is looked for in what may be shown of them, and only there.

    The queue would find it in hidden values as well, and then not only the letters found but also how far it had to
    look would give them away; so with a text, the queue is asked without it.

    Raises `ValueError` for a cursor that no page gave out.
    """
    if wanted.q is None or not redactor.names:
        return await queue.list(wanted, cursor=cursor, limit=limit)
    found: list[DeadLetter] = []
    scanned = 0
    while True:
        room = limit - len(found)
        count = max(room, _FEWEST_READ)
        while True:
            page = await queue.list(replace(wanted, q=None), cursor=cursor, limit=count)
            matching = await run_in_threadpool(_matching, page.items, wanted.q, redactor)
            if len(matching) <= room:
                break
            # Asked again for fewer, so that this page ends, and the next one begins, behind the last to be shown.
            count = matching[room - 1] + 1
        found += [page.items[at] for at in matching]
        scanned += page.scanned
        cursor = page.cursor
        if cursor is None or len(found) == limit or scanned >= _MOST_SCANNED:
            return LetterPage(tuple(found), cursor, page.total, False, scanned)


def _matching(letters: Sequence[DeadLetter], text: str, redactor: Redactor) -> list[int]:
    return [at for at, letter in enumerate(letters) if matches_shown(letter, text, redactor)]
