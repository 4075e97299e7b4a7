"""What a process and its server use, what it may grow to, and what may be left when all has stopped."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

MIB = 1024 * 1024

RSS_SLACK = 12 * MIB
SERVER_SLACK = 3 * MIB
GROWTH = 1.1
"""What memory may grow by over a whole soak, besides the slack: changes of an allocator, less than an event each."""

TASK_SLACK = 8
FD_SLACK = 4
"""Emits and looks under way at the moment of the measurement, and connections for them."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A kind of key: how many of them there may be, and how long each may be. With a TTL, or until the entry is
    settled, or for good."""

    pattern: str
    most: int
    longest: int
    expires: bool = False
    of_pending: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What is used at one moment."""

    rss: int
    fds: int
    tasks: int
    server_memory: int
    connections: int
    keys: Mapping[str, int]
    """Kind of key to how many there are."""
    lengths: Mapping[str, int]
    """Kind of key to the length of the longest."""
    unbounded: Sequence[str]
    """Keys of no known kind, or without the TTL they should have."""


def rss() -> int:
    """This process's memory in bytes."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return int(subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True).stdout) * 1024


def open_fds() -> int:
    gc.collect()
    return len(os.listdir("/dev/fd"))


async def measure(client: Redis, bounds: Sequence[Bound]) -> Usage:
    keys, lengths, unbounded = Counter[str](), Counter[str](), list[str]()
    async for raw in client.scan_iter(count=1000):
        key = raw.decode()
        bound = next((bound for bound in bounds if re.fullmatch(bound.pattern, key)), None)
        if bound is None:
            unbounded.append(f"{key} is of no known kind")
            continue
        keys[bound.pattern] += 1
        lengths[bound.pattern] = max(lengths[bound.pattern], await _length(client, key))
        if bound.expires and await client.pttl(key) == -1:
            unbounded.append(f"{key} never expires")
    return Usage(
        rss=rss(),
        fds=open_fds(),
        tasks=len(asyncio.all_tasks()),
        server_memory=(await client.info("memory"))["used_memory"],
        connections=len(await client.client_list()),
        keys=keys,
        lengths=lengths,
        unbounded=unbounded,
    )


async def _length(client: Redis, key: str) -> int:
    """In entries, members or fields."""
    kind = (await client.type(key)).decode()
    ask = {"stream": client.xlen, "zset": client.zcard, "hash": client.hlen}.get(kind)
    return 1 if ask is None else await ask(key)


def growth(start: Usage, end: Usage, bounds: Sequence[Bound]) -> Iterable[str]:
    """What grew that should not."""
    if end.rss > start.rss * GROWTH + RSS_SLACK:
        yield f"the process grew from {start.rss / MIB:.1f} to {end.rss / MIB:.1f} MiB"
    if end.server_memory > start.server_memory * GROWTH + SERVER_SLACK:
        yield f"the server grew from {start.server_memory / MIB:.1f} to {end.server_memory / MIB:.1f} MiB"
    if end.tasks > start.tasks + TASK_SLACK:
        yield f"tasks grew from {start.tasks} to {end.tasks}"
    for name in ("fds", "connections"):
        if getattr(end, name) > getattr(start, name) + FD_SLACK:
            yield f"{name} grew from {getattr(start, name)} to {getattr(end, name)}"
    for bound in bounds:
        if end.keys.get(bound.pattern, 0) > bound.most:
            yield f"{end.keys.get(bound.pattern, 0)} keys {bound.pattern}, where {bound.most} is the bound"
        if end.lengths.get(bound.pattern, 0) > bound.longest:
            yield f"{bound.pattern} is {end.lengths.get(bound.pattern, 0)} long, where {bound.longest} is the bound"
    yield from end.unbounded


def left_behind(before_fds: int, after: Usage, bounds: Sequence[Bound]) -> Iterable[str]:
    """What is left after all was settled and stopped. Measured with one client in one task."""
    if after.tasks > 1:
        yield f"{after.tasks - 1} tasks are left"
    if after.connections > 1:
        yield f"{after.connections - 1} connections are left"
    if after.fds > before_fds + 1:
        yield f"{after.fds - 1 - before_fds} file descriptors are left"
    for bound in bounds:
        if bound.of_pending and after.keys.get(bound.pattern, 0):
            yield f"{bound.pattern} is left though its entry is settled, or its process is gone"
    yield from after.unbounded


def table(columns: Mapping[str, Usage], bounds: Sequence[Bound]) -> str:
    usages = columns.values()
    rows = [
        ("", *columns),
        ("process memory, MiB", *(f"{usage.rss / MIB:.1f}" for usage in usages)),
        ("server memory, MiB", *(f"{usage.server_memory / MIB:.1f}" for usage in usages)),
        ("file descriptors", *(str(usage.fds) for usage in usages)),
        ("asyncio tasks", *(str(usage.tasks) for usage in usages)),
        ("connections", *(str(usage.connections) for usage in usages)),
        *(
            (
                _readable(bound.pattern),
                *(f"{usage.keys[bound.pattern]} x {usage.lengths[bound.pattern]}" for usage in usages),
            )
            for bound in bounds
        ),
    ]
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"{name:<{width}}" + "".join(f"  {value:>10}" for value in values) for name, *values in rows)


def _readable(pattern: str) -> str:
    return pattern.replace("\\", "").replace(".+", "*")
