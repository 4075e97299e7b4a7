"""Losses: entries that were in the stream and that the group has not handled.

Entries that were trimmed before the group had read them are found by samples, which are sent before reads: once a
second, and before every read if more entries may be lost within the second. A group that had read everything, and loses
entries of a short stream that was never trimmed before, may miss the first of them.
"""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from redis.exceptions import ResponseError

from rapids._core.entry_id import order
from rapids._core.redis_errors import is_no_script
from rapids._storage import read_positions
from rapids._storage.client.connections import Command, Reply
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._storage.read_positions import Sample
from rapids._worker.context import WorkerContext
from rapids.observers import Trimmed

__all__ = ["Gap", "Gaps", "report_ghosts", "report_lost"]

logger = logging.getLogger("rapids.worker")

INTERVAL = 1.0
"""Seconds between samples while nothing is at risk."""

RISK = 0.5
"""If the group has not read this share of a stream that is being trimmed, a sample precedes every read."""

SMALL = 1_000
"""A stream of at most so many entries may be trimmed completely between two samples."""

NEAR, FAR = 0.8, 0.6
"""Unread shares: at the first a warning is logged that entries may be lost; below the second it may be logged again."""

NODE = 200
"""How many entries the length of a stream may vary by if it is trimmed to a length: whole nodes are removed."""


def report_lost(context: WorkerContext, count: int | None, message: str, *args: object, **extra: object) -> None:
    """Log a loss of `count` entries as an error; None if the number is unknown.

    `extra`: more fields of the record.
    """
    logger.error(message, *args, extra={**context.log, "lost_count": count, **extra})


def report_ghosts(context: WorkerContext, source: Source, ghosts: Sequence[str], when: Trimmed) -> None:
    """Log and count entries that were trimmed from the stream before they were handled."""
    if ghosts:
        message = "entries were trimmed from the stream before they were handled: %d lost"
        report_lost(context, len(ghosts), message, len(ghosts), stream=source.stream, lost=ghosts)
        context.counts.lost(len(ghosts), when, entry_ids=ghosts, stream=source.stream)


@dataclass(frozen=True, slots=True)
class Gap:
    """Entries that were removed from the stream and never delivered to the group."""

    after: str
    """The id last delivered before it."""
    before: str | None
    """The first entry after it; None if there is none yet."""
    estimated: int | None
    """How many entries were lost, by the server's counts; None if it does not know."""


class Gaps:
    """Decides when to sample, and finds gaps in samples. The consumer whose read passes a gap reports it, so that a
    group reports it once."""

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._source = context.sources[0]
        self._batch_size = context.settings.batch_size
        self._knows_script = False
        self.next_at = -math.inf
        """When the next sample is due (`time.monotonic()`, seconds): at once while entries are at risk."""
        self._was_cut = False
        self._is_small = False
        self._is_near = False
        self._last: Sample | None = None
        self.open: Gap | None = None
        """The gap that the current read passes, unless another consumer is faster."""
        self._found: Gap | None = None
        """The gap that the last sample showed."""
        self._uncounted = 0
        """How much the group's count of read entries is too low: Redis 7.0 does not count entries that were lost."""
        self._place: tuple[str, int] | None = None
        """An id this consumer has read, and how many entries were ever added up to it."""

    @property
    def delivered(self) -> str | None:
        """The id last delivered to the group in the latest sample; None if it is not known."""
        return None if self._last is None else self._last.delivered

    def ahead(self) -> Sequence[Command]:
        """The commands to send before a read: usually none."""
        if time.monotonic() < self.next_at:
            return ()
        return read_positions.commands(
            self._source,
            batch_size=self._batch_size,
            with_script=not self._knows_script,
            known_first=(self._last and self._last.first) or "",
        )

    def sampled(self, replies: Sequence[Reply]) -> None:
        """Process the replies to these commands. The read itself comes next."""
        self.open = None
        if not replies:
            return
        self.next_at, reply = time.monotonic() + INTERVAL, replies[-1]
        if isinstance(reply, ResponseError):
            self._knows_script = not is_no_script(reply)
            if not self._knows_script:
                self.next_at = -math.inf
        else:
            self._knows_script = True
            self._take(read_positions.sample_in(reply))

    def read(self, entries: Sequence[RawEntry]) -> None:
        """Process the entries of a read. Needed only if a gap is open, or if the batch is full and more may follow."""
        gap, self.open = self.open, None
        if not entries:
            return
        if self._is_small and len(entries) >= self._batch_size:
            self.next_at = -math.inf
        sample = self._last
        first = entries[0].entry_id.decode()
        if gap is not None and sample is not None and (gap.before is None or gap.before == first):
            how_many = "how many is not known" if gap.estimated is None else f"about {gap.estimated} of them"
            report_lost(
                self._context,
                gap.estimated,
                "entries were trimmed from the stream before the group had read them: lost, %s, between %s and %s",
                how_many,
                gap.after,
                gap.before or "the next one",
                after=gap.after,
                before=gap.before,
            )
            self._context.counts.lost(gap.estimated, "unread")
            if sample.added is not None:
                self._place = entries[-1].entry_id.decode(), sample.added - sample.length + len(entries)

    def _take(self, sample: Sample | None) -> None:
        before, self._last = self._last, sample
        if sample is None or before is None or order(sample.delivered) < order(before.delivered):
            before = (
                None  # the group is lost, was recreated, or reads from an earlier id: the earlier sample is useless
            )
        if sample is None:
            return
        if sample.added is None or sample.read is None:
            self._uncounted = 0
        elif sample.delivered == sample.last_assigned:
            self._uncounted = max(sample.added - sample.read, 0)
        elif self._place is not None and self._place[0] == sample.delivered:
            self._uncounted = max(self._place[1] - sample.read, 0)
        gap = gap_in(sample, before, self._uncounted)
        if gap is None and self._found is not None and self._found.after == sample.delivered:
            gap = replace(self._found, before=sample.first)  # the read after that sample brought nothing
        self.open = self._found = gap
        share = unread_share(sample)
        if sample.added is not None:
            self._was_cut = sample.added > sample.length
        elif before is not None and before.first != sample.first:
            self._was_cut = before.first is not None
        self._is_small = sample.length <= SMALL
        at_risk = (self._is_small and (share > 0 or self._was_cut)) or (share >= RISK and self._was_cut)
        if at_risk and not is_end_deleted(sample):
            self.next_at = -math.inf
        if share < FAR:
            self._is_near = False
        elif share >= NEAR and not self._is_near and before is not None and is_being_cut(sample, before):
            self._is_near = True
            lag = "" if sample.lag is None else f"{sample.lag} entries, "
            logger.warning(
                "the group has not read %s%.0f %% of the stream, trimmed to about %d entries: it may lose some",
                lag,
                share * 100,
                sample.length,
                extra={**self._context.log, "lag": sample.lag, "length": sample.length},
            )


