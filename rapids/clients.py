"""Redis clients made from an address: of one server, of Sentinel's master, of a Cluster, or of an embedded server.

async with open_client("redis+sentinel://s1:26379,s2:26379/mymaster") as redis:
    emitter = EventEmitter(redis)
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from rapids._storage.client.connections import check_client
from rapids.embedded import is_embedded_url, open_embedded
from rapids.exceptions import RedisUnavailableError, reason

__all__ = ["RedisClient", "check_client", "check_url", "disconnect", "masked", "open_client", "reach"]

Made = TypeVar("Made")

RedisClient: TypeAlias = Redis | RedisCluster
"""A client that Rapids works with: for one server, for Sentinel's master, or for a Cluster."""

_PLAIN = ("redis://", "rediss://", "unix://")
_SENTINEL = ("redis+sentinel://", "rediss+sentinel://")
_CLUSTER = ("redis+cluster://", "rediss+cluster://")
_ALLOWED = (
    "redis://host:port/db, rediss://host:port/db, unix:///path/to.sock, "
    "redis+sentinel://host:port,host:port/service, redis+cluster://host:port,host:port, "
    "embedded: or embedded:path/to/dir"
)
_unescaped = re.compile(r"[\w+]+://[^/?#@:]*:(?!\d*[/?#])[^/?#@]*[/?#].*@")
"""An address whose password has a character that ends it."""
_no_port = re.compile(r"[\w+]+://[^/?#:@\[\]]*:(?!\d*(?:[,/?#]|\Z))[^@]*\Z")
"""An address without a password, in which a text follows the colon: perhaps the password, and the host is missing."""
_credential = re.compile(r"pass|pwd|token|secret|auth|cred", re.IGNORECASE)
"""In the name of an option whose value may be one."""
_SENTINEL_PORT = 26379
_PORT = 6379
_LAST_PORT = 65_535
_CONNECT_TIMEOUT = 5.0
_ANSWER_TIMEOUT = 5.0


def check_url(option: str, url: str) -> str:
    """The address, if Rapids supports it. Raises `ValueError` with the option, the address and what is allowed."""
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise TypeError(f"{option} must be an address such as redis://localhost:6379/0, not {url!r}")
    if _unescaped.match(url):  # what the parser says of it would quote a part of the password
        raise ValueError(f"{option}: '/', '?' and '#' in a password are %2F, %3F and %23, in {masked(url)!r}")
    if _no_port.match(url):
        raise ValueError(
            f"{option}: {masked(url)!r} cannot be used: it must be host:port, with a number, and a password is before "
            f"the host; it must be one of {_ALLOWED}"
        )
    scheme = url.lower()
    if is_embedded_url(url):
        open_embedded(url)  # makes the object and starts nothing; refuses a malformed address
    elif scheme.startswith(_SENTINEL):
        address = _sentinel_parts(option, url)
        sentinel, client = _checked(option, url, lambda: _sentinel_clients(*address))
        for one in (*sentinel.sentinels, client):  # a wrong option shows when a connection is made, not connected yet
            _checked(option, url, one.connection_pool.make_connection)
    elif scheme.startswith(_CLUSTER):
        nodes, options = _cluster_parts(option, url)
        _checked(option, url, lambda: _cluster(nodes, options))
    elif scheme.startswith(_PLAIN):
        _checked(option, url, lambda: _from_url(url).connection_pool.make_connection())  # it does not connect yet
    else:
        raise ValueError(f"{option} must be one of {_ALLOWED}, not {masked(url)!r}")
    return url


def masked(url: str) -> str:
    """The address as it may be printed: without its password. A name without one may be the password itself."""
    hidden = re.sub(r"\A([\w+.-]*:?/{1,2})[^/?#:]+:?@", r"\1***@", url)
    hidden = re.sub(r"\A((?>[\w+.-]*:?/{1,2}|)[^/@?#:]*):.*@", r"\1:***@", hidden, flags=re.DOTALL)
    if _no_port.match(hidden):
        hidden = re.sub(r"\A([\w+]+://[^:]*):[^/?#]*", r"\1:***", hidden)
    return re.sub(
        r"([?&;#])([^=&;#]*)=([^&#]*)",
        lambda match: f"{match[1]}{match[2]}=***" if _credential.search(unquote(match[2])) else match[0],
        hidden,
    )


@asynccontextmanager
async def open_client(url: str) -> AsyncGenerator[RedisClient]:
    """A client for an address, closed at the end of the block. It connects when it is first used.

    - `redis://[user:password@]host:port/db`, `rediss://` with TLS, `unix:///path/to.sock`;
    - `redis+sentinel://[user:password@]host:port,host:port/service[/db]`: the master of that name, found through the
      Sentinels; `sentinel_username` and `sentinel_password` in the query are for them;
    - `redis+cluster://[user:password@]host:port,host:port`: some nodes of a Cluster, which give the other nodes;
      `rediss+sentinel://` and `rediss+cluster://` with TLS;
    - `embedded:` or `embedded:path/to/dir`: a private server that runs as long as the block.

    Other options are those of redis-py's `from_url`, such as `?socket_timeout=10&ssl_ca_certs=ca.pem`. Unless the
    address says otherwise, connecting may take 5 seconds, and so may each answer. redis-py itself does not retry,
    since Rapids retries during outages by its own rules.

    Raises `ValueError` for an address that is none of these.
    """
    check_url("url", url)
    scheme = url.lower()
    if is_embedded_url(url):
        async with open_embedded(url) as server, _closing(_from_url(server.url)) as client:
            yield client
    elif scheme.startswith(_SENTINEL):
        sentinel, client = _sentinel_clients(*_sentinel_parts("url", url))
        try:
            async with _closing(client):
                yield client
        finally:
            for node in sentinel.sentinels:
                await node.aclose()
    else:
        is_cluster = scheme.startswith(_CLUSTER)
        async with _closing(_cluster(*_cluster_parts("url", url)) if is_cluster else _from_url(url)) as client:
            yield client


