"""The server of a key, found through the user's client: one server, Sentinel's master, or a node of a Cluster.

On a Cluster it is the master of the key's slot, which changes after a failover or when the slot moves. redis-py asks
one node after another and waits up to the user's `socket_timeout` for each, or forever without one. A node on a lost
machine does not refuse a connection: it does not answer. So if the master is in doubt, this module asks the nodes.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from copy import copy
from typing import Any, Protocol, TypeAlias, TypeVar, cast
from weakref import WeakKeyDictionary

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MaxConnectionsError, MovedError, RedisClusterException, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from rapids._storage.client.commands import (
    AnswerLostError,
    Guide,
    Reply,
    cancellations,
    check_cancelled,
    checked,
    pack,
    round_trip,
)
from rapids._storage.client.lookups import looked_up_apart

__all__ = [
    "BUSY_POOL_PATIENCE",
    "BUSY_POOL_PAUSE",
    "Client",
    "ClusterPlace",
    "Place",
    "PoolPlace",
    "own_options",
]

Client: TypeAlias = Redis | RedisCluster
AnyConnection = TypeVar("AnyConnection", bound=AbstractConnection)
Pool = TypeVar("Pool", bound=ConnectionPool)

BUSY_POOL_PATIENCE = 1.0
"""Seconds to wait for a connection when others use all connections of the pool."""
BUSY_POOL_PAUSE = 0.005
NO_CONNECTION = "Too many connections"
"""What redis-py says of a busy pool; older releases have no other way to tell this error from others."""


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

    async def new_connection(self, *, timeout: float) -> AbstractConnection:
        """A connection outside the pool, not connected yet, whose answers may take `timeout` seconds."""
        ...


def no_retries() -> Retry:
    """The retries of a connection that only Rapids uses: none."""
    return Retry(NoBackoff(), 0)


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
        await _connect(connection)

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


def own_options(options: dict[str, Any], timeout: float) -> dict[str, Any]:
    """A user's connection options, changed for a connection that does not decode answers and does not retry."""
    excluded = ("maint_notifications", "orig_", "retry_on", "oss_cluster")
    return {name: value for name, value in options.items() if not name.startswith(excluded)} | {
        "decode_responses": False,
        "socket_timeout": timeout,
        "retry": no_retries(),
        "health_check_interval": 0,
    }


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
        return await _when_free(self._pool.get_connection)

    async def return_connection(self, connection: AbstractConnection) -> None:
        await self._pool.release(connection)

    async def leave_loop(self) -> None:
        with suppress(RuntimeError):  # "Event loop is closed": they are given up all the same
            await self._pool.disconnect(inuse_connections=False)

    async def new_connection(self, *, timeout: float) -> AbstractConnection:
        options = own_options(self._pool.connection_kwargs, timeout)
        if "connection_pool" in options:  # Sentinel's connections ask their pool for the address
            options["connection_pool"] = self._pool
        return self._pool.connection_class(**options)

    def doubt(self) -> None:
        pass  # the pool itself reconnects

    async def moved(self, error: MovedError) -> None:
        raise error  # the client is not one for a Cluster

    async def ask(self, error: AskError, packed: Sequence[bytes], after: Sequence[bytes]) -> list[Reply]:
        raise error


NODE_TIME = 1.0
"""Seconds that a node has to answer which node has which slots, before another node is asked."""
TOPOLOGY_TIME = 10.0
"""Seconds that redis-py has to find the nodes."""


