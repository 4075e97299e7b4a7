"""How far a group has read its stream, and where the stream begins by now."""

from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Command, Reply
from rapids._storage.keys import Source

__all__ = ["Sample", "commands", "sample_in"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A stream and a group of it at one moment. Counts are entries; None is what the server does not tell."""

    length: int
    added: int | None
    """To the stream, ever."""
    first: str | None
    """The oldest entry's id; None where the stream is empty, as for `last`."""
    last: str | None
    given_out: str
    """The last id the stream ever gave out."""
    delivered: str
    """The id last delivered to the group, whether that entry is still there or not."""
    read: int | None
    """How many of those added come up to that id."""
    lag: int | None
    next: str | None
    """The entry that is delivered next."""
    later: str | None
    """The first one of the read after the next; known only where the server does not count."""
    is_trimmed: bool
    """Whether it was trimmed lately of what all groups have settled."""


def commands(source: Source, *, batch_size: int, with_script: bool) -> list[Command]:
    """The commands that take a sample, to go ahead of a read; the last one's answer is the sample.

    `with_script`: the server may not know the script yet.
    """
    script = scripts.load("sample")
    sample = ("EVALSHA", script.sha, 2, source.stream, source.trimming, source.group, batch_size)
    return [("SCRIPT", "LOAD", script.source), sample] if with_script else [sample]


def sample_in(reply: Reply) -> Sample | None:
    """The sample in its answer; None where there is no such stream or group."""
    if reply is None:
        return None
    length, added, first, last, given_out, delivered, read, lag, next_, later, mark = reply
    return Sample(
        length=length,
        added=_known(added),
        first=first.decode() or None,
        last=last.decode() or None,
        given_out=given_out.decode(),
        delivered=delivered.decode(),
        read=_known(read),
        lag=_known(lag),
        next=next_.decode() or None,
        later=later.decode() or None,
        is_trimmed=mark == 1,
    )


def _known(number: int) -> int | None:
    return None if number < 0 else number
