"""What a group was told from outside, to pause or to resume."""

from collections.abc import Sequence
from typing import NamedTuple

from rapids.storage import scripts
from rapids.storage.connection import Commands, Reply, call, checked, run
from rapids.storage.groups import consumers
from rapids.storage.keys import Source

__all__ = ["Paused", "look", "pause", "paused", "resume"]

FIELDS = ("actor", "reason", "since_ms")


class Paused(NamedTuple):
    """A pause as it is stored."""

    actor: str
    reason: str
    since_ms: int
    """Milliseconds, by the server's clock; 0 where whoever paused it did not say."""


async def pause(commands: Commands, source: Source, actor: str, reason: str) -> Paused | None:
    """Pause the group; the pause that holds, which may be an earlier one. None where there is no such group.

    Raises `ResponseError`, "no such key", where there is no such stream.
    """
    call_ = ((source.stream, source.paused), (source.group, actor, reason))
    return _paused(checked((await run(commands, scripts.load("pause"), [call_]))[0]))


async def resume(commands: Commands, source: Source) -> Paused | None:
    """End the group's pause; the one that ended, or None where there was none."""
    return _paused(checked((await run(commands, scripts.load("resume"), [((source.paused,), ())]))[0]))


async def paused(commands: Commands, source: Source) -> Paused | None:
    """The group's pause, or None while it is not paused."""
    return _paused(await call(commands, "HMGET", source.paused, *FIELDS))


async def look(commands: Commands, sources: Sequence[Source]) -> tuple[Paused | None, list[Reply]]:
    """The group's pause, and for each source its consumers, in one round trip. The group is that of the first."""
    held, *lists = await commands.send([("HMGET", sources[0].paused, *FIELDS), *map(consumers, sources)])
    return _paused(checked(held)), [checked(rows) for rows in lists]


def _paused(reply: Reply) -> Paused | None:
    """Whoever wrote it, an operator with a command line perhaps: any of the fields will do."""
    if not reply or all(field is None for field in reply):
        return None
    actor, reason, since_ms = (as_text(field or b"") for field in reply)
    return Paused(actor, reason, int(since_ms) if since_ms.isascii() and since_ms.isdigit() else 0)


def as_text(raw: bytes | str) -> str:
    """fakeredis, with which users run their fast tests, gives text."""
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw
