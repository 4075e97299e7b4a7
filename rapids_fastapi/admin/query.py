"""The stream, the dead-letter queue and the letters that a request names: only those that the admin shows."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import BeforeValidator, Field

from rapids import DeadLetterQueue, LetterFilter
from rapids.audit import AuditFilter
from rapids.dead_letters import Reason
from rapids_fastapi.admin.access import RunningDep
from rapids_fastapi.admin.models import MAX_NAME
from rapids_fastapi.admin.problems import Problem
from rapids_fastapi.state import Running

__all__ = [
    "MAX_QUERY_TEXT",
    "AuditFilterDep",
    "AuditedStream",
    "CauseFilterDep",
    "FilterDep",
    "LetterReason",
    "Moment",
    "QueueDep",
    "StreamDep",
    "check_stream",
]

MAX_QUERY_TEXT = 200
"""Characters of a text in a filter."""


def _text(description: str, example: str) -> Any:
    return Query(max_length=MAX_QUERY_TEXT, description=description, examples=[example])


def _not_a_number(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9.]+", value.strip()):
        raise ValueError("a date or a date and time by ISO 8601 is needed")  # Pydantic accepts numbers as seconds
    return value


Moment = Annotated[datetime, BeforeValidator(_not_a_number)]
"""A date, or a date and time, as text."""


LetterReason = Annotated[str, Field(pattern=f"^({'|'.join(Reason)})?$")]
"""Why a dead letter was written; empty for any reason."""


def _moment(description: str, example: str) -> Any:
    return Query(description=f"{description} ISO 8601; without a time zone it is UTC.", examples=[example])


UNKNOWN = "and no router of another process that this one watches has announced it"


def check_stream(parts: Running, stream: str) -> str:
    """The name, if it is a stream that the admin shows. Raises `Problem` for any other, whether that exists or not."""
    if stream not in (names := parts.directory.streams):
        why = f"No emitter or router of this application uses this stream, {UNKNOWN}."
        raise Problem("stream-not-found", why, allowed=names)
    return stream


async def stream_of(
    parts: RunningDep,
    stream: Annotated[
        str | None,
        Query(
            max_length=MAX_NAME,
            description="Needed if there are several.",
            examples=["orders"],
        ),
    ] = None,
) -> str:
    """The stream that a request names, or the only one that is the application's own. Raises `Problem`."""
    if stream is None and len(named := parts.directory.named_streams) == 1:
        return named[0]
    if stream is None:
        raise Problem("stream-needed", "Name the stream: ?stream=", allowed=parts.directory.streams)
    return check_stream(parts, stream)


StreamDep = Annotated[str, Depends(stream_of)]
"""The stream that a request names, or the only one."""


async def queue_of(
    parts: RunningDep,
    dlq: Annotated[
        str | None,
        Query(
            max_length=MAX_NAME,
            description="Dead-letter queue; needed if there are several.",
            examples=["{orders}:dlq"],
        ),
    ] = None,
) -> DeadLetterQueue:
    """The dead-letter queue that a request names, or the only one that is the application's own. Raises `Problem`."""
    names, named = sorted(parts.queues), parts.directory.named_queues
    if dlq is None and len(named) == 1:
        return parts.queues[named[0]]
    if dlq is None and names:
        raise Problem("dlq-needed", "Name the queue: ?dlq=", allowed=names)
    if (found := parts.queues.get(dlq or "")) is None:
        why = f"No router of this application writes dead letters there, {UNKNOWN}."
        raise Problem("dlq-not-found", why, allowed=names)
    return found


QueueDep = Annotated[DeadLetterQueue, Depends(queue_of)]
"""The dead-letter queue that a request names, or the only one."""


async def cause_filter_of(
    event_type: Annotated[str | None, _text("A type, or a pattern such as order.*", "order.*")] = None,
    handler: Annotated[
        str | None, _text("The handler that failed; empty for entries that reached no handler.", "take_payment")
    ] = None,
    group: Annotated[str | None, _text("The group whose handler failed.", "payments")] = None,
    reason: Annotated[
        LetterReason | None,
        Query(description=f"Why it is a dead letter: {', '.join(Reason)}.", examples=["non_retryable"]),
    ] = None,
    error_type: Annotated[str | None, _text("The class of the error.", "CardDeclined")] = None,
    fingerprint: Annotated[
        str | None,
        Query(pattern="^[0-9a-f]{16}$", description="The `fingerprint` of a cause.", examples=["9f2c4b7d0a1e6f38"]),
    ] = None,
) -> LetterFilter:
    """The filter of a request, by the values that all letters of one cause have in common."""
    return LetterFilter(
        event_type=event_type or None,
        handler=handler,
        group=group or None,
        reason=reason or None,
        error_type=error_type or None,
        fingerprint=fingerprint,
    )


CauseFilterDep = Annotated[LetterFilter, Depends(cause_filter_of)]
"""The filter of a request, by the values that all letters of one cause have in common."""


async def filter_of(
    causes: CauseFilterDep,
    q: Annotated[str | None, _text("Text in data of at most 64 KiB, in errors, or in ids.", "A-17")] = None,
    since: Annotated[Moment | None, _moment("Written then or later.", "2025-11-23T20:00:00Z")] = None,
    until: Annotated[Moment | None, _moment("Written before.", "2025-11-24T00:00:00Z")] = None,
) -> LetterFilter:
    """The filter of a request."""
    return replace(causes, q=q or None, since=_in_utc(since), until=_in_utc(until))


FilterDep = Annotated[LetterFilter, Depends(filter_of)]
"""The filter of a request."""


AuditedStream = Annotated[
    str | None,
    Query(max_length=MAX_NAME, description="Only this stream or dead-letter queue.", examples=["orders"]),
]


async def audit_filter_of(
    actor: Annotated[str | None, _text("Who did it.", "ann")] = None,
    action: Annotated[str | None, _text("What was done.", "group_paused")] = None,
    target: Annotated[str | None, _text("The letter, operation or group.", "payments")] = None,
    operation: Annotated[str | None, _text("The id of an operation.", "1763932000000-0")] = None,
    since: Annotated[Moment | None, _moment("Done then or later.", "2025-11-23T20:00:00Z")] = None,
    until: Annotated[Moment | None, _moment("Done before.", "2025-11-24T00:00:00Z")] = None,
) -> AuditFilter | None:
    """The filter of a request for the audit log, if it has one."""
    given = AuditFilter(
        actor=actor or None,
        action=action or None,
        target=target or None,
        operation=operation or None,
        since=since,
        until=until,
    )
    return None if given == AuditFilter() else given


AuditFilterDep = Annotated[AuditFilter | None, Depends(audit_filter_of)]
"""The filter of a request for the audit log."""


def _in_utc(moment: datetime | None) -> datetime | None:
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
