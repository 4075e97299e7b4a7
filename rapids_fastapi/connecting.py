"""From an address to a client that is known to answer, and back to nothing when the application stops."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from rapids.embedded import is_embedded_url, open_embedded
from rapids.exceptions import NotConfiguredError, RedisUnavailableError

__all__ = ["URL_VARIABLE", "check_url", "connected", "masked", "ping", "reachable", "url_or_environment"]

URL_VARIABLE = "RAPIDS_REDIS_URL"

_logger = logging.getLogger("rapids")

_SCHEMES = ("redis://", "rediss://", "unix://", "redis+sentinel://")
_ALLOWED = (
    "redis://host:port/db, rediss://host:port/db, unix:///path/to.sock, "
    "redis+sentinel://host:port,host:port/service, embedded: or embedded:path/to/dir"
)
_DEFAULT_SENTINEL_PORT = 26379
_CONNECT_TIMEOUT = 5.0


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


def check_url(option: str, url: str) -> str:
    """The address, if it is one of ours. Raises `ValueError` naming the option, the address and what is allowed."""
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"{option} must be an address such as redis://localhost:6379/0, not {url!r}")
    if url.lower().startswith("redis+cluster://"):
        raise ValueError(
            f"{option}: redis+cluster:// is not supported in this version of Rapids; it must be one of {_ALLOWED}, "
            f"not {masked(url)!r}"
        )
    if is_embedded_url(url):
        open_embedded(url)  # makes the object and starts nothing; refuses a malformed one
    elif url.lower().startswith("redis+sentinel://"):
        _sentinel_parts(option, url)
    elif not url.lower().startswith(_SCHEMES):
        raise ValueError(f"{option} must be one of {_ALLOWED}, not {masked(url)!r}")
    else:
        _check_parts(option, url)
    return url


def _check_parts(option: str, url: str) -> None:
    try:
        _from_url(url).connection_pool.make_connection()  # which connects nowhere yet
    except (TypeError, ValueError) as error:
        raise ValueError(f"{option}: {masked(url)!r} cannot be used: {error}; it must be one of {_ALLOWED}") from error


def masked(url: str) -> str:
    """The address as it may be printed: without its password."""
    hidden = re.sub(r"(?<=//)([^/@?#]*?):([^/?#]*)@", r"\1:***@", url, count=1)
    return re.sub(r"([?&](?:password|sentinel_password|ssl_password)=)[^&#]*", r"\1***", hidden, flags=re.IGNORECASE)


@asynccontextmanager
async def connected(url: str, timeout: float) -> AsyncGenerator[Redis]:
    """A client of our own for the address, and for `embedded:` its server: both end with the block.

    Raises `RedisUnavailableError` when nothing answers within `timeout` seconds.
    """
    if is_embedded_url(url):
        async with open_embedded(url) as server, _closing(_from_url(server.url)) as client:
            yield await reachable(client, url, timeout)
    elif url.lower().startswith("redis+sentinel://"):
        async with _sentinel(url) as client:
            yield await reachable(client, url, timeout)
    else:
        async with _closing(_from_url(url)) as client:
            yield await reachable(client, url, timeout)


async def reachable(client: Redis, where: str, timeout: float) -> Redis:
    """The client, once it has answered.

    Raises `RedisUnavailableError`, logged once, when it does not within `timeout` seconds or refuses us.
    """
    try:
        async with asyncio.timeout(timeout):
            await ping(client)
    except TimeoutError as error:
        why = str(error) or f"no answer within {timeout:g} s"
    except (RedisError, OSError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
    else:
        return client
    message = f"cannot reach Redis at {masked(where)}: {why}"
    _logger.critical("%s", message)
    # Without its chain, so that what a server prints of it is one short line and not redis-py's inner life.
    raise RedisUnavailableError(message) from None


async def ping(client: Redis) -> None:
    """Return when the server has answered. Raises `RedisError` or `OSError`."""
    await client.ping()  # pyright: ignore[reportUnknownMemberType] - redis-py leaves its options untyped


def _from_url(url: str) -> Redis:
    return Redis.from_url(url, **_options())  # pyright: ignore[reportUnknownMemberType]


def _options() -> dict[str, Any]:
    """What our clients have unless the address says otherwise.

    redis-py would try again by itself for seconds; Rapids rides out outages by its own rules, and at start-up the
    reason should be told at once.
    """
    return {"socket_connect_timeout": _CONNECT_TIMEOUT, "retry": Retry(NoBackoff(), 0)}


@asynccontextmanager
async def _closing(client: Redis) -> AsyncGenerator[Redis]:
    try:
        yield client
    finally:
        await client.aclose()


@asynccontextmanager
async def _sentinel(url: str) -> AsyncGenerator[Redis]:
    nodes, service, options = _sentinel_parts("url", url)
    sentinel_options = _options() | {
        name.removeprefix("sentinel_"): value for name, value in options.items() if name.startswith("sentinel_")
    }
    own = _options() | {name: value for name, value in options.items() if not name.startswith("sentinel_")}
    sentinel = Sentinel(nodes, sentinel_kwargs=sentinel_options)
    try:
        client: Redis = sentinel.master_for(service, **own)  # pyright: ignore[reportUnknownMemberType]
        async with _closing(client):
            yield client
    finally:
        for node in sentinel.sentinels:
            await node.aclose()


def _sentinel_parts(option: str, url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not hosts or not service or (database and not database.isdigit()):
        raise ValueError(
            f"{option} must be redis+sentinel://[user:password@]host:port,host:port/service[/db], not {masked(url)!r}"
        )
    # redis-py reads the rest as if it were an address with one host: it knows its options and their types.
    options: dict[str, Any] = {**parse_url(f"redis://{credentials}@host/{database}?{parts.query}")}
    options.pop("host")
    return [_host_and_port(option, url, host) for host in hosts.split(",")], unquote(service), options


def _host_and_port(option: str, url: str, node: str) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", node)
    if found is None:
        raise ValueError(f"{option}: {node!r} must be host:port, in {masked(url)!r}")
    return found[1].strip("[]"), int(found[2] or _DEFAULT_SENTINEL_PORT)
