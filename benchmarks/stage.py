"""The server of a run, what is put into it before a measurement, and what must be in it after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.asyncio import Redis

from benchmarks.jobs import FIRST, GROUP, KEYS, SAMPLE, STREAM

CHUNK = 10_000
"""Entries one call of the script appends: the server answers no other client during it."""

_COPY = """
local key, count, first = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
for number = first, first + count - 1 do
    local fields = {}
    for at = 6, #ARGV do
        fields[at - 5] = ARGV[at]
    end
    for at = 2, #fields, 2 do
        local value = string.gsub(fields[at], ARGV[3], string.format('%07d', number))
        fields[at] = string.gsub(value, ARGV[4], string.format('C-%03d', number % tonumber(ARGV[5])))
    end
    redis.call('XADD', key, '*', unpack(fields))
end
"""
_EVENT_ID = b"00000000-0000-4000-8000-00000%d" % SAMPLE


class Wrong(Exception):
    """What the server holds is not what a right run leaves."""


class Stage:
    """Everything the harness itself asks of the server."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    @property
    def redis(self) -> Redis:
        """The client, for what is put there by others."""
        return self._redis

    async def clear(self) -> None:
        await self._redis.flushall()

    async def version(self) -> str:
        info = await self._redis.info("server")
        name = info.get("server_name", "redis")
        return f"{name} {info.get('valkey_version') or info['redis_version']}"

    async def take_sample(self) -> list[bytes]:
        """The fields of the one entry in the stream, as a contender wrote them."""
        ((_, fields),) = await self._redis.xrange(STREAM)
        return [part for name, value in fields.items() for part in (name, _EVENT_ID if name == b"id" else value)]

    async def fill(self, sample: Sequence[bytes], count: int) -> None:
        """A stream of `count` copies of the sample with numbers of their own, and a group at its beginning."""
        await self.clear()
        copy = self._redis.register_script(_COPY)
        for first in range(0, count, CHUNK):
            size = min(CHUNK, count - first)
            arguments: list[Any] = [size, FIRST + first, SAMPLE, f"C%-{SAMPLE % KEYS}", KEYS, *sample]
            await copy(keys=[STREAM], args=arguments)
        await self.make_group()
        await self.expect_length(count)

    async def make_group(self) -> None:
        await self._redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)

    async def expect_length(self, count: int) -> None:
        """Raises `Wrong` unless just so many entries are in the stream."""
        if (length := await self._redis.xlen(STREAM)) != count:
            raise Wrong(f"{length:,} entries in the stream, and {count:,} expected")

    async def expect_consumed(self) -> None:
        """Raises `Wrong` unless the group was given everything and has acknowledged it."""
        (group,) = await self._redis.xinfo_groups(STREAM)
        last = (await self._redis.xinfo_stream(STREAM))["last-generated-id"]
        if group["pending"] or group["last-delivered-id"] != last:
            raise Wrong(
                f"{group['pending']} entries are pending, read up to {group['last-delivered-id']!r} of {last!r}"
            )
