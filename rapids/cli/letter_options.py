"""The options by which commands choose dead letters."""

import re
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeAlias

import typer

from rapids import DeadLetter, DeadLetterQueue, LetterFilter
from rapids.cli.root import app, fail
from rapids.dead_letters import default_dlq

__all__ = [
    "ErrorType",
    "EventStream",
    "EventType",
    "Fingerprint",
    "Group",
    "Handler",
    "LetterReason",
    "Query",
    "QueueName",
    "Since",
    "Until",
    "chosen",
    "dlq_app",
    "letters_of",
    "name_of_queue",
]

dlq_app: typer.Typer = typer.Typer(
    name="dlq", no_args_is_help=True, help="Show, replay, discard and restore dead letters."
)
app.add_typer(dlq_app)

QueueName: TypeAlias = Annotated[
    str | None, typer.Option("--dlq", help="The dead-letter stream; by default that of the event stream.")
]
EventStream: TypeAlias = Annotated[
    str, typer.Option("--stream", "-s", help="The event stream whose default dead-letter stream it is.")
]
_OF_LETTERS = "Letters to choose"
EventType: TypeAlias = Annotated[
    str | None, typer.Option("--type", help="The event type, or a pattern: 'order.*'.", rich_help_panel=_OF_LETTERS)
]
Handler: TypeAlias = Annotated[
    str | None, typer.Option("--handler", help="The handler that failed; '' for none.", rich_help_panel=_OF_LETTERS)
]
Group: TypeAlias = Annotated[str | None, typer.Option("--group", help="The group.", rich_help_panel=_OF_LETTERS)]
LetterReason: TypeAlias = Annotated[
    str | None,
    typer.Option("--letter-reason", help="Why Rapids stopped, such as non_retryable.", rich_help_panel=_OF_LETTERS),
]
ErrorType: TypeAlias = Annotated[
    str | None, typer.Option("--error-type", help="The class of the error.", rich_help_panel=_OF_LETTERS)
]
Fingerprint: TypeAlias = Annotated[
    str | None, typer.Option("--fingerprint", help="A cause, as `dlq causes` shows it.", rich_help_panel=_OF_LETTERS)
]
Query: TypeAlias = Annotated[
    str | None,
    typer.Option("--text", "-q", help="A text in payload, error or ids; all are read.", rich_help_panel=_OF_LETTERS),
]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option("--since", help="Failed since then: 30min, 2h, 3d or ISO 8601.", rich_help_panel=_OF_LETTERS),
]
Until: TypeAlias = Annotated[
    str | None, typer.Option("--until", help="Failed before this time.", rich_help_panel=_OF_LETTERS)
]

PAGE = 200
UNITS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}


def name_of_queue(dlq: str | None, stream: str) -> str:
    """The dead-letter stream that a command is about."""
    return dlq or default_dlq(stream)


def chosen(
    *,
    event_type: str | None,
    handler: str | None,
    group: str | None,
    letter_reason: str | None,
    error_type: str | None,
    fingerprint: str | None,
    text: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> LetterFilter:
    """The filter that the options give."""
    try:
        return LetterFilter(
            event_type=event_type,
            handler=handler,
            group=group,
            reason=letter_reason,
            error_type=error_type,
            fingerprint=fingerprint,
            q=text,
            since=_moment("--since", since),
            until=_moment("--until", until),
        )
    except ValueError as error:
        fail(str(error))


def _moment(option: str, given: str | None) -> datetime | None:
    if given is None:
        return None
    try:
        if age := re.fullmatch(r"(\d{1,6})\s*(s|min|h|d)", given.strip()):
            return datetime.now(UTC) - timedelta(seconds=int(age[1]) * UNITS[age[2]])
        moment = datetime.fromisoformat(given)
    except (ValueError, OverflowError):  # before the year 1
        fail(f"{option} must be an age such as 30min, 2h or 3d, or a time such as 2026-11-30T16:00:00Z, not {given!r}")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


async def letters_of(
    queue: DeadLetterQueue, wanted: LetterFilter, limit: int | None
) -> AsyncGenerator[tuple[DeadLetter | None, int]]:
    """The letters that match, newest first, each with how many there are at most; then None if there are more."""
    cursor: str | None = None
    left = limit
    while True:
        page = await queue.list(wanted, cursor=cursor, limit=PAGE if left is None else min(left, PAGE))
        for letter in page.items:
            yield letter, page.total
        cursor = page.cursor
        if left is not None:
            left -= len(page.items)
        if cursor is None:
            return
        if left is not None and left <= 0:
            yield None, page.total
            return
