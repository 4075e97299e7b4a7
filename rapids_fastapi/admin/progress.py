"""Server-sent events, and the progress of an operation as such.

https://html.spec.whatwg.org/multipage/server-sent-events.html has their format. They are written here, in a plain
streaming response. FastAPI's own support needs a newer version than the oldest one that Rapids supports.
`sse-starlette` replaces a method of uvicorn's server when it is imported, and has global state.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Annotated, Any
from zlib import crc32

from fastapi import Header
from starlette.responses import StreamingResponse

from rapids import DeadLetterQueue
from rapids.dead_letters import Operation
from rapids.redaction import Redactor
from rapids_fastapi.admin import examples
from rapids_fastapi.admin.problems import problem_of, redis_calls
from rapids_fastapi.admin.redacted_operation import detail_of

__all__ = ["PROGRESS", "SEEN", "EventStream", "LastEventId", "event_id", "events_of", "sent", "server_sent"]

MAX_SECONDS = 15.0
"""Seconds after which a stream ends, since an open one delays the shutdown of the server."""
LOOK_PAUSE = 0.5
"""Seconds between two looks at what is shown. At an operation, each is one round trip."""
ANSWER_TIMEOUT = 5.0
"""Seconds within which a look must be over. Otherwise the stream ends with a problem."""
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

    @staticmethod
    def documented(description: str, name: str, event: str) -> dict[str, Any]:
        """For OpenAPI: the answer of a route, with an event as its example."""
        example = {name: {"value": f"retry: {RECONNECT_MS}\n\n{event}"}}
        return {
            "description": description,
            "content": {"text/event-stream": {"schema": {"type": "string"}, "examples": example}},
        }


def sent(event_id: str, name: str, data: str) -> str:
    """An event as it is sent. `data` is JSON, which has no line breaks: no text in it can end the event or begin a
    field."""
    return f"id: {event_id}\nevent: {name}\ndata: {data}\n\n"


async def server_sent(look: Callable[[], Awaitable[tuple[list[str], bool]]], path: str) -> AsyncGenerator[str]:
    """What each `look` finds: events as `sent`, and whether they are the last ones. `path`: that of the request."""
    now = asyncio.get_running_loop().time
    began = sent_at = now()
    yield f"retry: {RECONNECT_MS}\n\n"
    try:
        while True:
            async with redis_calls(ANSWER_TIMEOUT):
                events, is_last = await look()
            for event in events:
                yield event
            if events:
                sent_at = now()
            elif now() - sent_at >= KEEP_ALIVE_PAUSE:
                sent_at = now()
                yield ": nothing new\n\n"
            left = began + MAX_SECONDS - now()
            if is_last or left <= 0:
                return
            await asyncio.sleep(min(LOOK_PAUSE, left))
    except Exception as error:
        yield f"event: problem\ndata: {json.dumps(problem_of(error).body(path))}\n\n"


PROGRESS = EventStream.documented(
    "The data of the events `progress` and `ended` is the operation, as JSON, and their id changes with it; the data "
    "of `problem` is a problem; `ended` or `problem` is the last event",
    "progress",
    sent("running-5b2e91c0", "progress", json.dumps(examples.OPERATION)),
)


def events_of(
    queue: DeadLetterQueue, operation: Operation, redactor: Redactor, *, seen: str | None, path: str
) -> AsyncGenerator[str]:
    """The events from now on. `seen`: the id of the last event that the client has; `path`: that of the request."""
    read: Operation | None = operation

    async def look() -> tuple[list[str], bool]:
        nonlocal read, seen
        current, read = read or await queue.operations.get(operation.id), None
        if (now := event_id(current)) == seen:
            return [], current.is_ended
        seen = now
        shown = await detail_of(current, queue, redactor)
        return [sent(now, "ended" if current.is_ended else "progress", shown.model_dump_json())], current.is_ended

    return server_sent(look, path)


def event_id(operation: Operation) -> str:
    """An id that changes only with the progress, so that a client that reconnects gets only what is new."""
    counts = (operation.id, operation.done, operation.skipped, operation.failed, operation.total, operation.owner)
    counts = (*counts, operation.canary)
    return f"{operation.state}-{crc32(repr(counts).encode()):08x}"
