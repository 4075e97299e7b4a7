"""The pool of a user's client, with one change: connecting is tried once.

A plain `Redis()` of redis-py tries to connect eleven times, with pauses. Rapids retries during outages by its own
rules, and redis-py's retries would run inside each of its attempts. The user's own commands keep their retries.
"""

from copy import copy
from typing import TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff

__all__ = ["no_retries", "without_retries"]

Pool = TypeVar("Pool", bound=ConnectionPool)


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
    """How a pool connects and takes back what it lends. All else is the user's pool, whose state this object shares."""

    async def ensure_connection(self, connection: AbstractConnection) -> None:
        connection.retry = _Lent(connection)
        if isinstance(connection, SentinelManagedConnection):
            connection.connection_pool = self
        await super().ensure_connection(connection)

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
