"""Where a key's server is, as a user's client knows it: the one server, Sentinel's master, or a node of a Cluster."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MaxConnectionsError, MovedError

from rapids._storage.client.commands import Reply

__all__ = ["BUSY_POOL_PATIENCE", "BUSY_POOL_PAUSE", "Client", "Place", "PoolPlace", "own_options"]

Client: TypeAlias = Redis | RedisCluster

BUSY_POOL_PATIENCE = 1.0
"""Seconds to wait for a connection when other users of the pool have them all."""
BUSY_POOL_PAUSE = 0.005


class Place(Protocol):
    """The server that holds a key, and the pool of the client's that has connections to it."""

    @property
    def most(self) -> int:
        """How many connections the pool gives out at the same time."""
        ...

    async def borrow(self) -> AbstractConnection:
        """A connection of the pool's, connected. Raises `RedisError`."""
        ...

    async def give_back(self, connection: AbstractConnection) -> None:
        """Let others have it."""
        ...

    def can_lend(self) -> bool:
        """Whether the pool has a connection left for somebody else."""
        ...

    async def new_connection(self, *, timeout: float) -> AbstractConnection:
        """A connection apart from the pool, not connected yet, whose answers may take `timeout` seconds."""
        ...

    def doubt(self) -> None:
        """The server may not be there any more, or may not hold the key: look again before the next connection."""
        ...

    async def moved(self, error: MovedError) -> None:
        """A node said that another has the slot now."""
        ...

    async def ask(self, error: AskError, packed: Sequence[bytes], behind: Sequence[bytes]) -> list[Reply]:
        """The answers of the node a slot moves to, for commands sent on to it. Raises `RedisError`."""
        ...


def own_options(options: dict[str, Any], timeout: float) -> dict[str, Any]:
    """A user's connection options, for a connection that reads undecoded and leaves trying again to us."""
    business = ("maint_notifications", "orig_", "retry_on", "oss_cluster", "redis_connect_func")
    return {name: value for name, value in options.items() if not name.startswith(business)} | {
        "decode_responses": False,
        "socket_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
    }


class PoolPlace:
    """One server, or the master that Sentinel names: the pool knows where."""

    def __init__(self, client: Redis) -> None:
        pool = getattr(client, "connection_pool", None)
        if not isinstance(pool, ConnectionPool):
            raise TypeError(f"redis must be a redis.asyncio.Redis or RedisCluster client, not {client!r}")
        self._pool = pool

    @property
    def most(self) -> int:
        return self._pool.max_connections

    async def borrow(self) -> AbstractConnection:
        """A connection. Others may have taken them all: what they, too, do in a round trip is soon over."""
        for _ in range(round(BUSY_POOL_PATIENCE / BUSY_POOL_PAUSE)):
            try:
                connection: AbstractConnection = await self._pool.get_connection()
            except MaxConnectionsError:
                await asyncio.sleep(BUSY_POOL_PAUSE)
            else:
                return connection
        return await self._pool.get_connection()

    async def give_back(self, connection: AbstractConnection) -> None:
        await self._pool.release(connection)

    def can_lend(self) -> bool:
        return self._pool.can_get_connection()

    async def new_connection(self, *, timeout: float) -> AbstractConnection:
        return self._pool.connection_class(**own_options(self._pool.connection_kwargs, timeout))

    def doubt(self) -> None:
        pass  # the pool connects anew by the ways it knows

    async def moved(self, error: MovedError) -> None:
        raise error  # the client is not one for a Cluster

    async def ask(self, error: AskError, packed: Sequence[bytes], behind: Sequence[bytes]) -> list[Reply]:
        raise error
