"""The wire protocol: packed commands, undecoded answers, and redirections of a Cluster.

Commands are arrays of bulk strings, each with its length before it: see
https://redis.io/docs/latest/develop/reference/protocol-spec/#arrays. Text is always UTF-8. redis-py's own
`execute_command` decodes as the user's client is configured, and itself repeats commands after a time-out. An event
must not be decoded twice or stored twice, so commands are sent on connections directly.

A Cluster's node may answer that another node must be asked: MOVED if the slot has moved, ASK while it moves. See
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = [
    "Command",
    "Guide",
    "Reply",
    "Send",
    "answers",
    "follow",
    "is_redirected",
    "pack",
    "round_trip",
    "time_limit",
]

Command: TypeAlias = Sequence[bytes | str | int | float]
Reply: TypeAlias = Any


_packed = cast(Callable[[tuple[Any, ...]], bytes], hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType] - typed there as taking one argument


def pack(commands: Iterable[Command]) -> bytes:
    """Commands packed one after another. hiredis packs them in a tenth of the time that redis-py needs."""
    return b"".join([_packed(tuple(command)) for command in commands])


async def round_trip(connection: AbstractConnection, packed: Sequence[bytes]) -> list[Reply]:
    """The answers to packed commands."""
    await connection.send_packed_command(b"".join(packed))
    async with time_limit(connection):
        return await answers(connection, len(packed))


@asynccontextmanager
async def time_limit(connection: AbstractConnection) -> AsyncGenerator[None]:
    """One time limit for all answers: redis-py's own limit for each answer costs more than reading an answer."""
    try:
        async with asyncio.timeout(connection.socket_timeout):
            yield
    except TimeoutError as error:
        raise RedisTimeoutError("Redis did not answer in time") from error


async def answers(connection: AbstractConnection, count: int) -> list[Reply]:
    """The next `count` answers, including error answers."""
    replies: list[Reply] = []
    for _ in range(count):
        try:
            replies.append(await connection.read_response(disable_decoding=True, timeout=math.inf))
        except ResponseError as error:
            replies.append(error)
    if any(isinstance(reply, ReadOnlyError) for reply in replies):
        # This was the master and is a replica after a failover: the name may resolve to another server next time.
        await connection.disconnect(nowait=True)
    return replies


def is_redirected(replies: Sequence[Reply]) -> bool:
    """Whether an answer says that another node must be asked."""
    return any(isinstance(reply, AskError) for reply in replies)


ROUNDS = 5
"""How often commands are sent on. If the nodes still disagree then, they will agree later."""
PAUSE = 0.02
"""Seconds before the second round, doubled for each further round: nodes need time to learn about a slot."""

Send: TypeAlias = Callable[[Sequence[bytes]], Awaitable[list[Reply]]]


class Guide(Protocol):
    """Knows which server has a key."""

    def doubt(self) -> None:
        """Note that the server may be gone or may no longer have the key: check before the next connection."""
        ...

    async def moved(self, error: MovedError) -> None:
        """Note that another node has the slot now. Raises `RedisError` if no node knows that one."""
        ...

    async def ask(self, error: AskError, packed: Sequence[bytes], after: Sequence[bytes]) -> list[Reply]:
        """Send commands on to the node that a slot moves to, and return its answers. Raises `RedisError`."""
        ...


async def follow(
    guide: Guide, replies: Sequence[Reply], packed: Sequence[bytes], again: Send, after: Sequence[bytes] = ()
) -> list[Reply]:
    """The answers, including those to commands that were sent on.

    `again` sends commands to the node that then has the slot. `after`: commands after the others that return a number
    about earlier commands of the same connection, such as WAIT. They are sent again, and the smallest number counts.
    Raises `RedisError` if an answer did not come.
    """
    replies = list(replies)
    if not [reply for reply in replies if isinstance(reply, Exception)]:
        return replies
    for round_ in range(ROUNDS):
        sent_on = [at for at, reply in enumerate(replies[: len(packed)]) if isinstance(reply, AskError)]
        if not sent_on:
            break
        if round_:
            await asyncio.sleep(PAUSE * round_)
        error: AskError = replies[sent_on[0]]
        # One kind at a time: a command's answer may change from one kind to the other between rounds.
        same = [at for at in sent_on if isinstance(replies[at], MovedError) == isinstance(error, MovedError)]
        wanted = [packed[at] for at in same]
        if isinstance(error, MovedError):
            await guide.moved(error)
            answers = await again([*wanted, *after])
        else:
            answers = await guide.ask(error, wanted, after)
        for at, answer in zip(same, answers, strict=False):
            replies[at] = answer
        if after:
            replies[len(packed) :] = [
                one if isinstance(one, Exception) else other if isinstance(other, Exception) else min(one, other)
                for one, other in zip(replies[len(packed) :], answers[len(same) :], strict=True)
            ]
    if any(isinstance(reply, ClusterDownError) for reply in replies):
        guide.doubt()
    return replies
