"""The pause of a group, as one worker sees it: no entry begins while it lasts."""

import logging
import time
from collections.abc import Sequence

from rapids._storage import group_control
from rapids._storage.group_control import Paused, SourceLook
from rapids._worker.context import WorkerContext
from rapids._worker.intake import Intake
from rapids._worker.reader import Reader
from rapids._worker.settler import Settler

__all__ = ["PauseState"]

logger = logging.getLogger("rapids.worker")

MAX_WAIT = 10.0
"""Seconds after a pause during which due entries come before new ones."""


class PauseState:
    """Asks once a second whether the group is paused, in the command that begins the reclaimer's turn.

    While Redis is unavailable, the last known state stays. During a pause, entries that have not begun are released,
    also those that a blocked read still brings. Running handlers finish, and their entries are settled.
    """

    def __init__(self, context: WorkerContext, intake: Intake, settler: Settler, reader: Reader) -> None:
        self._context = context
        self._intake = intake
        self._settler = settler
        self._reader = reader
        self._paused: Paused | None = None
        """The pause that this process knows of."""
        self._seen_at = 0.0
        self.resumed_at = 0.0
        """When a pause ended (`time.monotonic()`, seconds)."""

    async def look(self) -> Sequence[SourceLook]:
        """Ask whether the group is paused. Returns what there is in each source, which comes with it.

        Raises `RedisError`.
        """
        asked_at = time.monotonic()
        paused, now_ms, sources = await group_control.look(self._context.commands, self._context.sources)
        self._context.clock.see(now_ms, asked_at)
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
        return sources

    def looked(self, *, nothing_is_due: bool) -> None:
        """Note that due entries were taken. After a pause, new entries are read when no entry is due any more."""
        is_long_ago = time.monotonic() - self.resumed_at > MAX_WAIT
        if self._intake.waits_for_due and (nothing_is_due or is_long_ago):
            self._intake.read_on()

    def _extra(self, paused: Paused, **more: object) -> dict[str, object]:
        return {**self._context.log, "actor": paused.actor, "reason": paused.reason, **more}
