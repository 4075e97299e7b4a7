"""Which stream or dead-letter queue a request is about, and which letters: only those of this application."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import BeforeValidator

from rapids import DeadLetterQueue, LetterFilter
from rapids_fastapi.admin.access import RunningDep
from rapids_fastapi.admin.models import MAX_NAME
from rapids_fastapi.admin.problems import Problem
from rapids_fastapi.state import Running

__all__ = [
    "MAX_QUERY_TEXT",
    "CauseFilterDep",
    "FilterDep",
    "Moment",
    "QueueDep",
    "StreamDep",
    "check_stream",
    "streams_of",
]

MAX_QUERY_TEXT = 200
"""Characters of a text to filter by."""


def _text(description: str, example: str) -> Any:
    return Query(max_length=MAX_QUERY_TEXT, description=description, examples=[example])


def _not_a_number(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+", value.strip()):
        raise ValueError("a date or a date and time by ISO 8601 is needed")  # Pydantic takes numbers for seconds
    return value


Moment = Annotated[datetime, BeforeValidator(_not_a_number)]
"""A date, or a date and time, as text."""


def _moment(description: str, example: str) -> Any:
    return Query(description=f"{description} ISO 8601; without a time zone it is UTC.", examples=[example])


def streams_of(parts: Running) -> list[str]:
    """The application's streams, by name."""
    return sorted({parts.emitter.stream, *(running.router.stream for running in parts.routers)})


def check_stream(parts: Running, stream: str) -> str:
    """A stream of the application. Raises `Problem` for any other, whether there is such a key or not."""
    if stream not in (names := streams_of(parts)):
        raise Problem("stream-not-found", "No emitter or router of this application uses this stream.", allowed=names)
    return stream


async def stream_of(
    parts: RunningDep,
    stream: Annotated[
        str | None,
        Query(
            max_length=MAX_NAME,
            description="The stream, needed where there are several.",
            examples=["orders"],
        ),
    ] = None,
) -> str:
    """The stream a request names, or the only one there is. Raises `Problem`."""
    names = streams_of(parts)
    if stream is None and len(names) > 1:
        raise Problem("stream-needed", "Name the stream: ?stream=", allowed=names)
    return check_stream(parts, stream if stream is not None else names[0])


StreamDep = Annotated[str, Depends(stream_of)]
"""The stream a request names, or the only one there is."""


async def queue_of(
    parts: RunningDep,
    dlq: Annotated[
        str | None,
        Query(
            max_length=MAX_NAME,
            description="The dead-letter queue, needed where there are several.",
            examples=["{orders}:dlq"],
        ),
    ] = None,
) -> DeadLetterQueue:
    """The dead-letter queue a request names, or the only one there is. Raises `Problem`."""
    names = sorted(parts.queues)
    if dlq is None and len(names) > 1:
        raise Problem("dlq-needed", "Name the queue: ?dlq=", allowed=names)
    found = parts.queues.get(dlq if dlq is not None else next(iter(names), ""))
    if found is None:
        raise Problem("dlq-not-found", "No router of this application writes dead letters there.", allowed=names)
    return found


QueueDep = Annotated[DeadLetterQueue, Depends(queue_of)]
"""The dead-letter queue a request names, or the only one there is."""


async def cause_filter_of(
    event_type: Annotated[str | None, _text("A type, or a pattern such as order.*", "order.*")] = None,
    handler: Annotated[
        str | None, _text("The handler that failed; empty for entries that reached none.", "take_payment")
    ] = None,
    group: Annotated[str | None, _text("The group whose handler failed.", "payments")] = None,
    reason: Annotated[str | None, _text("Why it is a dead letter.", "max_deliveries_exceeded")] = None,
    error_type: Annotated[str | None, _text("The class of the error.", "CardDeclined")] = None,
    fingerprint: Annotated[
        str | None,
        Query(pattern="^[0-9a-f]{16}$", description="The `fingerprint` of a cause.", examples=["9f2c4b7d0a1e6f38"]),
    ] = None,
) -> LetterFilter:
    """Which letters a request asks for, by what all letters of one cause have in common."""
    return LetterFilter(
        event_type=event_type or None,
        handler=handler,
        group=group or None,
        reason=reason or None,
        error_type=error_type or None,
        fingerprint=fingerprint,
    )


CauseFilterDep = Annotated[LetterFilter, Depends(cause_filter_of)]
"""Which letters, by what all letters of one cause have in common."""


async def filter_of(
    causes: CauseFilterDep,
    q: Annotated[str | None, _text("Text in data (of 64 KiB at most), their error, or ids.", "A-17")] = None,
    since: Annotated[Moment | None, _moment("Written then or later.", "2025-11-23T20:00:00Z")] = None,
    until: Annotated[Moment | None, _moment("Written before.", "2025-11-24T00:00:00Z")] = None,
) -> LetterFilter:
    """Which letters a request asks for."""
    return replace(causes, q=q or None, since=_in_utc(since), until=_in_utc(until))


FilterDep = Annotated[LetterFilter, Depends(filter_of)]
"""Which letters a request asks for."""


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
