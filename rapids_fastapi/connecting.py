"""From an address to a client that is known to answer, and back to nothing when the application stops."""

import asyncio
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from redis.asyncio import RedisCluster
from redis.exceptions import RedisClusterException, RedisError

from rapids.clients import RedisClient, check_url, masked, open_client
from rapids.exceptions import NotConfiguredError, RedisUnavailableError, reason

__all__ = ["URL_VARIABLE", "connected", "ping", "reachable", "url_or_environment"]

URL_VARIABLE = "RAPIDS_REDIS_URL"

_logger = logging.getLogger("rapids")


def url_or_environment(url: str | None) -> str:
    """The address given, or else the environment's.

    Raises `NotConfiguredError` where there is neither, `ValueError` for one that cannot be an address.
    """
    if url is not None:
        return url
    if found := os.environ.get(URL_VARIABLE, "").strip():
        return check_url(URL_VARIABLE, found)
    raise NotConfiguredError(
        f"Rapids does not know which Redis to use: give Rapids(url=...) or set {URL_VARIABLE}. "
        "For development, 'embedded:' starts a server of its own."
    )


@asynccontextmanager
async def connected(url: str, timeout: float) -> AsyncGenerator[RedisClient]:
    """A client of our own for the address, and for `embedded:` its server: both end with the block.

    Raises `RedisUnavailableError` when nothing answers within `timeout` seconds.
    """
    async with open_client(url) as client:
        yield await reachable(client, url, timeout)


async def reachable(client: RedisClient, where: str, timeout: float) -> RedisClient:
    """The client, once it has answered.

    Raises `RedisUnavailableError`, logged once, when it does not within `timeout` seconds or refuses us.
    """
    try:
        async with asyncio.timeout(timeout):
            await ping(client)
    except TimeoutError as error:
        why = str(error) or f"no answer within {timeout:g} s"
    except (RedisError, RedisClusterException, OSError) as error:
        why = reason(error)
    else:
        return client
    message = f"cannot reach Redis at {masked(where)}: {why}"
    _logger.critical("%s", message)
    # Without its chain, so that what a server prints of it is one short line and not redis-py's inner life.
    raise RedisUnavailableError(message) from None


async def ping(client: RedisClient) -> None:
    """Return when the server has answered, of a Cluster some node. Raises `RedisError` or `OSError`."""
    if isinstance(client, RedisCluster):
        await client.initialize()
    else:
        await client.ping()  # pyright: ignore[reportUnknownMemberType] - redis-py leaves its options untyped
