"""Sending commands and getting their answers undecoded, over redis-py's public connection calls.

redis-py's own `execute_command` decodes as the user's client says and repeats commands after a time-out by itself; an
event must be neither decoded twice nor stored twice, so commands go out on connections directly.
"""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, cast
from weakref import WeakKeyDictionary

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    MaxConnectionsError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rapids.storage.packing import Command, pack
from rapids.storage.scripts import Script

__all__ = [
    "AnswerLostError",
    "Client",
    "Command",
    "Commands",
    "LentConnection",
    "OwnConnection",
    "Reply",
    "ServerClient",
    "SharedPool",
    "call",
    "is_outage",
    "run",
    "run_id_in",
]

Client: TypeAlias = Redis
Reply: TypeAlias = Any

OUTAGE_ANSWERS = (
    "LOADING",
    "READONLY",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "BUSY ",
    "max number of clients",
)
"""How answers begin, or what they contain, when the server cannot do now what it could do later."""

BUSY_POOL_PATIENCE = 1.0
"""Seconds to wait for a connection when other users of the pool have them all."""
BUSY_POOL_PAUSE = 0.005


@dataclass(frozen=True, slots=True)
class ServerClient:
    """A connection as its server knows it: by a number, which means nothing to the server's next run."""

    number: int
    run_id: bytes


class AnswerLostError(RedisConnectionError):
    """Commands were sent and their answers did not come: whether they were carried out is not known.

    `client` is the connection they went out on, None where the server was not asked for its number.
    """

    def __init__(self, message: str, client: ServerClient | None = None) -> None:
        super().__init__(message)  # pyright: ignore[reportUnknownMemberType] - untyped there
        self.client = client


class Commands(Protocol):
    """Something that sends commands in one round trip."""

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        """The answers in order; an error answer is in the list, not raised. Raises `RedisError` if there were none."""
        ...