async def reach(client: RedisClient, where: str, *, timeout: float = 5.0) -> None:
    """Return when the client's server, or a node of its Cluster, has answered.

    Raises `RedisUnavailableError` with one line that names `where`, an address, after `timeout` seconds, or if the
    server answers with an error.
    """
    try:
        async with asyncio.timeout(timeout):
            if isinstance(client, RedisCluster):
                await client.initialize()
            else:
                await client.ping()  # pyright: ignore[reportUnknownMemberType] - redis-py leaves its options untyped
    except TimeoutError as error:
        why = str(error) or f"no answer within {timeout:g} s"
    except (RedisError, RedisClusterException, OSError) as error:
        why = reason(error)
    else:
        return
    # Without the cause, so that servers print one short line and no internals of redis-py.
    raise RedisUnavailableError(f"cannot reach Redis at {masked(where)}: {why}") from None


async def disconnect(client: RedisClient) -> None:
    """Close the unused connections of a client, which belong to this event loop. The client connects again when used.

    A Cluster's client closes all its connections, also those in use.
    """
    if isinstance(client, RedisCluster):
        # The client may have asked its start-up nodes for the other nodes over separate connections.
        for node in [*client.get_nodes(), *client.nodes_manager.startup_nodes.values()]:
            await node.disconnect()
    else:
        await client.connection_pool.disconnect(inuse_connections=False)


def _checked(option: str, url: str, make: Callable[[], Made]) -> Made:
    try:
        return make()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{option}: {masked(url)!r} cannot be used: {error}; it must be one of {_ALLOWED}") from error


def _options() -> dict[str, Any]:
    """The options of our clients, unless the address says otherwise.

    redis-py itself would retry for seconds. Rapids retries during outages by its own rules, and at start-up it should
    report the reason at once. Before version 8, redis-py waits forever for an answer that never comes.
    """
    return {
        "socket_connect_timeout": _CONNECT_TIMEOUT,
        "socket_timeout": _ANSWER_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
    }


def _from_url(url: str) -> Redis:
    return Redis.from_url(url, **_options())  # pyright: ignore[reportUnknownMemberType]


@asynccontextmanager
async def _closing(client: RedisClient) -> AsyncGenerator[RedisClient]:
    try:
        yield client
    finally:
        await client.aclose()


def _cluster_parts(option: str, url: str) -> tuple[list[tuple[str, int]], dict[str, Any]]:
    nodes, path, options = _parts(option, url, _PORT)
    if path not in ("", "0") or options.pop("db", 0) != 0:
        raise ValueError(
            f"{option} must be redis+cluster://[user:password@]host:port,host:port, without a database, "
            f"not {masked(url)!r}"
        )
    return nodes, options


def _cluster(nodes: Sequence[tuple[str, int]], options: Mapping[str, Any]) -> RedisCluster:
    # A slot without a node does not matter to a client whose keys are in other slots.
    own: dict[str, Any] = {**_options(), "require_full_coverage": False}
    return RedisCluster(startup_nodes=[ClusterNode(host, port) for host, port in nodes], **own | {**options})


def _sentinel_clients(
    nodes: Sequence[tuple[str, int]], service: str, options: Mapping[str, Any]
) -> tuple[Sentinel, Redis]:
    """A client of the Sentinels, and a client of the master they name."""
    sentinel_options = _options() | {
        name.removeprefix("sentinel_"): value for name, value in options.items() if name.startswith("sentinel_")
    }
    own = _options() | {name: value for name, value in options.items() if not name.startswith("sentinel_")}
    if own.get("ssl"):
        sentinel_options = {name: value for name, value in own.items() if name.startswith("ssl")} | sentinel_options
    sentinel = Sentinel(nodes, sentinel_kwargs=sentinel_options)
    return sentinel, sentinel.master_for(service, **own)  # pyright: ignore[reportUnknownMemberType]


def _sentinel_parts(option: str, url: str) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    nodes, path, options = _parts(option, url, _SENTINEL_PORT)
    service, _, database = path.partition("/")
    if not service or (database and not database.isdigit()):
        raise ValueError(
            f"{option} must be redis+sentinel://[user:password@]host:port,host:port/service[/db], not {masked(url)!r}"
        )
    return nodes, unquote(service), options | ({"db": int(database)} if database else {})


def _parts(option: str, url: str, default_port: int) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """The nodes in an address, its path, and its options as redis-py parses them."""
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    if not hosts:
        raise ValueError(f"{option} must be one of {_ALLOWED}, not {masked(url)!r}")
    # redis-py parses the rest like an address with one host, since it knows the options and their types.
    alone = f"{parts.scheme.partition('+')[0]}://{credentials}@host/?{parts.query}"
    options: dict[str, Any] = {**_checked(option, url, lambda: parse_url(alone))}
    options.pop("host")
    if options.get("connection_class") is SSLConnection:
        # Clients for many servers have their own connection class. This option selects the class with TLS.
        del options["connection_class"]
        options["ssl"] = True
    nodes = [_host_and_port(option, url, host, default_port) for host in hosts.split(",")]
    return nodes, parts.path.strip("/"), options


def _host_and_port(option: str, url: str, node: str, default_port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(?::(\d{1,5}))?", node)
    if found is None or not 0 < (port := int(found[2] or default_port)) <= _LAST_PORT:
        raise ValueError(f"{option}: {node!r} must be host:port, in {masked(url)!r}")
    return found[1].strip("[]"), port
