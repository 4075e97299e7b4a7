"""The progress of an operation as server-sent events."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, ClassVar
from zlib import crc32

from fastapi import Header
from starlette.responses import Response, StreamingResponse

from rapids.dead_letters import Operation, Operations
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.problems import problem_of
from rapids_fastapi.admin.redacted_operation import Operation as Shown
from rapids_fastapi.admin.redacted_operation import operation_of
from rapids_fastapi.admin.redaction import Redactor

__all__ = ["SEEN", "EventStream", "LastEventId", "progress"]

LASTS = 15.0
"""Seconds after which a stream ends: one that is open would hold up the server's shutdown."""
LOOKS_EVERY = 0.5
"""Seconds between two looks, each of which is one round trip."""
ANSWER_WITHIN = 5.0
"""Seconds for Redis to answer a look; else the stream ends with a problem."""
KEEPS_ALIVE_EVERY = 5.0
"""Seconds without news after which a comment shows proxies that somebody is there."""
RECONNECT_MS = 1_000

LastEventId = Annotated[
    str | None,
    Header(max_length=100, description="The `id` of the last event that was seen.", examples=["running-5b2e91c0"]),
]

SEEN: dict[str, Any] = {"description": "It has ended, and the last event was seen"}
"""For OpenAPI: nothing more to come, which tells a browser not to connect again."""


class EventStream(StreamingResponse):
    """A response of server-sent events."""

    media_type = "text/event-stream"

    DOCUMENTED: ClassVar[dict[str, Any]] = {
        "description": "Events: `progress`, `ended` (with the operation), `problem` (with a problem); then it ends",
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "description": "An event; its data are the operation, or a problem.",
                    "required": ["event", "data"],
                    "properties": {
                        "id": {"type": "string", "description": "The same as long as nothing has changed."},
                        "event": {"type": "string", "enum": ["progress", "ended", "problem"]},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                    },
                },
                "examples": {
                    "progress": {
                        "value": f"retry: {RECONNECT_MS}\n\nid: running-5b2e91c0\nevent: progress\n"
                        f"data: {json.dumps(examples.OPERATION)}\n\n"
                    }
                },
            }
        },
    }


def progress(
    operations: Operations, operation: Operation, dlq: str, redactor: Redactor, last_seen: str | None, path: str
) -> Response:
    """The events from here on, but for what was seen; `path` is what was asked for."""
    if operation.is_ended and _event_id(operation) == last_seen:
        return Response(status_code=204)
    events = _events(operations, operation, dlq, redactor, last_seen, path)
    return EventStream(events, headers={"X-Accel-Buffering": "no"})


async def _events(
    operations: Operations, operation: Operation, dlq: str, redactor: Redactor, seen: str | None, path: str
) -> AsyncGenerator[str]:
    now = asyncio.get_running_loop().time
    began = told = now()
    yield f"retry: {RECONNECT_MS}\n\n"
    while True:
        if (event_id := _event_id(operation)) != seen:
            seen, told = event_id, now()
            yield _event(
                operation_of(operation, dlq, redactor), event_id, "ended" if operation.is_ended else "progress"
            )
        elif now() - told >= KEEPS_ALIVE_EVERY:
            told = now()
            yield ": nothing new\n\n"
        left = began + LASTS - now()
        if operation.is_ended or left <= 0:
            return
        await asyncio.sleep(min(LOOKS_EVERY, left))
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                operation = await operations.get(operation.id)
        except Exception as error:
            yield f"event: problem\ndata: {json.dumps(problem_of(error).body(path))}\n\n"
            return


def _event_id(operation: Operation) -> str:
    """The same for the same progress, so that whoever connects again is told only what is new."""
    counts = (operation.id, operation.done, operation.skipped, operation.failed, operation.total, operation.owner)
    return f"{operation.state}-{crc32(repr(counts).encode()):08x}"


def _event(shown: Shown, event_id: str, name: str) -> str:
    # JSON without line breaks: a text with one cannot end the event, nor begin a field of its own.
    return f"id: {event_id}\nevent: {name}\ndata: {shown.model_dump_json()}\n\n"