class SharedPool:
    """The pool of a client the user made: a connection is borrowed for one round trip at a time.

    Where the pool has no more connections to give (redis-py's default is 100), callers wait their turn.
    """

    def __init__(self, client: Client) -> None:
        self._pool = pool_of(client)
        self._turns: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        async with self._turn():
            connection = await free_connection(self._pool)
            try:
                return await _round_trip(connection, commands)
            finally:
                # A cancelled caller must not leave the pool one connection short.
                await asyncio.shield(self._pool.release(connection))

    def _turn(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        if self._turns is None or self._loop is not loop:
            self._turns, self._loop = asyncio.Semaphore(self._pool.max_connections), loop
        return self._turns


async def free_connection(pool: ConnectionPool) -> AbstractConnection:
    """A connection. Others may have taken them all: what they, too, do in a round trip is soon over."""
    for _ in range(round(BUSY_POOL_PATIENCE / BUSY_POOL_PAUSE)):
        try:
            connection: AbstractConnection = await pool.get_connection()
        except MaxConnectionsError:
            await asyncio.sleep(BUSY_POOL_PAUSE)
        else:
            return connection
    return await pool.get_connection()


class LentConnection:
    """A connection of a user's pool, kept from the first command until it is given back, for one task to use.

    It knows itself by the server's number for it, so that an `AnswerLostError` can name it.
    """

    def __init__(self, client: Client) -> None:
        self._pool = pool_of(client)
        self._connection: AbstractConnection | None = None
        self._clients: WeakKeyDictionary[AbstractConnection, ServerClient] = WeakKeyDictionary()

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        return await self.send_packed((), commands)

    async def send_packed(self, packed: Sequence[bytes], more: Sequence[Command] = ()) -> list[Reply]:
        """The answers to commands that are packed already, and to `more` behind them.

        Raises `AnswerLostError` when they were sent and an answer did not come, another `RedisError` when not.
        """
        if self._connection is None:
            self._connection = await free_connection(self._pool)
        connection = self._connection
        try:
            if connection not in self._clients:
                await self._identify(connection)
            return await self._sent(connection, packed, more)
        except BaseException:
            await self.give_back()  # the pool connects it anew, by the ways it knows
            raise

    async def give_back(self) -> None:
        """Let others have the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool.release(connection)

    async def share(self) -> None:
        """Let others have a turn if they have no other connection."""
        if not self._pool.can_get_connection():
            await self.give_back()

    async def _sent(
        self, connection: AbstractConnection, packed: Sequence[bytes], more: Sequence[Command]
    ) -> list[Reply]:
        try:
            return await _round_trip(connection, more, packed)
        except (BusyLoadingError, AuthenticationError) as error:
            # Answers, though redis-py calls them connection errors and drops what others came with them.
            if len(packed) + len(more) == 1:
                raise
            raise AnswerLostError(str(error), self._clients.get(connection)) from error
        except (RedisConnectionError, RedisTimeoutError, OSError) as error:
            raise AnswerLostError(str(error), self._clients.get(connection)) from error

    async def _identify(self, connection: AbstractConnection) -> None:
        connection.register_connect_callback(self._forget)  # pyright: ignore[reportUnknownMemberType] - untyped there
        number, info = await _round_trip(connection, [("CLIENT", "ID"), ("INFO", "server")])
        self._clients[connection] = ServerClient(checked(number), run_id_in(info))

    def _forget(self, connection: AbstractConnection) -> None:
        self._clients.pop(connection, None)  # connected anew, under another number


class OwnConnection:
    """One connection to the same server as a client's, apart from its pool; it reconnects when it was lost.

    `timeout` (seconds) is how long an answer may take. It must exceed the `BLOCK` of a command sent here.
    """

    def __init__(self, client: Client, *, timeout: float) -> None:
        pool = pool_of(client)
        options = {name: value for name, value in pool.connection_kwargs.items() if not _is_pool_business(name)}
        options |= {
            "decode_responses": False,
            "socket_timeout": timeout,
            "retry": Retry(NoBackoff(), 0),
            "health_check_interval": 0,
        }
        self._connection: AbstractConnection = pool.connection_class(**options)
        self._turn = asyncio.Lock()

    @property
    def is_connected(self) -> bool:
        return self._connection.is_connected

    async def send(self, commands: Sequence[Command]) -> list[Reply]:
        async with self._turn:
            if not self._connection.is_connected:
                # Sending would connect, too, but past `connect`, in which Sentinel's connections ask for the address.
                await self._connection.connect()
            return await _round_trip(self._connection, commands)

    async def send_ahead(
        self, ahead: Sequence[Command], last: bytes, on_ahead: Callable[[Sequence[Reply]], None]
    ) -> Reply:
        """The answer to a command, packed already, that may block. Others go ahead of it in the same packet.

        `on_ahead` is given their answers as soon as they are there, which is before the last one blocks.
        """
        async with self._turn:
            if not self._connection.is_connected:
                await self._connection.connect()
            await self._connection.send_packed_command(pack(ahead) + last if ahead else last)
            async with _time_limit(self._connection):
                if ahead:
                    on_ahead(await _answers(self._connection, len(ahead)))
                return (await _answers(self._connection, 1))[0]

    async def close(self) -> None:
        """Close the connection; a command under way fails."""
        await self._connection.disconnect(nowait=True)


def _is_pool_business(option: str) -> bool:
    return option.startswith(("maint_notifications", "orig_", "retry_on", "oss_cluster"))


def check_client(client: object) -> None:
    """Raises `TypeError` for anything but a client we can use."""
    pool_of(cast(Client, client))


def pool_of(client: Client) -> ConnectionPool:
    """The pool of a plain or Sentinel client.

    Raises `TypeError` for anything else.
    """
    pool = getattr(client, "connection_pool", None)
    if not isinstance(pool, ConnectionPool):
        raise TypeError(f"redis must be a redis.asyncio.Redis client, not {client!r}")
    return pool


async def _round_trip(
    connection: AbstractConnection, commands: Sequence[Command], packed: Sequence[bytes] = ()
) -> list[Reply]:
    await connection.send_packed_command(b"".join([*packed, pack(commands)]) if commands else b"".join(packed))
    async with _time_limit(connection):
        return await _answers(connection, len(packed) + len(commands))


@asynccontextmanager
async def _time_limit(connection: AbstractConnection) -> AsyncGenerator[None]:
    """One time limit for all answers: redis-py's own, one for each of them, takes longer than reading an answer."""
    try:
        async with asyncio.timeout(connection.socket_timeout):
            yield
    except TimeoutError as error:
        raise RedisTimeoutError("Redis did not answer in time") from error


async def _answers(connection: AbstractConnection, count: int) -> list[Reply]:
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


def run_id_in(info: Reply) -> bytes:
    """What tells a server's run from its next one, in its answer to INFO; empty where it does not say."""
    lines: list[bytes] = info.splitlines() if isinstance(info, bytes) else []
    return next((line.removeprefix(b"run_id:") for line in lines if line.startswith(b"run_id:")), b"")


async def call(commands: Commands, *command: bytes | str | int | float) -> Reply:
    """The answer to one command. Raises `RedisError` for an error answer too."""
    return checked((await commands.send([command]))[0])


def checked(reply: Reply) -> Reply:
    """The answer, unless it is an error: that is raised."""
    if isinstance(reply, Exception):
        raise reply
    return reply


async def run(commands: Commands, script: Script, calls: Iterable[tuple[Sequence[str], Command]]) -> list[Reply]:
    """Run a script once per (keys, arguments), all in one round trip, and two where the server did not know it yet.

    The answers are in order, error answers among them. Raises `RedisError` if there were none.
    """
    requests = [["EVALSHA", script.sha, len(keys), *keys, *arguments] for keys, arguments in calls]
    replies = await commands.send(requests)
    unknown = [at for at, reply in enumerate(replies) if isinstance(reply, ResponseError) and is_no_script(reply)]
    if unknown:
        again = await commands.send([("SCRIPT", "LOAD", script.source), *(requests[at] for at in unknown)])
        checked(again[0])
        for at, reply in zip(unknown, again[1:], strict=True):
            replies[at] = reply
    return replies


def is_no_script(error: ResponseError) -> bool:
    """Whether the server forgot a script: restarted, failed over, or SCRIPT FLUSH."""
    return type(error).__name__ == "NoScriptError" or str(error).startswith("NOSCRIPT")


def is_no_group(error: BaseException) -> bool:
    """Whether a stream or its consumer group is gone."""
    return isinstance(error, ResponseError) and "NOGROUP" in str(error)


def is_outage(error: BaseException) -> bool:
    """Whether the error is the server's or the network's present state, so that the same command may work later."""
    if isinstance(error, AuthenticationError | AuthorizationError | NoPermissionError):
        return False
    if isinstance(error, RedisConnectionError | RedisTimeoutError | MaxConnectionsError | OSError):
        return True
    return isinstance(error, RedisError) and _is_outage_answer(error)


def _is_outage_answer(error: RedisError) -> bool:
    kinds = (
        "BusyLoadingError",
        "ReadOnlyError",
        "ClusterDownError",
        "MasterDownError",
        "TryAgainError",
        "OutOfMemoryError",
    )
    return type(error).__name__ in kinds or any(answer in str(error) for answer in OUTAGE_ANSWERS)
