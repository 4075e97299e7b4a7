"""The choice of the stream or the dead-letter stream that a command is about, if the command names none."""

from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Annotated, TypeAlias

import typer
from redis.exceptions import ResponseError

from rapids.cli.root import execute, fail
from rapids.clients import RedisClient
from rapids.dead_letters import default_dlq
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.inspection import AnnouncedRouter, Inspector

__all__ = ["GroupName", "StreamName", "chosen_queue", "chosen_stream", "stream_of_group"]

GroupName: TypeAlias = Annotated[str, typer.Argument(metavar="GROUP", help="The consumer group.")]
StreamName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--stream",
        "-s",
        envvar="RAPIDS_STREAM",
        help="The event stream; by default that of the group, or the only one that routers read.",
    ),
]

DEFAULT = "events:all"
"""The default stream of emitters and routers."""


def chosen_stream(url: str | None, named: str | None, *, group: str | None = None, own: Iterable[str] = ()) -> str:
    """The stream that a command is about. Ends the command if several may be meant.

    `named`: the stream that was given. Otherwise it is the one that has this `group`; or the only one of `own`, the
    streams of `--app`; or the only one that routers announced; or the default of emitters and routers.
    """
    if named:
        return named
    if group is not None:
        return execute(url, lambda redis: stream_of_group(Inspector(redis), group))
    streams = set(own) or {router.stream for router in execute(url, _announced)}
    return _only(streams, DEFAULT, "streams", "--stream, or set RAPIDS_STREAM")


def chosen_queue(url: str | None, dlq: str | None, stream: str | None) -> str:
    """The dead-letter stream that a command is about: by default, that of the stream, or the only one that routers
    announced. Ends the command if several may be meant."""
    if dlq or stream:
        return dlq or default_dlq(stream or "")
    queues = {router.dlq_stream for router in execute(url, _announced) if router.dlq_stream is not None}
    return _only(queues, default_dlq(DEFAULT), "dead-letter streams", "--dlq or --stream, or set RAPIDS_STREAM")


async def stream_of_group(inspector: Inspector, group: str) -> str:
    """The stream of the server that has this group. Ends the command if it is not exactly one."""
    searched = await inspector.find_streams()
    found: list[str] = []
    for name in searched.streams:
        with suppress(StreamNotFoundError, GroupNotFoundError):
            await inspector.group(name, group)
            found.append(name)
    if not searched.complete:
        fail("the search ended before all keys were looked at: name the stream with --stream")
    if not found:
        fail(f"no stream of this server has a group {group!r}")
    if len(found) > 1:
        fail(f"several streams have a group {group!r}: {', '.join(sorted(found))}; name one with --stream")
    return found[0]


async def _announced(redis: RedisClient) -> tuple[AnnouncedRouter, ...]:
    with suppress(ResponseError):  # this user may not read the key
        return await Inspector(redis).routers()
    return ()


def _only(found: Collection[str], default: str, what: str, how: str) -> str:
    if len(found) > 1 and default not in found:
        fail(f"routers of this server have several {what}: {', '.join(sorted(found))}; name one with {how}")
    return default if len(found) != 1 else next(iter(found))
