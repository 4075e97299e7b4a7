"""The parts of a server's state that can endanger what Rapids promises."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import RedisCluster
from redis.exceptions import NoPermissionError

from rapids._storage.client.connections import Client, Command, Commands
from rapids._storage.keys import probe

__all__ = ["COMMANDS", "ServerFacts", "command_counts", "look_at_server", "refusals", "socket_timeout_of"]

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


def _harmless(probe: str) -> tuple[Command, ...]:
    """One call of each command that Rapids needs, on a key that does not exist. None of them changes anything."""
    group = "probe"
    return (
        ("XADD", probe, "NOMKSTREAM", "*", "field", "value"),
        ("XLEN", probe),
        ("XRANGE", probe, "-", "+"),
        ("XREVRANGE", probe, "+", "-"),
        ("XDEL", probe, "0-1"),
        ("XTRIM", probe, "MAXLEN", 1),
        ("XREAD", "STREAMS", probe, "0"),
        ("XREADGROUP", "GROUP", group, group, "STREAMS", probe, ">"),
        ("XACK", probe, group, "0-1"),
        ("XCLAIM", probe, group, group, 0, "0-1"),
        ("XPENDING", probe, group),
        ("XGROUP", "CREATE", probe, group, "$"),
        ("XGROUP", "SETID", probe, group, "$"),
        ("XGROUP", "DESTROY", probe, group),
        ("XGROUP", "DELCONSUMER", probe, group, group),
        ("XINFO", "STREAM", probe),
        ("XINFO", "GROUPS", probe),
        ("XINFO", "CONSUMERS", probe, group),
        ("EVAL", "return 1", 1, probe),
        ("SCRIPT", "LOAD", "return 1"),
        ("EXISTS", probe),
        ("DEL", probe),
        ("UNLINK", probe),
        ("PEXPIRE", probe, 1),
        ("PTTL", probe),
        ("GET", probe),
        ("SET", probe, "", "XX"),
        ("HGET", probe, "field"),
        ("HMGET", probe, "field"),
        ("HDEL", probe, "field"),
        ("HEXISTS", probe, "field"),
        ("HKEYS", probe),
        ("HLEN", probe),
        ("ZADD", probe, "XX", 1, "member"),
        ("ZCARD", probe),
        ("ZCOUNT", probe, 0, 1),
        ("ZRANGE", probe, 0, 1),
        ("ZREM", probe, "member"),
        ("ZSCORE", probe, "member"),
        ("LLEN", probe),
        ("LRANGE", probe, 0, 1),
        ("CLIENT", "ID"),
        ("TIME",),
        ("INFO", "server"),
    )


async def refusals(commands: Commands, stream: str, dlq: str) -> list[str]:
    """What Rapids needs and this user is refused: commands, and keys. Everything is tried, and nothing is changed."""
    tried: list[tuple[str, Command]] = []
    for command in _harmless(probe(stream)):
        parts = 2 if command[0] in {"XGROUP", "XINFO", "SCRIPT", "CLIENT"} else 1
        tried.append((" ".join(map(str, command[:parts])).lower(), command))
    for key in (stream, dlq):
        tried.append((f"write {key}", ("XACK", key, "probe", "0-1")))
        tried.append((f"read {key}", ("XRANGE", key, "-", "-", "COUNT", 1)))
    answers = await commands.send([command for _, command in tried])
    refused = [name for (name, _), answer in zip(tried, answers, strict=True) if isinstance(answer, NoPermissionError)]
    return list(dict.fromkeys(refused))


COMMANDS = frozenset(
    (
        *("auth", "hello", "client", "select", "ping", "info", "time", "wait", "scan", "cluster", "asking", "command"),
        *("eval", "evalsha", "script", "xadd", "xlen", "xrange", "xrevrange", "xdel", "xtrim", "xsetid", "xread"),
        *("xreadgroup", "xack", "xclaim", "xpending", "xgroup", "xinfo", "memory", "exists", "del", "unlink"),
        *("pexpire", "pttl", "get", "set", "getrange", "setrange", "hget", "hset", "hmget", "hdel", "hexists"),
        *("hincrby", "hkeys", "hlen", "hscan", "zadd", "zcard", "zcount", "zrange", "zrangebyscore"),
        *("hgetall", "zrem", "zremrangebyrank", "zremrangebyscore", "zscore", "zmscore", "llen", "lrange", "rpush"),
    )
)
"""All that Rapids and its connections run, without subcommands. `docs/running.md` lists them for an ACL user."""


async def command_counts(client: Client) -> list[Counter[str]]:
    """How often each node has run each command since it started, also by scripts: of a Cluster, each master.

    Raises `RedisError`.
    """
    if isinstance(client, RedisCluster):
        found: Any = await client.info("commandstats", target_nodes=RedisCluster.PRIMARIES)  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues] - typed loosely there
        nodes = [found] if any(str(name).startswith("cmdstat_") for name in found) else list(found.values())
    else:
        nodes = [await client.info("commandstats")]  # pyright: ignore[reportUnknownMemberType, reportGeneralTypeIssues] - typed loosely there
    return [
        Counter({name.removeprefix("cmdstat_"): int(stats["calls"]) for name, stats in node.items()})
        for node in cast("list[dict[str, dict[str, Any]]]", nodes)
    ]
