"""The pause of a group: nothing begins while it lasts, however long that is."""

import logging
import time

from rapids._storage import group_control
from rapids._storage.client.connections import Reply
from rapids._storage.group_control import Paused
from rapids._worker.context import WorkerContext
from rapids._worker.intake import Intake
from rapids._worker.reader import Reader
from rapids._worker.settler import Settler

__all__ = ["PauseState"]

logger = logging.getLogger("rapids.worker")

MAX_WAIT = 10.0
"""Seconds after a pause in which what is due comes before what is new."""


class PauseState:
    """Looks whether the group is paused together with the reclaimer's look at its consumers: once a second.

    While Redis does not answer it stays as it was last known to be. What had not begun is released, and so is what a
    read that was blocked brings; running handlers finish and are settled.
    """

    def __init__(self, context: WorkerContext, intake: Intake, settler: Settler, reader: Reader) -> None:
        self._context = context
        self._intake = intake
        self._settler = settler
        self._reader = reader
        self._paused: Paused | None = None
        """The pause, as far as this process knows."""
        self._seen_at = 0.0
        self.resumed_at = 0.0
        """When a pause ended (`time.monotonic()`, seconds)."""

    async def look(self) -> list[Reply]:
        """See whether the group is paused; each source's consumers, which come with the answer. Raises `RedisError`."""
        paused, consumers = await group_control.look(self._context.commands, self._context.sources)
        if paused is not None:
            if self._paused is None:
                self._intake.pause()
                self._seen_at = time.monotonic()
                logger.warning("the group is paused %s", paused.description, extra=self._extra(paused))
            self._paused = paused
            self._settler.release(self._intake.drain())
            await self._reader.unblock()
        elif (ended := self._paused) is not None:
            self._paused, self.resumed_at = None, time.monotonic()
            self._intake.resume()
            extra = self._extra(ended, paused_seconds=self.resumed_at - self._seen_at)
            logger.warning("the group continues; it was paused %s", ended.description, extra=extra)
        return consumers

    def looked(self, *, nothing_is_due: bool) -> None:
        """Entries that were due have been taken. After a pause, new ones are read once nothing is due any more."""
        is_long_ago = time.monotonic() - self.resumed_at > MAX_WAIT
        if self._intake.waits_for_due and (nothing_is_due or is_long_ago):
            self._intake.read_on()

    def _extra(self, paused: Paused, **more: object) -> dict[str, object]:
        return {**self._context.log, "actor": paused.actor, "reason": paused.reason, **more}
