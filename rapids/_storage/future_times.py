"""Times in the future, which only a server has whose clock was set back: they are corrected."""

import asyncio
from collections.abc import Mapping, Sequence

from rapids._storage import scripts
from rapids._storage.client.connections import Command, Commands, call, checked, run
from rapids._storage.groups import consumers
from rapids._storage.keys import PARKED, Source
from rapids._storage.streams import mapping

__all__ = ["correct", "correct_entries", "shorten"]

PAGE = 1_000
"""How many entries one call of the script looks at: the server does nothing else during that time."""

CHUNK = 200
"""How many entries one call of the script corrects."""

MOMENT = 0.02
"""Seconds after which the server says for no entry of the past that it was idle for 0 ms."""


async def correct(
    commands: Commands, sources: Sequence[Source], *, name_ms: int, handlers_ms: int, exclusive_ms: int
) -> int:
    """Correct the times of a group's pending entries, and of its keys with a TTL. Returns how many entries there were.

    `sources`: the stream and the group's replay stream. `name_ms`, `handlers_ms`, `exclusive_ms`: the usual TTL of the
    keys that hold a consumer's name, its handlers and the place of the active consumer. Raises `RedisError`.
    """
    corrected, main = 0, sources[0]
    longest = {main.exclusive: exclusive_ms}
    for source in sources:
        for row in map(mapping, await call(commands, *consumers(source))):
            if row[b"name"] != PARKED:  # their times mean nothing
                corrected += await correct_entries(commands, source, row[b"name"])
                name = row[b"name"].decode(errors="replace")
                longest |= {main.consumer(name): name_ms, main.handlers(name): handlers_ms}
    await shorten(commands, longest)
    return corrected


async def correct_entries(commands: Commands, source: Source, consumer: bytes) -> int:
    """Correct the times of a consumer's entries, if it got them later than now. Returns how many there were.

    Their lease begins again. If they wait, they are due. Raises `RedisError`.
    """
    keys = (source.stream, source.ledger, source.due)
    found, after, corrected = list[bytes](), b"-", 0
    while after:
        arguments = (source.group, consumer, after, PAGE)
        after, ids = checked((await run(commands, scripts.load("correct_times"), [(keys, arguments)]))[0])
        found += ids
    if found:
        await asyncio.sleep(MOMENT)
    for first in range(0, len(found), CHUNK):
        arguments = (source.group, consumer, b"-", 1, *found[first : first + CHUNK])
        _, ids = checked((await run(commands, scripts.load("correct_times"), [(keys, arguments)]))[0])
        corrected += len(ids)
    return corrected


async def shorten(commands: Commands, longest: Mapping[str, int]) -> None:
    """Let no key live longer than so many milliseconds from now. Raises `RedisError`."""
    replies = await commands.send([("PTTL", key) for key in longest])
    lives = zip(longest.items(), map(checked, replies), strict=True)
    too_long: list[Command] = [("PEXPIRE", key, ttl_ms) for (key, ttl_ms), left in lives if left > ttl_ms]
    if too_long:
        for reply in await commands.send(too_long):
            checked(reply)
