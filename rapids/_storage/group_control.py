"""What a group was told from outside, to pause or to resume; and how far it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, Reply, call, checked, run
from rapids._storage.groups import consumers
from rapids._storage.keys import Source, audit_log

__all__ = ["Paused", "Standing", "look", "pause", "paused", "resume", "standing"]

FIELDS = ("actor", "reason", "since_ms")


class Paused(NamedTuple):
    """A pause as it is stored."""

    actor: str
    reason: str
    since_ms: int
    """Milliseconds, by the server's clock; 0 where whoever paused it did not say."""

    @property
    def told(self) -> str:
        """By whom, and why, for one line; both are what somebody typed."""
        by = f"by {self.actor!r}" if self.actor else "by somebody"
        return f"{by}: {self.reason!r}" if self.reason else by


async def pause(commands: Commands, source: Source, actor: str, reason: str) -> Paused | None:
    """Pause the group; the pause that holds, which may be an earlier one. None where there is no such group.

    Raises `ResponseError`, "no such key", where there is no such stream.
    """
    call_ = ((source.stream, source.paused, audit_log(source.stream)), (source.group, actor, reason))
    return _paused(checked((await run(commands, scripts.load("pause"), [call_]))[0]))


async def resume(commands: Commands, source: Source, actor: str, reason: str) -> Paused | None:
    """End the group's pause; the one that ended, or None where there was none."""
    call_ = ((source.paused, audit_log(source.stream)), (source.group, actor, reason))
    return _paused(checked((await run(commands, scripts.load("resume"), [call_]))[0]))


async def paused(commands: Commands, source: Source) -> Paused | None:
    """The group's pause, or None while it is not paused."""
    return _paused(await call(commands, "HMGET", source.paused, *FIELDS))


async def look(commands: Commands, sources: Sequence[Source]) -> tuple[Paused | None, list[Reply]]:
    """The group's pause, and for each source its consumers, in one round trip. The group is that of the first."""
    held, *lists = await commands.send([("HMGET", sources[0].paused, *FIELDS), *map(consumers, sources)])
    return _paused(checked(held)), [checked(rows) for rows in lists]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a group is with what there is to read. Counts are entries, of the stream and the replay stream."""

    last_id: str
    last_delivered_id: str
    has_more: bool
    """Whether anything is in the stream that was not delivered to the group."""
    pending: int
    waiting: int
    paused: Paused | None


async def standing(commands: Commands, sources: Sequence[Source]) -> Standing | None:
    """How far the group is, in one round trip. None where a stream or its group is gone. Raises `RedisError`."""
    main, replay = sources
    keys = (main.stream, replay.stream, main.due, replay.due, main.paused)
    if not (found := checked((await run(commands, scripts.load("standing"), [(keys, (main.group,))]))[0])):
        return None
    last_id, delivered, more, pending, waiting, *paused_ = found
    return Standing(as_text(last_id), as_text(delivered), more == 1, pending, waiting, _paused(paused_))


def _paused(reply: Reply) -> Paused | None:
    """Whoever wrote it, an operator with a command line perhaps: any of the fields will do."""
    if not reply or all(field is None for field in reply):
        return None
    actor, reason, since_ms = (as_text(field or b"") for field in reply)
    return Paused(actor, reason, int(since_ms) if since_ms.isascii() and since_ms.isdigit() else 0)


def as_text(raw: bytes | str) -> str:
    """fakeredis, with which users run their fast tests, gives text."""
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw
