"""The progress of an operation as server-sent events.

https://html.spec.whatwg.org/multipage/server-sent-events.html has their format. They are written here, in a plain
streaming response. FastAPI's own support needs a newer version than the oldest one that Rapids supports.
`sse-starlette` replaces a method of uvicorn's server when it is imported, and has global state.
"""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any, ClassVar
from zlib import crc32

from fastapi import Header
from starlette.responses import StreamingResponse

from rapids import DeadLetterQueue
from rapids.dead_letters import Operation
from rapids.redaction import Redactor
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.problems import problem_of, redis_calls
from rapids_fastapi.admin.redacted_operation import detail_of

__all__ = ["SEEN", "EventStream", "LastEventId", "event_id", "events_of"]

MAX_SECONDS = 15.0
"""Seconds after which a stream ends, since an open one delays the shutdown of the server."""
LOOK_PAUSE = 0.5
"""Seconds between two reads of the operation. Each is one round trip."""
ANSWER_TIMEOUT = 5.0
"""Seconds within which the operation must be read. Otherwise the stream ends with a problem."""
KEEP_ALIVE_PAUSE = 5.0
"""Seconds without an event after which a comment is sent, so that proxies keep the connection open."""
RECONNECT_MS = 1_000
"""Milliseconds after which a browser reconnects."""

LastEventId = Annotated[
    str | None,
    Header(max_length=100, description="The `id` of the last received event.", examples=["running-5b2e91c0"]),
]

SEEN: dict[str, Any] = {"description": "The operation has ended, and the client has its last event"}
"""For OpenAPI: the answer after which browsers do not reconnect."""


class EventStream(StreamingResponse):
    """A response of server-sent events."""

    media_type = "text/event-stream"

    DOCUMENTED: ClassVar[dict[str, Any]] = {
        "description": "The data of the events `progress` and `ended` is the operation, as JSON, and their id changes "
        "with it; the data of `problem` is a problem; `ended` or `problem` is the last event",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
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
    queue: DeadLetterQueue, operation: Operation, redactor: Redactor, *, seen: str | None, path: str
) -> AsyncGenerator[str]:
    """The events from now on. `seen`: the id of the last event that the client has; `path`: that of the request."""
    now = asyncio.get_running_loop().time
    began = sent = now()
    yield f"retry: {RECONNECT_MS}\n\n"
    try:
        while True:
            if (current := event_id(operation)) != seen:
                seen, sent = current, now()
                name = "ended" if operation.is_ended else "progress"
                async with redis_calls(ANSWER_TIMEOUT):
                    shown = await detail_of(operation, queue, redactor)
                # JSON has no line breaks, so that no text in it can end the event or begin a field.
                yield f"id: {current}\nevent: {name}\ndata: {shown.model_dump_json()}\n\n"
            elif now() - sent >= KEEP_ALIVE_PAUSE:
                sent = now()
                yield ": nothing new\n\n"
            left = began + MAX_SECONDS - now()
            if operation.is_ended or left <= 0:
                return
            await asyncio.sleep(min(LOOK_PAUSE, left))
            async with redis_calls(ANSWER_TIMEOUT):
                operation = await queue.operations.get(operation.id)
    except Exception as error:
        yield f"event: problem\ndata: {json.dumps(problem_of(error).body(path))}\n\n"


def event_id(operation: Operation) -> str:
    """An id that changes only with the progress, so that a client that reconnects gets only what is new."""
    counts = (operation.id, operation.done, operation.skipped, operation.failed, operation.total, operation.owner)
    counts = (*counts, operation.canary)
    return f"{operation.state}-{crc32(repr(counts).encode()):08x}"
