"""Commands out on a connection, and their answers back undecoded.

redis-py's own `execute_command` decodes as the user's client says and repeats commands after a time-out by itself; an
event must be neither decoded twice nor stored twice, so commands go out on connections directly.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import cast

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rapids._storage.client.commands import Reply
from rapids._storage.client.protocol import Command, pack

__all__ = ["answers", "round_trip", "time_limit"]


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
