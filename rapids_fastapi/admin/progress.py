"""The progress of an operation as server-sent events.

They are written here, in a plain streaming response: FastAPI has its own only since versions newer than our oldest one,
and importing `sse-starlette` replaces a method of uvicorn's server in the user's process and keeps state in globals.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, ClassVar
from zlib import crc32

from fastapi import Header
from starlette.responses import StreamingResponse

from rapids.dead_letters import Operation, Operations
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.problems import problem_of
from rapids_fastapi.admin.redacted_operation import operation_of
from rapids_fastapi.admin.redaction import Redactor

__all__ = ["SEEN", "EventStream", "LastEventId", "event_id", "events_of"]

MAX_SECONDS = 15.0
"""Seconds after which a stream ends: an open one would delay the server's shutdown."""
LOOK_PAUSE = 0.5
"""Seconds between two looks, each of which is one round trip."""
ANSWER_TIMEOUT = 5.0
"""Seconds for Redis to answer a look; else the stream ends with a problem."""
KEEP_ALIVE_PAUSE = 5.0
"""Seconds without news after which a comment keeps the connection open in proxies."""
RECONNECT_MS = 1_000

LastEventId = Annotated[
    str | None,
    Header(max_length=100, description="The `id` of the last event that was seen.", examples=["running-5b2e91c0"]),
]

SEEN: dict[str, Any] = {"description": "It has ended, and the last event was seen"}
"""For OpenAPI: nothing more will come, and browsers do not reconnect."""


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


async def events_of(
    operations: Operations, operation: Operation, dlq: str, redactor: Redactor, *, seen: str | None, path: str
) -> AsyncGenerator[str]:
    """The events from now on. `seen`: the id of the last event that the client has; `path`: that of the request."""
    now = asyncio.get_running_loop().time
    began = sent = now()
    yield f"retry: {RECONNECT_MS}\n\n"
    while True:
        if (current := event_id(operation)) != seen:
            seen, sent = current, now()
            name = "ended" if operation.is_ended else "progress"
            # JSON has no line breaks: a text with one cannot end the event, nor begin a field of its own.
            shown = operation_of(operation, dlq, redactor).model_dump_json()
            yield f"id: {current}\nevent: {name}\ndata: {shown}\n\n"
        elif now() - sent >= KEEP_ALIVE_PAUSE:
            sent = now()
            yield ": nothing new\n\n"
        left = began + MAX_SECONDS - now()
        if operation.is_ended or left <= 0:
            return
        await asyncio.sleep(min(LOOK_PAUSE, left))
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                operation = await operations.get(operation.id)
        except Exception as error:
            yield f"event: problem\ndata: {json.dumps(problem_of(error).body(path))}\n\n"
            return


def event_id(operation: Operation) -> str:
    """The same for the same progress, so that a client that reconnects gets only what is new."""
    counts = (operation.id, operation.done, operation.skipped, operation.failed, operation.total, operation.owner)
    return f"{operation.state}-{crc32(repr(counts).encode()):08x}"
