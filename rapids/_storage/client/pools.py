"""Pools of connections, and how they connect: without redis-py's retries, and without the default executor.

An event loop of asyncio looks names up in its default executor, where `asyncio.to_thread` runs functions, too. While
handlers use all threads of that, no lost connection could come back. So Rapids looks names up in threads of its own.
uvloop has threads of its own for names.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import ContextVar
from copy import copy
from typing import Any, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakValueDictionary

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MaxConnectionsError, MovedError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from rapids._core.threads import in_own_thread
from rapids._storage.client.commands import Arrivals, Guide, Reply, cancellations, check_cancelled

__all__ = [
    "BUSY_POOL_PATIENCE",
    "BUSY_POOL_PAUSE",
    "Place",
    "PoolPlace",
    "connect",
    "forget_certificates",
    "looked_up_apart",
    "own_options",
    "ready",
    "when_free",
    "without_retries",
]

Result = TypeVar("Result")
AnyConnection = TypeVar("AnyConnection", bound=AbstractConnection)
Pool = TypeVar("Pool", bound=ConnectionPool)
Name: TypeAlias = bytes | str | None
Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
Found: TypeAlias = list[tuple[socket.AddressFamily, socket.SocketKind, int, str, Address]]

BUSY_POOL_PATIENCE = 1.0
"""Seconds to wait for a connection when others use all connections of the pool."""
BUSY_POOL_PAUSE = 0.005
NO_CONNECTION = "Too many connections"
"""What redis-py says of a busy pool; older releases have no other way to tell this error from others."""


def forget_certificates(connection: AbstractConnection) -> None:
    """Let it read the files of its certificates when it connects next: redis-py reads them once for a connection."""
    if isinstance(connection, SSLConnection):
        connection.ssl_context.context = None


async def connect(connection: AbstractConnection) -> None:
    """Connect it, by the certificates that are on the disk now."""
    forget_certificates(connection)
    await looked_up_apart(connection.connect())


async def ready(connection: AbstractConnection) -> None:
    """Connect it if necessary. Reconnect it if the server has closed it, or if it still has unread data."""
    before = cancellations()
    if not connection.is_connected:
        await connect(connection)
    # The name before redis-py 8, which deprecates it.
    name = "can_read" if hasattr(connection, "can_read") else "can_read_destructive"
    can_read = cast("Callable[[], Awaitable[bool]]", getattr(connection, name))
    try:
        is_clean = not await can_read()
    except (RedisError, OSError):
        is_clean = False
    if not is_clean:
        await connection.disconnect()
        await connect(connection)
    check_cancelled(before)


async def when_free(get: Callable[[], Awaitable[AnyConnection]]) -> AnyConnection:
    """A connection. If others use all of them, it waits: each use is only one round trip."""
    for _ in range(round(BUSY_POOL_PATIENCE / BUSY_POOL_PAUSE)):
        try:
            return await get()
        except RedisConnectionError as error:
            if not isinstance(error, MaxConnectionsError) and str(error) != NO_CONNECTION:
                raise
            await asyncio.sleep(BUSY_POOL_PAUSE)
    return await get()


class _Lent(Retry):
    """No retries, while a connection of the user's pool is lent to Rapids."""

    def __init__(self, connection: AbstractConnection) -> None:
        super().__init__(NoBackoff(), 0)
        self.before = connection.retry, getattr(connection, "connection_pool", None)
        """The user's retries and Sentinel pool, which the connection gets again when it is returned."""


class _WithoutRetries(ConnectionPool):
    """How a pool connects and takes back what it lends. All else is the user's pool, whose state this object shares.

    redis-py's own retries would run inside each of Rapids': a plain `Redis()` tries to connect eleven times.
    """

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        connection.retry = _Lent(connection)
        if isinstance(connection, SentinelManagedConnection):
            connection.connection_pool = self
        await ready(connection)

    async def release(self, connection: AbstractConnection) -> None:
        if isinstance(lent := connection.retry, _Lent):
            connection.retry, pool = lent.before
            if isinstance(connection, SentinelManagedConnection):
                connection.connection_pool = pool
        await super().release(connection)

    def __del__(self) -> None:
        """Nothing ends with this object: the user's pool counts its connections when it ends itself."""


def without_retries(pool: Pool) -> Pool:
    """The same pool for Rapids: with the same connections, limits and state, and without retries of redis-py."""
    kind = type(pool)
    names: dict[str, object] = {}
    if isinstance(pool, SentinelConnectionPool):
        sentinels = copy(cast(Sentinel, pool.sentinel_manager))  # pyright: ignore[reportUnknownMemberType] - untyped there
        sentinels.sentinels = [
            Redis(connection_pool=without_retries(one.connection_pool)) for one in sentinels.sentinels
        ]
        names["sentinel_manager"] = property(lambda _: sentinels)
    lender = cast(Pool, object.__new__(type(kind.__name__, (_WithoutRetries, kind), names)))
    lender.__dict__ = pool.__dict__  # pyright: ignore[reportAttributeAccessIssue] - one state for both objects
    return lender


def own_options(options: dict[str, Any], timeout: float, arrivals: Arrivals) -> dict[str, Any]:
    """A user's connection options, changed for a connection that does not decode answers and does not retry."""
    excluded = ("maint_notifications", "orig_", "retry_on", "oss_cluster")
    return {name: value for name, value in options.items() if not name.startswith(excluded)} | {
        "decode_responses": False,
        "socket_timeout": timeout,
        "parser_class": arrivals.parser_class(options.get("parser_class")),
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }


class Place(Guide, Protocol):
    """The server that has a key, and the client's pool of connections to it."""

    @property
    def most(self) -> int:
        """How many connections of the pool can be in use at the same time."""
        ...

    async def borrow(self) -> AbstractConnection:
        """A connected connection of the pool. Raises `RedisError`."""
        ...

    async def return_connection(self, connection: AbstractConnection) -> None:
        """Return it to the pool."""
        ...

    def can_lend(self) -> bool:
        """Whether the pool has a free connection for another user."""
        ...

    async def leave_loop(self) -> None:
        """Give up the pool's free connections, which belong to an event loop that has ended."""
        ...

    async def new_connection(self, timeout: float, arrivals: Arrivals) -> AbstractConnection:
        """A connection outside the pool, not connected yet, whose answers may take `timeout` seconds to begin."""
        ...


class PoolPlace:
    """One server, or the master that Sentinel names. The pool knows the address."""

    def __init__(self, client: Redis) -> None:
        pool = getattr(client, "connection_pool", None)
        if not isinstance(pool, ConnectionPool):
            raise TypeError(f"redis must be a redis.asyncio.Redis or RedisCluster client, not {client!r}")
        self._pool = without_retries(pool)
        self.can_lend = pool.can_get_connection

    @property
    def most(self) -> int:
        return self._pool.max_connections

    async def borrow(self) -> AbstractConnection:
        return await when_free(self._pool.get_connection)

    async def return_connection(self, connection: AbstractConnection) -> None:
        await self._pool.release(connection)

    async def leave_loop(self) -> None:
        with suppress(RuntimeError):  # "Event loop is closed": they are given up all the same
            await self._pool.disconnect(inuse_connections=False)

    async def new_connection(self, timeout: float, arrivals: Arrivals) -> AbstractConnection:
        options = own_options(self._pool.connection_kwargs, timeout, arrivals)
        if "connection_pool" in options:  # Sentinel's connections ask their pool for the address
            options["connection_pool"] = self._pool
        return self._pool.connection_class(**options)

    def doubt(self) -> None:
        pass  # the pool itself reconnects

    async def moved(self, error: MovedError) -> None:
        raise error  # the client is not one for a Cluster

    async def ask(self, error: AskError, packed: Sequence[bytes], after: Sequence[bytes]) -> list[Reply]:
        raise error


# Lookups of names

_is_apart: ContextVar[bool] = ContextVar("rapids_lookups", default=False)


async def looked_up_apart(connecting: Awaitable[Result]) -> Result:
    """What connecting returns. The names of servers are looked up without the default executor."""
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.BaseEventLoop) and not isinstance(loop.getaddrinfo, _Lookups):
        loop.getaddrinfo = _Lookups(loop)
    token = _is_apart.set(True)
    try:
        return await connecting
    finally:
        _is_apart.reset(token)


class _Lookups:
    """`getaddrinfo` of an event loop, the only way to its connections that they have in common. It does what it did
    before for all but `looked_up_apart`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._before = loop.getaddrinfo
        self._running: WeakValueDictionary[object, Future[Found]] = WeakValueDictionary()
        """One lookup for all connections that need it, so that a slow name server does not cost a thread for each."""

    async def __call__(
        self, host: Name, port: Name | int, *, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Found:
        if not _is_apart.get():
            return await self._before(host, port, family=family, type=type, proto=proto, flags=flags)
        question = (host, port, family, type, proto, flags)
        if (found := self._running.get(question)) is None or found.done():
            found = in_own_thread(lambda: socket.getaddrinfo(host, port, family, type, proto, flags))
            self._running[question] = found
        return await asyncio.wrap_future(found)
