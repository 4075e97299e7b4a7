"""`make figures`: count modules, names, lines and typed symbols, and follow an event through the modules."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator

from redis.asyncio import Redis

from rapids.embedded import embedded_server
from tests.house import flow, source
from tests.house.limits import LIMITS
from tests.house.symbols import exported_symbols

__all__ = ["main"]


async def passed() -> AsyncIterator[tuple[str, object]]:
    async with embedded_server() as server, Redis.from_url(server.url) as redis:
        delivery = await flow.delivery(redis)
        yield "modules an entry passes, read -> handler -> ack", len(delivery.passed)
        yield "changes of module on the way of an entry", delivery.changes
        await redis.flushall()
        yield "modules an emit passes", len((await flow.emit(redis)).passed)
        await redis.flushall()
        yield "modules of a bulk replay", len((await flow.bulk_replay(redis)).passed)


def counted() -> list[tuple[str, object]]:
    modules = source.modules()
    shares = {package: source.helpers_with_one_caller(package) for package in source.PACKAGES}
    names = Counter(module.base_name for module in modules if not module.is_package)
    return [
        *((f"private helpers with one caller: {name}", f"{share.percent:.1f} %") for name, share in shares.items()),
        ("base names of modules used twice or more", sum(count > 1 for count in names.values())),
        *((f"against the rule: {limit.rule}", len(limit.find())) for limit in LIMITS.values()),
        ("modules", len(modules)),
        ("longest module, lines", max(module.lines for module in modules)),
        ("lines of Python", sum(module.lines for module in modules)),
        ("lines of Lua", sum(len(path.read_text(encoding="utf-8").splitlines()) for path in source.scripts())),
    ]


def typed(package: str) -> tuple[str, object]:
    symbols = exported_symbols(package)
    return f"exported symbols of {package}, with a complete type", f"{symbols.count:,}, {symbols.complete:.1f} %"


async def main() -> None:
    logging.getLogger("rapids").setLevel(logging.CRITICAL)
    async for name, value in passed():
        print(f"{value!s:>14}  {name}")
    for name, value in [*counted(), *map(typed, source.PACKAGES)]:
        print(f"{value!s:>14}  {name}")


if __name__ == "__main__":
    asyncio.run(main())
