"""Commands as they go over the wire, and their answers back undecoded.

Commands are arrays of bulk strings, each with its length before it: see
https://redis.io/docs/latest/develop/reference/protocol-spec/#arrays. Text is UTF-8, whatever a user's client says.
redis-py's own `execute_command` decodes as the user's client says and repeats commands after a time-out by itself; an
event must be neither decoded twice nor stored twice, so commands go out on connections directly.

A Cluster's node may answer that another node is to be asked: MOVED for good, ASK while a slot moves. See
https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#redirection-and-resharding.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, MovedError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = [
    "Command",
    "EntryPacker",
    "Guide",
    "Reply",
    "Send",
    "answers",
    "follow",
    "pack",
    "round_trip",
    "time_limit",
]

Command: TypeAlias = Sequence[bytes | str | int | float]
Reply: TypeAlias = Any


_packed = cast(Callable[[tuple[Any, ...]], bytes], hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType] - typed there as taking one argument


def pack(commands: Iterable[Command]) -> bytes:
    """Commands one after the other. hiredis packs them in a tenth of the time that redis-py takes for it."""
    return b"".join([_packed(tuple(command)) for command in commands])


class EntryPacker:
    """Packs entries of one stream with the same fields, in a third of the time that packing any command takes.

    `maxlen` (entries): what the stream is trimmed to, in whole nodes; None for never.
    """

    def __init__(self, stream: str, names: Sequence[bytes], maxlen: int | None) -> None:
        trim = () if maxlen is None else (b"MAXLEN", b"~", b"%d" % maxlen)
        head = [b"XADD", stream.encode(), *trim, b"*"]
        start = b"*%d\r\n" % (len(head) + 2 * len(names)) + b"".join(map(_bulk, head))
        fields = b"".join(_bulk(name).replace(b"%", b"%%") + b"$%d\r\n%b\r\n" for name in names)
        self._template = start.replace(b"%", b"%%") + fields

    def pack(self, values: Sequence[bytes]) -> bytes:
        """One XADD with these values, in the order of the names."""
        return self._template % tuple([part for value in values for part in (len(value), value)])


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


async def round_trip(
    connection: AbstractConnection, commands: Sequence[Command], packed: Sequence[bytes] = ()
) -> list[Reply]:
    """The answers to commands that are `packed` already, and to `commands` behind them."""
    await connection.send_packed_command(b"".join([*packed, pack(commands)]) if commands else b"".join(packed))
    async with time_limit(connection):
        return await answers(connection, len(packed) + len(commands))


@asynccontextmanager
async def time_limit(connection: AbstractConnection) -> AsyncGenerator[None]:
    """One time limit for all answers: redis-py's own, one for each of them, takes longer than reading an answer."""
    try:
        async with asyncio.timeout(connection.socket_timeout):
            yield
    except TimeoutError as error:
        raise RedisTimeoutError("Redis did not answer in time") from error


async def answers(connection: AbstractConnection, count: int) -> list[Reply]:
    """The next `count` answers, error answers among them."""
    replies = [await _answer(connection) for _ in range(count)]
    if any(isinstance(reply, ReadOnlyError) for reply in replies):
        # This was the master and is a replica now, after a failover: the name may lead elsewhere when asked again.
        await connection.disconnect(nowait=True)
    return replies


async def _answer(connection: AbstractConnection) -> Reply:
    try:
        return cast(Reply, await connection.read_response(disable_decoding=True, timeout=math.inf))
    except ResponseError as error:
        return error


ROUNDS = 5
"""How often commands are sent on; nodes that do not agree by then will later."""
PAUSE = 0.02
"""Seconds before the second round, the third after twice as long, and so on: news of a slot takes its time."""

Send: TypeAlias = Callable[[Sequence[bytes]], Awaitable[list[Reply]]]


class Guide(Protocol):
    """What knows the nodes."""

    async def moved(self, error: MovedError) -> None:
        """A node said that another has the slot now. Raises `RedisError` if that one is not known to any."""
        ...

    async def ask(self, error: AskError, packed: Sequence[bytes], behind: Sequence[bytes]) -> list[Reply]:
        """The answers of the node a slot moves to, for commands sent on to it. Raises `RedisError`."""
        ...


async def follow(
    guide: Guide, replies: Sequence[Reply], packed: Sequence[bytes], again: Send, behind: Sequence[bytes] = ()
) -> list[Reply]:
    """The answers, those to commands that were sent on among them.

    `again` sends commands to the node that has the slot by then. `behind`: numbers asked for behind the commands about
    what came before on the same connection, such as WAIT; they are asked for again, and the least one counts.
    Raises `RedisError` if an answer did not come.
    """
    replies = list(replies)
    for round_ in range(ROUNDS):
        sent_on = [at for at, reply in enumerate(replies[: len(packed)]) if isinstance(reply, AskError)]
        if not sent_on:
            break
        if round_:
            await asyncio.sleep(PAUSE * round_)
        error: AskError = replies[sent_on[0]]
        # Those of one kind at a time; a command's answer may change from the one to the other meanwhile.
        same = [at for at in sent_on if isinstance(replies[at], MovedError) == isinstance(error, MovedError)]
        wanted = [packed[at] for at in same]
        if isinstance(error, MovedError):
            await guide.moved(error)
            answers = await again([*wanted, *behind])
        else:
            answers = await guide.ask(error, wanted, behind)
        for at, answer in zip(same, answers, strict=False):
            replies[at] = answer
        if behind:
            replies[len(packed) :] = _least(replies[len(packed) :], answers[len(same) :])
    return replies


def _least(before: Sequence[Reply], now: Sequence[Reply]) -> list[Reply]:
    return [
        one if isinstance(one, Exception) else other if isinstance(other, Exception) else min(one, other)
        for one, other in zip(before, now, strict=True)
    ]
