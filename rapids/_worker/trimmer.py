"""The trimmer: removes entries that every group has settled, and reports the group that prevents more."""

import asyncio
import logging
import random
from collections import deque

from redis.exceptions import ResponseError

from rapids._core.redis_errors import is_no_group, is_outage
from rapids._storage import streams
from rapids._storage.streams import Trim
from rapids._worker.context import WorkerContext
from rapids._worker.leases import Leases
from rapids.health import HeldBack, Trimming

__all__ = ["Trimmer"]

logger = logging.getLogger("rapids.worker")

PAUSE = 5.0
"""Seconds between two turns of one router, on average: all routers of a stream trim, each at its own times."""

MIN_AGE_MS = 60_000
"""Younger entries stay: an emitter whose answer was lost searches them for what it wrote."""

NOTED_MS = 1_000
"""Turns so far apart are remembered, each with the stream's last id (milliseconds): at most a minute's."""

MAX_REMOVED = 10_000
"""Entries removed by one call of the script, which blocks the server while it runs."""

LONG_HELD = 600.0
"""Seconds that an entry may be unsettled until a warning names its group."""

MANY_LEFT = 100_000
"""With so many entries left in the stream, the warning comes sooner: the default `maxlen` of the emitter."""

MANY_HELD = 120.0
"""The same as `LONG_HELD` if so many are left (seconds). Young entries stay in any case."""


class Trimmer:
    """Trims every few seconds. A script decides and trims in one step, so any number of routers may do so."""

    def __init__(self, context: WorkerContext, leases: Leases) -> None:
        self._context = context
        self._leases = leases
        self._removed = 0
        self._reported: str | None = None
        """The group that the last warning named."""
        self._is_refused = False
        self._last: Trim | None = None
        self._earlier = deque[Trim](maxlen=100)
        """Earlier trims about a second apart, the newest last: of those that are old enough only the newest."""
        self.seen: Trimming | None = None
        """The state after the last turn; None before the first."""

    async def run(self) -> None:
        """Trim until cancelled."""
        await asyncio.sleep(random.uniform(0, PAUSE))  # noqa: S311 - not a secret
        while True:
            await self._context.outages.retry("trimming", self._attempt, repair=self._leases.repair)
            await asyncio.sleep(PAUSE * random.uniform(0.75, 1.25))  # noqa: S311 - not a secret

    async def _attempt(self) -> None:
        """Trim until nothing is left that may be removed.

        A Redis user without the permission to trim is no outage: the router handles events without it.
        """
        source = self._context.sources[0]
        try:
            while True:
                trim = await streams.trim(
                    self._context.commands,
                    source,
                    least_age_ms=MIN_AGE_MS,
                    most=MAX_REMOVED,
                    old_id=self._old_id(),
                    before=self._last,
                )
                self._last = trim
                self._removed += trim.removed
                oldest = trim.unsettled
                held = None if oldest is None else HeldBack(oldest.group, oldest.entry_id, oldest.age, oldest.consumer)
                self.seen = Trimming(self._removed, trim.left, held)
                if not trim.removed:
                    break
        except ResponseError as error:
            if is_outage(error) or is_no_group(error):
                raise
            if not self._is_refused:
                logger.error("the stream is not trimmed, since Redis refuses: %s", error, extra=self._context.log)
            self._is_refused = True
        else:
            self._is_refused = False
            self._report(self.seen)

    def _old_id(self) -> str:
        """An id that was the stream's last one at least `MIN_AGE_MS` ago; empty if none is known yet."""
        if self._last is None:
            return ""
        if not self._earlier or abs(self._last.now_ms - self._earlier[-1].now_ms) >= NOTED_MS:
            self._earlier.append(self._last)
        oldest_ms = self._last.now_ms - MIN_AGE_MS
        while len(self._earlier) > 1 and self._earlier[1].now_ms <= oldest_ms:
            self._earlier.popleft()
        return self._earlier[0].last_id if self._earlier[0].now_ms <= oldest_ms else ""

    def _report(self, seen: Trimming) -> None:
        """Log when a group begins to prevent trimming for long, and when that is over."""
        held = seen.held_back_by
        if self._reported is not None and (
            held is None or held.group != self._reported or not _is_long(seen, share=0.5)
        ):
            logger.info(
                "group %r does not hold back the trimming any more",
                self._reported,
                extra={**self._context.log, "held_back_by": self._reported},
            )
            self._reported = None
        if self._reported is None and held is not None and _is_long(seen):
            self._reported = held.group
            state = "not read by it" if held.consumer is None else f"pending for {held.consumer or 'nobody'!r}"
            logger.warning(
                "group %r holds back the trimming: entry %s is %s, and was appended %.0f s ago; %d entries are in the "
                "stream. If nobody needs the group any more, remove it with XGROUP DESTROY",
                held.group,
                held.entry_id,
                state,
                held.age,
                seen.left,
                extra={**self._context.log, "held_back_by": held.group, "entry_id": held.entry_id},
            )


def _is_long(seen: Trimming, share: float = 1.0) -> bool:
    """Whether a group prevents trimming for long, or of much. `share`: a lower limit, so that reports do not repeat."""
    if (held := seen.held_back_by) is None:
        return False
    return held.age >= LONG_HELD * share or (seen.left >= MANY_LEFT * share and held.age >= MANY_HELD * share)
