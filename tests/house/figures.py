"""`make figures`: count modules, names, lines and typed symbols, and follow an event through the modules."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from redis.asyncio import Redis

from rapids.embedded import embedded_server
from tests.house import flow, source
from tests.house.limits import LIMITS

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
    """Exported symbols by pyright, and how many of them have a complete type."""
    executable = Path(sys.executable)
    path = os.pathsep.join((str(executable.parent), os.environ.get("PATH", os.defpath)))
    command = [shutil.which("pyright", path=path) or "pyright", "--verifytypes", package]
    ran = subprocess.run(
        [*command, "--ignoreexternal", "--outputjson"],
        env={**os.environ, "PATH": path},
        cwd=source.ROOT,
        capture_output=True,
        text=True,
    )
    found = json.loads(ran.stdout)["typeCompleteness"]
    symbols = sum(found["exportedSymbolCounts"].values())
    return f"typed symbols of {package}, complete", f"{symbols:,}, {100 * found['completenessScore']:.1f} %"


async def main() -> None:
    logging.getLogger("rapids").setLevel(logging.CRITICAL)
    async for name, value in passed():
        print(f"{value!s:>14}  {name}")
    for name, value in [*counted(), *map(typed, source.PACKAGES)]:
        print(f"{value!s:>14}  {name}")


if __name__ == "__main__":
    asyncio.run(main())
