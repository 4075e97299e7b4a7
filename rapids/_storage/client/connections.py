"""Connections that send commands and return undecoded answers, over redis-py's public connection calls.

Each of them goes to the server that has one key, and follows the key: to another server after a failover, or to another
node of a Cluster.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rapids._storage.client.commands import (
    TOO_LATE,
    AnswerLostError,
    Arrivals,
    Command,
    Commands,
    Reply,
    ServerClient,
    answers,
    call,
    cancellations,
    check_cancelled,
    checked,
    follow,
    is_redirected,
    pack,
    round_trip,
    run,
    run_id_in,
    send,
    time_limit,
    whole_call,
)
from rapids._storage.client.nodes import ClusterPlace
from rapids._storage.client.pools import Place, PoolPlace, connect
from rapids._storage.keys import default_dlq
from rapids.exceptions import NotConfiguredError

__all__ = [
    "AnswerLostError",
    "Client",
    "Command",
    "Commands",
    "OwnConnection",
    "Reply",
    "ServerClient",
    "SharedPool",
    "call",
    "check_client",
    "check_dlq",
    "check_process",
    "checked",
    "place_of",
    "run",
    "run_id_in",
    "share_a_slot",
    "whole_call",
]

Client: TypeAlias = Redis | RedisCluster

FORKED = (
    "this process was forked from one whose event loop has connections to Redis, and would share them: make a client, "
    "and an emitter with it, in the new process; or start that with multiprocessing's 'spawn', or before the first use"
)


def place_of(client: Client, key: str) -> Place:
    """The place of a key. Raises `TypeError` for a client that cannot be used."""
    return ClusterPlace(client, key) if isinstance(client, RedisCluster) else PoolPlace(client)


def check_process(process: int, loop: asyncio.AbstractEventLoop) -> None:
    """Raises `NotConfiguredError` if the connections of this event loop belong to the process that forked this one."""
    if process != os.getpid() and not loop.is_closed():
        raise NotConfiguredError(FORKED)


def check_client(client: object) -> None:
    """Raises `TypeError` for anything but a client that can be used."""
    place_of(cast(Client, client), "any")


def check_dlq(client: Client, stream: str, dlq: str | None) -> None:
    """Raise `ValueError` for a dead-letter stream in another slot: one script writes a letter and settles its entry."""
    if dlq is not None and not share_a_slot(client, stream, dlq):
        raise ValueError(
            f"dlq_stream {dlq!r} is in another slot of the Cluster than stream {stream!r}, so no script can write to "
            f"both: name it {default_dlq(stream)!r}, or leave it out for that name in the FastAPI plug-in"
        )


def share_a_slot(client: Client, key: str, other: str) -> bool:
    """Whether one script may use both keys. Always true, except on a Cluster."""
    return not isinstance(client, RedisCluster) or client.keyslot(key) == client.keyslot(other)


class SharedPool:
    """The connection pool of a user's client: a connection is borrowed for one round trip at a time.

    If all connections of the pool are in use (redis-py's default is 100), callers wait for their turn.
    """

    def __init__(self, client: Client, key: str) -> None:
        self._place = place_of(client, key)
        self._turns: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        async with await self._turn():
            packed = [pack([command]) for command in commands]
            return await follow(self._place, await self._sent(packed), packed, self._sent)

    async def _sent(self, packed: Sequence[bytes]) -> list[Reply]:
        before = cancellations()
        connection = await self._place.borrow()
        try:
            check_cancelled(before)
            return await round_trip(connection, packed)
        except (RedisConnectionError, RedisTimeoutError, OSError):
            self._place.doubt()
            raise
        finally:
            # A connection must also return to the pool if the caller is cancelled.
            await asyncio.shield(self._place.return_connection(connection))

    async def _turn(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._turns is None or self._loop is not loop or os.getpid() != self._process:
            if self._loop is not None:
                check_process(self._process, self._loop)
                if self._loop.is_closed():
                    await self._place.leave_loop()
            self._turns, self._loop, self._process = asyncio.Semaphore(self._place.most), loop, os.getpid()
        return self._turns


class OwnConnection:
    """One connection to the server that has a key, outside the client's pool. It reconnects after a loss.

    `timeout` (seconds) is how long no part of an answer may arrive. `block` (seconds) is how much longer the answer may
    take to begin, for a command that blocks.
    """

    def __init__(self, client: Client, key: str, *, timeout: float, block: float = 0.0) -> None:
        self._place = place_of(client, key)
        self._timeout = timeout + block
        self.arrivals = Arrivals(timeout)
        self._connection: AbstractConnection | None = None
        self._turn = asyncio.Lock()

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_connected

    @property
    def server(self) -> tuple[str, int] | None:
        """The host and port it is connected to; None without a connection, or if it does not use TCP."""
        host, port = getattr(self._connection, "host", None), getattr(self._connection, "port", None)
        return (host, port) if self.is_connected and isinstance(host, str) and isinstance(port, int) else None

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        async with self._turn:
            packed = [pack([command]) for command in commands]
            return await follow(self._place, await self._sent(packed), packed, self._sent_again)

    async def send_ahead(
        self, ahead: Sequence[Command], last: bytes, on_ahead: Callable[[Sequence[Reply]], None]
    ) -> Reply:
        """The answer to a packed command that may block. Other commands are sent before it, in the same packet.

        `on_ahead` is called with their answers as soon as they arrive, before the last command blocks.
        """
        async with self._turn:
            connection = await self._connected()
            try:
                async with time_limit(connection, arrivals=self.arrivals):
                    await send(connection, pack(ahead) + last if ahead else last)
                    before = await answers(connection, len(ahead))
                    redirected = is_redirected(before)
                    if ahead and not redirected:
                        on_ahead(before)
                    self.arrivals.first_at = None  # the last answer only begins to arrive
                    reply = (await answers(connection, 1))[0]  # it does not block if it is redirected
            except TimeoutError as error:
                self._place.doubt()
                raise RedisTimeoutError(TOO_LATE) from error
            except (RedisConnectionError, RedisTimeoutError, OSError):
                self._place.doubt()
                raise
            except BaseException:  # also of `on_ahead`: the next command would get this command's answer
                await self.close()
                raise
            if redirected:
                on_ahead(await follow(self._place, before, [pack([command]) for command in ahead], self._sent_again))
            if isinstance(reply, ClusterDownError):
                self._place.doubt()
            return reply

    async def read_elsewhere(self, error: AskError, at_once: bytes) -> Reply:
        """The answer to a packed read that does not block, from the node that an error names; None if the key has moved
        and the read must be sent again, after this connection has followed the key."""
        async with self._turn:
            if isinstance(error, MovedError):
                await self._place.moved(error)
                await self.close()
                return None
            return (await self._place.ask(error, [at_once], ()))[0]

    async def close(self) -> None:
        """Close the connection. A running command fails."""
        if self._connection is not None:
            await self._connection.disconnect(nowait=True)

    async def _sent_again(self, packed: Sequence[bytes]) -> list[Reply]:
        await self.close()
        return await self._sent(packed)

    async def _sent(self, packed: Sequence[bytes]) -> list[Reply]:
        connection = await self._connected()
        try:
            return await round_trip(connection, packed, arrivals=self.arrivals)
        except (RedisConnectionError, RedisTimeoutError, OSError):
            self._place.doubt()
            raise

    async def _connected(self) -> AbstractConnection:
        connection = self._connection
        if connection is None or not connection.is_connected:
            # Sending would also connect, but without `connect`, in which Sentinel's connections ask for the address.
            connection = self._connection = await self._place.new_connection(self._timeout, self.arrivals)
            before = cancellations()
            try:
                await connect(connection)
                check_cancelled(before)
            except (RedisError, OSError):
                self._place.doubt()
                raise
        return connection
