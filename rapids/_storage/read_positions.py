"""Samples of how far a group has read its stream, and of where the stream begins."""

from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Command, Reply
from rapids._storage.keys import Source

__all__ = ["Sample", "commands", "sample_in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A stream and one of its groups at one moment. Counts are in entries; None if the server does not know."""

    length: int
    added: int | None
    """Entries ever added to the stream."""
    first: str | None
    """The oldest entry's id; None if the stream is empty, or if nobody needs the id since the server counts and the
    sample is whole. The same holds for `last` and `next`: an id is read with its entry, which may be large."""
    last: str | None
    last_assigned: str
    """The last id that the stream ever assigned."""
    delivered: str
    """The id last delivered to the group, even if that entry no longer exists."""
    read: int | None
    """How many of the added entries are at or before that id."""
    lag: int | None
    next: str | None
    """The entry that is delivered next."""
    later: str | None
    """The first entry of the read after the next one; known only if the server does not count."""
    is_whole: bool
    """Whether no entry after the one last delivered can have been trimmed: that one is still there."""
    is_trimmed: bool
    """Whether entries that all groups have settled were recently trimmed."""


def commands(source: Source, *, batch_size: int, with_script: bool, known_first: str = "") -> list[Command]:
    """The commands that take a sample, to be sent before a read. The answer to the last one is the sample.

    `known_first`: the stream's oldest entry by an earlier sample, which need not be read again if it is still there.

    `with_script`: the server may not know the script yet, so its text is sent.
    """
    script = scripts.load("sample")
    sample = ("EVALSHA", script.sha, 2, source.stream, source.trimming, source.group, batch_size, known_first)
    return [("SCRIPT", "LOAD", script.source), sample] if with_script else [sample]


def sample_in(reply: Reply) -> Sample | None:
    """The sample in an answer; None if there is no such stream or group."""
    if reply is None:
        return None
    length, added, first, last, last_assigned, delivered, read, lag, next_, later, mark, whole = reply
    return Sample(
        length=length,
        added=_known(added),
        first=first.decode() or None,
        last=last.decode() or None,
        last_assigned=last_assigned.decode(),
        delivered=delivered.decode(),
        read=_known(read),
        lag=_known(lag),
        next=next_.decode() or None,
        later=later.decode() or None,
        is_whole=whole == 1,
        is_trimmed=mark == 1,
    )


def _known(number: int) -> int | None:
    return None if number < 0 else number
