"""Which streams the admin looks at: those of this application's emitter and routers, and no other key of Redis."""

from typing import Annotated

from fastapi import Depends, Query

from rapids_fastapi.admin.access import RunningDep
from rapids_fastapi.admin.problems import Problem
from rapids_fastapi.state import Running

__all__ = ["LONGEST_NAME", "StreamDep", "check_stream", "streams_of"]

LONGEST_NAME = 512


def streams_of(parts: Running) -> list[str]:
    """The application's streams, by name."""
    return sorted({parts.emitter.stream, *(running.router.stream for running in parts.routers)})


def check_stream(parts: Running, stream: str) -> str:
    """A stream of the application. Raises `Problem` for any other, whether there is such a key or not."""
    if stream not in (names := streams_of(parts)):
        raise Problem("stream-not-found", "No emitter or router of this application uses it.", allowed=names)
    return stream


async def _stream(
    parts: RunningDep,
    stream: Annotated[
        str | None,
        Query(
            max_length=LONGEST_NAME,
            description="The stream, needed where there are several.",
            examples=["orders"],
        ),
    ] = None,
) -> str:
    names = streams_of(parts)
    if stream is None and len(names) > 1:
        raise Problem("stream-needed", "Say which one: ?stream=", allowed=names)
    return check_stream(parts, stream if stream is not None else names[0])


StreamDep = Annotated[str, Depends(_stream)]
"""The stream a request names, or the only one there is."""
