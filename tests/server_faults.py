"""What can go wrong with a server, done to it on purpose: each trouble is over when it returns."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from tests.worker.helpers import everywhere, infos

__all__ = ["flush_scripts", "kill_all", "pause", "refuse_writes", "refused_commands"]


async def kill_all(redis: Redis) -> None:
    await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", **everywhere(redis))


async def flush_scripts(redis: Redis) -> None:
    await redis.script_flush()


async def pause(redis: Redis) -> None:
    await redis.execute_command("CLIENT", "PAUSE", 300, "ALL", **everywhere(redis))


async def refuse_writes(redis: Redis) -> None:
    await redis.config_set("maxmemory", "1", **everywhere(redis))
    await asyncio.sleep(0.2)
    await redis.config_set("maxmemory", "0", **everywhere(redis))


async def refused_commands(redis: Redis) -> int:
    """How many commands all servers refused so far, for any reason: Redis 6.2 has no code for an error in a script."""
    return sum(row["count"] for stats in await infos(redis, "errorstats") for row in stats.values())
