"""The capacity of the dead-letter stream: a warning before letters are trimmed, an error when they were."""

import asyncio
import logging
import random

from redis.exceptions import RedisError

from rapids._storage import letter_index
from rapids._storage.letter_index import Room
from rapids._worker.context import WorkerContext

__all__ = ["DlqCapacity"]

logger = logging.getLogger("rapids.worker")

PAUSE = 10.0
"""Seconds between two checks of one router, on average."""

NEAR, FAR = 0.8, 0.6
"""Shares of `dlq_maxlen`: at the first a warning is logged; below the second it may be logged again."""


class DlqCapacity:
    """Counts the dead letters every few seconds, if their number has a limit.

    A trimmed letter was neither replayed nor discarded: such letters have left the stream before.
    """

    def __init__(self, context: WorkerContext, dlq: str, maxlen: int) -> None:
        self._context = context
        self._dlq = dlq
        self._maxlen = maxlen
        self._cut: int | None = None
        """How many letters had been trimmed at the last check; None before the first check."""
        self._is_reported = False
        self._log = {**context.log, "dlq": dlq}

    async def run(self) -> None:
        """Check until cancelled."""
        await asyncio.sleep(random.uniform(0, PAUSE / 10))  # noqa: S311 - not a secret
        while True:
            try:
                self._report(await letter_index.room(self._context.commands, self._dlq))
            except (RedisError, OSError) as error:  # no outage: events are handled without it
                logger.debug("could not count the dead letters: %s", error, extra=self._log)
            await asyncio.sleep(PAUSE * random.uniform(0.75, 1.25))  # noqa: S311 - not a secret

    def _report(self, room: Room) -> None:
        """Log when the limit is near, when it no longer is, and how many letters were trimmed since the last check."""
        share = room.length / self._maxlen
        if not self._is_reported and share >= NEAR:
            self._is_reported = True
            logger.warning(
                "%d dead letters are stored, and dlq_maxlen is %d: soon the oldest are trimmed, and what failed and "
                "why is lost with them. Replay or discard some, or raise dlq_maxlen",
                room.length,
                self._maxlen,
                extra={**self._log, "letters": room.length},
            )
        elif self._is_reported and share < FAR:
            self._is_reported = False
            logger.info("the dead-letter stream has room again: %d letters", room.length, extra=self._log)
        if self._cut is not None and room.cut > self._cut:
            logger.error(
                "%d dead letters were trimmed, since dlq_maxlen is %d; they had been neither replayed nor discarded",
                room.cut - self._cut,
                self._maxlen,
                extra={**self._log, "lost_count": room.cut - self._cut},
            )
        self._cut = room.cut
