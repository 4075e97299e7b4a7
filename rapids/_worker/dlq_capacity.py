"""Room for dead letters: warns before the oldest are cut away for newer ones, and reports when they were."""

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
"""Seconds between two looks of one router, on average."""

NEAR, FAR = 0.8, 0.6
"""The share of `dlq_maxlen` from which a warning says that letters may be cut, and that below which it may recur."""


class DlqCapacity:
    """Looks every few seconds at how many dead letters there are, where their number has a limit.

    A letter that is cut away was neither replayed nor discarded by anybody: those are not in the stream any more.
    """

    def __init__(self, context: WorkerContext, dlq: str, maxlen: int) -> None:
        self._context = context
        self._dlq = dlq
        self._maxlen = maxlen
        self._cut: int | None = None
        """How many were cut by the last look; None before the first."""
        self._is_reported = False
        self._log = {**context.log, "dlq": dlq}

    async def run(self) -> None:
        """Look until cancelled."""
        await asyncio.sleep(random.uniform(0, PAUSE / 10))  # noqa: S311 - not a secret
        while True:
            try:
                self._report(await letter_index.room(self._context.commands, self._dlq))
            except (RedisError, OSError) as error:  # no outage: events are handled without it
                logger.debug("could not count the dead letters: %s", error, extra=self._log)
            await asyncio.sleep(PAUSE * random.uniform(0.75, 1.25))  # noqa: S311 - not a secret

    def _report(self, room: Room) -> None:
        """Log when the limit is near, when that is over, and what was cut since the last look."""
        share = room.length / self._maxlen
        if not self._is_reported and share >= NEAR:
            self._is_reported = True
            logger.warning(
                "%d dead letters wait for somebody, and dlq_maxlen is %d: soon the oldest are cut away for newer ones, "
                "and with them what failed and why. Replay or discard some, or raise dlq_maxlen",
                room.length,
                self._maxlen,
                extra={**self._log, "letters": room.length},
            )
        elif self._is_reported and share < FAR:
            self._is_reported = False
            logger.info("there is room for dead letters again: %d", room.length, extra=self._log)
        if self._cut is not None and room.cut > self._cut:
            logger.error(
                "%d dead letters were cut away, since dlq_maxlen is %d, and nobody had replayed or discarded them",
                room.cut - self._cut,
                self._maxlen,
                extra={**self._log, "lost_count": room.cut - self._cut},
            )
        self._cut = room.cut
