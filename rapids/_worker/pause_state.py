"""Pausing: nothing is begun while the group is paused, by whomever and for however long."""

import logging
import time
from collections.abc import Awaitable, Callable

from rapids._storage import group_control
from rapids._storage.client.connections import Reply
from rapids._storage.group_control import Paused
from rapids._worker.context import Member
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.intake import Intake

__all__ = ["Pausing"]

logger = logging.getLogger("rapids.worker")

LONGEST_WAIT = 10.0
"""Seconds after a pause in which what is due comes before what is new."""


class Pausing:
    """Looks whether the group is paused together with the reclaimer's look at its consumers: once a second.

    While Redis does not answer it stays as it was last known to be. What had not begun is handed back, and so is what
    a read that was blocked brings meanwhile; running handlers finish and are settled.
    """

    def __init__(
        self,
        member: Member,
        intake: Intake,
        exclusivity: Exclusivity,
        take_back: Callable[[], Awaitable[None]],
        on_resumed: Callable[[], None],
    ) -> None:
        """`take_back`: ends a blocked read, and hands back what was taken and not begun."""
        self._member = member
        self._intake = intake
        self._exclusivity = exclusivity
        self._take_back = take_back
        self._on_resumed = on_resumed
        self._seen_at = 0.0
        self.paused: Paused | None = None
        """The pause, as far as this process knows."""
        self.resumed_at = 0.0
        """When a pause ended (`time.monotonic()`, seconds)."""

    @property
    def is_paused(self) -> bool:
        """Whether the group is paused, as far as this process knows."""
        return self.paused is not None

    async def look(self) -> list[Reply]:
        """See whether the group is paused; each source's consumers, which come with the answer. Raises `RedisError`."""
        paused, consumers = await group_control.look(self._member.commands, self._member.sources)
        if paused is not None:
            if not self.is_paused:
                self._begin(paused)
            self.paused = paused
            await self._take_back()
        elif self.is_paused:
            self._end()
        return consumers

    def looked(self, *, nothing_is_due: bool) -> None:
        """Entries that were due have been taken. After a pause, new ones are read once nothing is due any more."""
        is_long_ago = time.monotonic() - self.resumed_at > LONGEST_WAIT
        if self._intake.waits_for_due and (nothing_is_due or is_long_ago):
            self._intake.read_on()

    def _begin(self, paused: Paused) -> None:
        self._intake.pause()
        self._exclusivity.hold_reading()
        self._seen_at = time.monotonic()
        extra = {**self._member.context, "actor": paused.actor, "reason": paused.reason}
        logger.warning("the group is paused %s", paused.told, extra=extra)

    def _end(self) -> None:
        was = self.paused
        self.paused, self.resumed_at = None, time.monotonic()
        self._on_resumed()
        self._intake.resume()
        assert was is not None  # noqa: S101 - it was paused
        lasted = self.resumed_at - self._seen_at
        extra = {**self._member.context, "actor": was.actor, "reason": was.reason, "paused_seconds": lasted}
        logger.warning("the group goes on; it was paused %s", was.told, extra=extra)
