"""The pause of a group, and how far the group has read its streams."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from rapids._core.entry_id import moment_or_last
from rapids._storage import scripts
from rapids._storage.client.connections import Commands, Reply, call, checked, run
from rapids._storage.groups import PendingCounts
from rapids._storage.keys import Source, audit_log
from rapids._storage.streams import as_text

__all__ = ["GroupProgress", "Look", "Paused", "SourceLook", "look", "pause", "pause_in", "paused", "progress", "resume"]

FIELDS = ("actor", "reason", "since_ms")


class Paused(NamedTuple):
    """A pause as it is stored."""

    actor: str
    reason: str
    since_ms: int
    """Milliseconds, by the server's clock; 0 if no time was stored with the pause."""

    @property
    def since(self) -> datetime:
        """Somebody who wrote the pause by hand may have written any number. Time stamps end with the year 9999."""
        return moment_or_last(self.since_ms)

    @property
    def description(self) -> str:
        """Who paused it and why, in one line. Users typed both texts."""
        by = f"by {self.actor!r}" if self.actor else "by somebody"
        return f"{by}: {self.reason!r}" if self.reason else by


async def pause(commands: Commands, source: Source, actor: str, reason: str) -> Paused | None:
    """Pause the group. Returns the current pause, which may be an earlier one; None if there is no such group.

    Raises `ResponseError`, "no such key", if there is no such stream.
    """
    call_ = ((source.stream, source.paused, audit_log(source.stream)), (source.group, actor, reason))
    return pause_in(checked((await run(commands, scripts.load("pause"), [call_]))[0]))


async def resume(commands: Commands, source: Source, actor: str, reason: str) -> Paused | None:
    """End the group's pause. Returns the pause that ended, or None if there was none."""
    call_ = ((source.paused, audit_log(source.stream)), (source.group, actor, reason))
    return pause_in(checked((await run(commands, scripts.load("resume"), [call_]))[0]))


async def paused(commands: Commands, source: Source) -> Paused | None:
    """The group's pause, or None if it is not paused."""
    return pause_in(await call(commands, "HMGET", source.paused, *FIELDS))


class SourceLook(NamedTuple):
    """What a worker sees of a source."""

    pending: PendingCounts
    next_due_ms: int | None
    """Milliseconds until something is to be taken: 0 also while the entries of a lost group are restored."""


class Look(NamedTuple):
    """What a worker sees of its group."""

    paused: Paused | None
    now_ms: int
    """The server's time."""
    sources: Sequence[SourceLook]


async def look(commands: Commands, sources: Sequence[Source]) -> Look:
    """The group's pause, and each source, in one command. The group is that of the first source.

    Raises `RedisError`, also if a source has no such group.
    """
    keys = [key for source in sources for key in (source.stream, source.due, source.restoring)]
    call_ = ((sources[0].paused, *keys), (sources[0].group,))
    paused_, now_ms, *found = checked((await run(commands, scripts.load("look"), [call_]))[0])
    seen = [
        SourceLook(PendingCounts.of(checked(pending)), None if wait < 0 else wait)
        for pending, wait in zip(found[::2], found[1::2], strict=True)
    ]
    return Look(pause_in(checked(paused_)), now_ms, seen)


@dataclass(frozen=True, slots=True)
class GroupProgress:
    """How far a group has read its streams. Counts are in entries, of the stream and the replay stream together."""

    last_id: str
    last_delivered_id: str
    has_more: bool
    """Whether the streams have entries that were not delivered to the group."""
    pending: int
    waiting: int
    paused: Paused | None


async def progress(commands: Commands, sources: Sequence[Source]) -> GroupProgress | None:
    """How far the group is, in one round trip. None if a stream or its group is gone. Raises `RedisError`."""
    main, replay = sources
    keys = (main.stream, replay.stream, main.due, replay.due, main.paused)
    if not (found := checked((await run(commands, scripts.load("group_progress"), [(keys, (main.group,))]))[0])):
        return None
    last_id, delivered, more, pending, waiting, *paused_ = found
    return GroupProgress(as_text(last_id), as_text(delivered), more == 1, pending, waiting, pause_in(paused_))


def pause_in(reply: Reply) -> Paused | None:
    """The pause in a reply. An operator may have written it by hand, so one field is enough."""
    if not reply or all(field is None for field in reply):
        return None
    actor, reason, since_ms = (as_text(field or b"") for field in reply)
    return Paused(actor, reason, int(since_ms) if since_ms.isascii() and since_ms.isdigit() else 0)