class ClusterPlace:
    """The master of a key's slot."""

    def __init__(self, client: RedisCluster, key: str) -> None:
        self._client = client
        self._key = key
        self._node: ClusterNode | None = None
        """The slot's master as far as it is known; None if it is in doubt."""
        self._doubted: str | None = None
        """The name of the node that did not work: it is asked last."""
        self._lent: WeakKeyDictionary[AbstractConnection, ClusterNode] = WeakKeyDictionary()

    @property
    def most(self) -> int:
        return cast(int, self._client.get_connection_kwargs().get("max_connections") or 2**31)

    async def borrow(self) -> AbstractConnection:
        """A connection to the master or, if it is gone, to the new master."""
        try:
            return await self._connected()
        except (RedisError, OSError):
            self.doubt()
            return await self._connected()

    async def _connected(self) -> Connection:
        node = await self._master()
        connection = await _acquired(node)
        self._lent[connection] = node
        try:
            await _connect(connection)
        except BaseException:
            await self.return_connection(connection)
            raise
        return connection

    async def return_connection(self, connection: AbstractConnection) -> None:
        if (node := self._lent.pop(connection, None)) is not None:
            node.release(cast(Connection, connection))

    def can_lend(self) -> bool:
        return True

    async def leave_loop(self) -> None:
        for node in self._client.get_nodes():
            with suppress(RuntimeError):
                await node.disconnect()

    async def new_connection(self, *, timeout: float) -> AbstractConnection:
        node = await self._master()
        options: dict[str, Any] = own_options(node.connection_kwargs, timeout)
        options.pop("redis_connect_func", None)  # the client's own, which would let a replica answer
        return node.connection_class(**options)

    def doubt(self) -> None:
        if self._node is not None:
            self._doubted, self._node = self._node.name, None

    async def moved(self, error: MovedError) -> None:
        self._node = await self._known(error)

    async def ask(self, error: AskError, packed: Sequence[bytes], after: Sequence[bytes]) -> list[Reply]:
        """The answers of the node that takes over the slot. It requires ASKING before each command.

        Raises `AnswerLostError` if they were sent and an answer did not come, another `RedisError` if not sent.
        """
        asking = pack([("ASKING",)])
        commands = [part for one in packed for part in (asking, one)]
        async with _borrowed(await self._known(error)) as connection:
            try:
                replies = await round_trip(connection, [*commands, *after])
            except (RedisError, OSError) as lost:
                raise AnswerLostError(str(lost)) from lost
        return [*replies[1 : len(commands) : 2], *replies[len(commands) :]]

    async def _known(self, error: AskError) -> ClusterNode:
        """The node that an answer names. No host means the host of the node that answered; no port: ask all nodes."""
        named = cast("str | None", error.host)  # pyright: ignore[reportUnknownMemberType] - untyped there
        host = named or (self._node.host if self._node else "")
        port: int = error.port
        if (node := self._at(host, port)) is None:  # it is new since the last query, or no node knows it
            await _known_to_client(self._client, refresh=True)
            node = self._at(host, port)
        if node is None:
            self.doubt()
            raise RedisConnectionError(f"the Cluster redirected to {host}:{port}, which is not one of its known nodes")
        return node

    def _at(self, host: str, port: int) -> ClusterNode | None:
        return self._client.get_node(*self._client.nodes_manager.remap_host_port(host, port))

    async def _master(self) -> ClusterNode:
        if self._node is None:
            await _known_to_client(self._client)
            found = None if self._doubted is None else await self._asked_nodes(self._doubted)
            try:
                found = found or self._client.get_node_from_key(self._key)
            except RedisClusterException as error:
                raise RedisConnectionError(str(error)) from error
            if found is None:
                raise RedisConnectionError(f"no node of the Cluster is known to be the master for {self._key!r}")
            self._node = found
        return self._node

    async def _asked_nodes(self, doubted: str) -> ClusterNode | None:
        slot = self._client.keyslot(self._key)
        for node in sorted(self._client.get_nodes(), key=lambda one: one.name == doubted):
            try:
                async with asyncio.timeout(NODE_TIME), _borrowed(node) as connection:
                    slots: list[Any] = checked((await round_trip(connection, [pack([("CLUSTER", "SLOTS")])]))[0])
            except (RedisError, OSError):
                continue
            for first, last, (host, port, *_), *_ in slots:
                named = (host or b"").decode(errors="replace") or node.host
                if first <= slot <= last and (found := self._at(named, port)) is not None:
                    return found
        await _known_to_client(self._client, refresh=True)
        return None


async def _known_to_client(client: RedisCluster, *, refresh: bool = False) -> None:
    """Let the user's client find the nodes. Raises `RedisError`, since `RedisClusterException` is no `RedisError`."""
    try:
        async with asyncio.timeout(TOPOLOGY_TIME):
            await looked_up_apart(client.initialize())
            if refresh:
                await looked_up_apart(client.nodes_manager.initialize())
    except TimeoutError as error:
        raise RedisTimeoutError("the nodes of the Cluster did not report their slots in time") from error
    except RedisClusterException as error:
        raise RedisConnectionError(str(error)) from error


@asynccontextmanager
async def _borrowed(node: ClusterNode) -> AsyncGenerator[Connection]:
    connection = await _acquired(node)
    try:
        await _connect(connection)
        yield connection
    finally:
        node.release(connection)


async def _acquired(node: ClusterNode) -> Connection:
    async def acquire() -> Connection:
        return node.acquire_connection()

    return await _when_free(acquire)


async def _when_free(get: Callable[[], Awaitable[AnyConnection]]) -> AnyConnection:
    """A connection. If others use all of them, it waits: each use is only one round trip."""
    for _ in range(round(BUSY_POOL_PATIENCE / BUSY_POOL_PAUSE)):
        try:
            return await get()
        except RedisConnectionError as error:
            if not isinstance(error, MaxConnectionsError) and str(error) != NO_CONNECTION:
                raise
            await asyncio.sleep(BUSY_POOL_PAUSE)
    return await get()


async def _connect(connection: AbstractConnection) -> None:
    """Connect it. Reconnect it if the server has closed it, or if it still has unread data."""
    before = cancellations()
    if not connection.is_connected:
        await looked_up_apart(connection.connect())
    # The name before redis-py 8, which deprecates it.
    name = "can_read" if hasattr(connection, "can_read") else "can_read_destructive"
    can_read = cast("Callable[[], Awaitable[bool]]", getattr(connection, name))
    try:
        is_clean = not await can_read()
    except (RedisError, OSError):
        is_clean = False
    if not is_clean:
        await connection.disconnect()
        await looked_up_apart(connection.connect())
    check_cancelled(before)


def place_of(client: Client, key: str) -> Place:
    """The place of a key. Raises `TypeError` for a client that cannot be used."""
    return ClusterPlace(client, key) if isinstance(client, RedisCluster) else PoolPlace(client)
