"""The parts of a server's state that can endanger what Rapids promises."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import RedisCluster

from rapids._storage.client.connections import Client, Commands

__all__ = ["ServerFacts", "look_at_server", "socket_timeout_of"]

EMBEDDED_ZONE = "rapids-embedded"
"""The availability zone of embedded servers. It identifies them: they keep no data on purpose."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server reports about itself. What it does not report is None."""

    run_id: str = ""
    version: tuple[int, ...] | None = None
    """The Redis version, or the Redis version that a Valkey server is compatible with."""
    policy: str | None = None
    used_memory: int | None = None
    """Bytes."""
    maxmemory: int | None = None
    """Bytes; 0 means no limit."""
    is_append_only: bool | None = None
    unsaved_for: float | None = None
    """Seconds since the last snapshot or the start, if anything has changed since then."""
    clock_ahead: float | None = None
    """The least number of seconds by which its clock is ahead of this process's clock; negative if it is behind."""
    is_embedded: bool = False
    is_cluster_node: bool = False


async def look_at_server(commands: Commands) -> ServerFacts:
    """What the server reports about itself, in one round trip. Raises `RedisError` if it does not answer at all.

    CONFIG is not used: managed services refuse it, and a user who may read it can read passwords.
    """
    asked_at = time.time()
    sections = [("INFO", "server"), ("INFO", "memory"), ("INFO", "persistence"), ("INFO", "cluster")]
    *infos, clock = await commands.send([*sections, ("TIME",)])
    answered_at = time.time()
    texts = [reply.decode(errors="replace") for reply in infos if isinstance(reply, bytes)]  # others are refusals
    lines = [line.partition(":") for text in texts for line in text.splitlines()]
    info = {name: value for name, colon, value in lines if colon}
    now = None if isinstance(clock, Exception) else int(clock[0]) + int(clock[1]) / 1e6
    saved, unsaved = _number(info, "rdb_last_save_time"), _number(info, "rdb_changes_since_last_save")
    return ServerFacts(
        run_id=info.get("run_id", ""),
        version=_version(info.get("redis_version", "")),
        policy=info.get("maxmemory_policy"),
        used_memory=_number(info, "used_memory"),
        maxmemory=_number(info, "maxmemory"),
        is_append_only=None if "aof_enabled" not in info else info["aof_enabled"] == "1",
        unsaved_for=None if now is None or saved is None or not unsaved else now - saved,
        clock_ahead=None if now is None else max(now - answered_at, min(now - asked_at, 0.0)),
        is_cluster_node=info.get("cluster_enabled") == "1",
        is_embedded=info.get("availability_zone") == EMBEDDED_ZONE,
    )


def socket_timeout_of(client: Client) -> float | None:
    """The seconds that an answer may take on a client's own connections; None for no limit."""
    is_cluster = isinstance(client, RedisCluster)
    options = client.get_connection_kwargs() if is_cluster else client.connection_pool.connection_kwargs
    timeout = options.get("socket_timeout")
    return timeout if isinstance(timeout, int | float) else None


def _number(info: Mapping[str, str], name: str) -> int | None:
    value = info.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else None


def _version(text: str) -> tuple[int, ...] | None:
    parts = text.split(".")
    return tuple(map(int, parts)) if all(part.isascii() and part.isdigit() for part in parts) else None