def gap_in(sample: Sample, before: Sample | None, uncounted: int = 0) -> Gap | None:
    """The entries that are certainly missing between the last one that was delivered and the first that is left.

    `before`: an earlier sample. `uncounted` (entries): how much `sample.read` is too low.
    """
    delivered = order(sample.delivered)
    if sample.is_whole:
        return None
    if sample.first is not None and order(sample.first) <= delivered:
        return None  # nothing was removed after it
    removed = None if sample.added is None else sample.added - sample.length
    if removed is not None and sample.read is not None and removed > sample.read + uncounted:
        return Gap(sample.delivered, sample.first, removed - sample.read - uncounted)
    if before is None:
        return None
    first = (math.inf, 0) if sample.first is None else order(sample.first)
    known = [order(entry_id) for entry_id in (before.next, before.later, before.last) if entry_id is not None]
    if not any(delivered < witness < first for witness in known):
        return None
    if removed is None or before.added is None or before.next is None or before.next != before.first:
        return Gap(sample.delivered, sample.first, None)
    return Gap(sample.delivered, sample.first, removed - (before.added - before.length))


def unread_share(sample: Sample) -> float:
    """The share of the stream that the group has not read, 0 to 1. By time if the server does not count."""
    if not sample.length or sample.delivered == sample.last_assigned:
        return 0.0
    if sample.lag is not None:
        return min(sample.lag / sample.length, 1.0)
    if sample.next is None or sample.first is None or sample.last is None:
        return 0.0
    if sample.next == sample.first:
        return 1.0
    begin, end = order(sample.first)[0], order(sample.last)[0]
    return (end - order(sample.delivered)[0]) / (end - begin) if end > begin else 0.0


def is_end_deleted(sample: Sample) -> bool:
    """Whether the last entry was deleted before the group read it. Until there is another one, each sample ends the
    blocked reads of all consumers on a server before Redis 7.2, so these must not sample at once."""
    return sample.length > 0 and sample.last_assigned not in (sample.delivered, sample.last)


def is_being_cut(sample: Sample, before: Sample) -> bool:
    """Whether the stream lost its oldest entries and is as long as before, so it is trimmed to a length.

    False if that may have been a router's trimming of settled entries, by which no group loses anything.
    """
    if sample.is_trimmed or not sample.length or sample.length < before.length - NODE:
        return False
    if sample.first is not None and before.first is not None:
        return order(sample.first) > order(before.first)
    if sample.added is None or before.added is None:
        return False
    return sample.added - sample.length > before.added - before.length
