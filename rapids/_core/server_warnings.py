"""Server warnings at start-up: server settings and states that endanger what Rapids promises."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from rapids._storage.client.connections import Client, Commands, SharedPool
from rapids._storage.server_info import ServerFacts, look_at_server, socket_timeout_of

__all__ = ["ServerWarnings", "check_server", "check_timeout"]

logger = logging.getLogger("rapids.server_warnings")

MIN_VERSION = (6, 2)
"""The oldest server version that Rapids works with."""

NEARLY_FULL = 0.85
"""A fraction of `maxmemory`."""

CLOCK_TOLERANCE = 5.0
"""The largest allowed difference between two clocks, in seconds."""

UNSAVED_TOLERANCE = 7_200.0
"""The longest time since the last snapshot, in seconds, if there is no append-only file."""

USUAL_TIMEOUT = 5.0
"""The default `socket_timeout` of redis-py and of Rapids' own clients: the user did not set it."""


@dataclass(frozen=True, slots=True)
class Danger:
    """Something that endangers a promise, and what to do about it."""

    kind: str
    message: str


class ServerWarnings:
    """Checks servers, and logs a warning for each danger to what Rapids promises.

    Each danger is logged once for each server, even if the server is checked often. After a restart, a server counts as
    a new one. Routers that share one object log it once. A warning stops nothing and makes nothing fail.
    """

    def __init__(self) -> None:
        self._warned: set[tuple[str, str]] = set()

    async def check(self, redis: Redis | RedisCluster, stream: str) -> None:
        """Check the server (on a Cluster, the node that has this stream) in one round trip, and log warnings.

        Errors of Redis are not raised.
        """
        await check_server(self, SharedPool(redis, stream), redis, {"stream": stream})

    def is_new(self, server: str, danger: str) -> bool:
        """Whether this danger was not logged before for this run of the server. Afterwards it counts as logged."""
        is_new = (server, danger) not in self._warned
        self._warned.add((server, danger))
        return is_new


async def check_server(
    warnings: ServerWarnings, commands: Commands, client: Client, context: Mapping[str, object]
) -> str:
    """Check the server over these connections of the client, and log warnings. Returns the run id of the server.

    `context`: for the log.
    """
    try:
        facts = await look_at_server(commands)
    except (RedisError, OSError):  # the next command fails too, and reports it
        return ""
    _warn(warnings, facts.run_id, dangers(facts, knows_a_cluster=isinstance(client, RedisCluster)), context)
    return facts.run_id


def check_timeout(
    warnings: ServerWarnings, run_id: str, client: Client, block_ms: int, context: Mapping[str, object]
) -> None:
    """Warn about a client whose time limit is shorter than a read may wait."""
    _warn(warnings, run_id, timeout_dangers(socket_timeout_of(client), block_ms), context)


def _warn(warnings: ServerWarnings, run_id: str, found: Iterator[Danger], context: Mapping[str, object]) -> None:
    for danger in found:
        if warnings.is_new(run_id, danger.kind):
            logger.warning("%s", danger.message, extra={**context, "danger": danger.kind})


def dangers(facts: ServerFacts, *, knows_a_cluster: bool = False) -> Iterator[Danger]:
    """The dangers of a server, which was asked through a Cluster's client or through a client for one server."""
    if facts.is_cluster_node and not knows_a_cluster:
        yield Danger(
            "cluster",
            "this server is a node of a Cluster, and the client uses only this node: it cannot reach what moves to "
            "another node, by a failover or with its slot; use redis+cluster:// or RedisCluster",
        )
    if facts.version is not None and facts.version < MIN_VERSION:
        version = ".".join(map(str, facts.version))
        yield Danger("version", f"Redis {version} is too old: Rapids needs 6.2 or newer, or Valkey; upgrade the server")
    if facts.policy not in (None, "noeviction"):
        what = "keys with a TTL, such as consumers' names" if str(facts.policy).startswith("volatile") else "any key"
        yield Danger(
            "eviction",
            f"maxmemory-policy is {facts.policy}: once memory is full, Redis deletes {what}, "
            f"{'' if what != 'any key' else 'also streams with unhandled events, '}without an error; "
            "set it to noeviction",
        )
    if facts.maxmemory and facts.used_memory is not None and facts.used_memory >= NEARLY_FULL * facts.maxmemory:
        used = 100 * facts.used_memory / facts.maxmemory
        yield Danger(
            "memory",
            f"{used:.0f} % of maxmemory ({facts.maxmemory / 2**20:.0f} MiB) is used: once it is full, emits are "
            "refused; give Redis more memory, or streams a smaller maxlen",
        )
    # The server does not say whether snapshots are on; the default is one an hour after a change.
    unsaved = facts.unsaved_for or 0.0
    if unsaved > UNSAVED_TOLERANCE and facts.is_append_only is False and not facts.is_embedded:
        yield Danger(
            "persistence",
            f"Redis has no append-only file, and has made no snapshot for {unsaved / 3_600:.0f} h: a "
            "restart loses every event since then; set appendonly yes (appendfsync everysec)",
        )
    if facts.clock_ahead is not None and abs(facts.clock_ahead) > CLOCK_TOLERANCE:
        how = f"{abs(facts.clock_ahead):.0f} s {'ahead of' if facts.clock_ahead > 0 else 'behind'}"
        yield Danger(
            "clock",
            f"Redis' clock is {how} this machine's: time stamps of events and failed_at of letters are by this "
            "machine's clock, entry ids, due times and pauses by Redis' clock (a failover to another clock moves due "
            "times and leases); synchronise both by NTP",
        )


def timeout_dangers(socket_timeout: float | None, block_ms: int) -> Iterator[Danger]:
    """The dangers of a client's time limit (seconds), which may not do what its user expects."""
    if socket_timeout is None or socket_timeout == USUAL_TIMEOUT or socket_timeout * 1000 >= block_ms:
        return
    yield Danger(
        f"socket_timeout {block_ms}",
        f"socket_timeout ({socket_timeout:g} s) of the Redis client is below block_ms ({block_ms}): the router's reads "
        "have a connection and a time limit of their own; but a blocking call of yours on this client would be "
        "interrupted, and emits have this time limit too; give the client a socket_timeout above block_ms, or none",
    )
