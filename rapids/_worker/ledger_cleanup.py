"""What strangers leave: they settle an entry that waited or was parked, and what is kept of it stays behind."""

import logging
import time

from rapids._storage.keys import Source
from rapids._storage.orphaned_ledgers import forget_settled
from rapids._worker.context import Member

__all__ = ["Leftovers"]

logger = logging.getLogger("rapids.worker")

LOOKS_PER_TTL = 4


class Leftovers:
    """Looks through the ledgers four times in `consumer_ttl`, a page each turn, for those of settled entries."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._pause = member.settings.consumer_ttl / LOOKS_PER_TTL
        self._next_at = time.monotonic() + self._pause
        self._cursors: dict[Source, int] = {}
        """Where to look on, while a look lasts."""

    async def turn(self) -> None:
        """Look at a page, if it is time. Raises `RedisError`."""
        if not self._cursors:
            if time.monotonic() < self._next_at:
                return
            self._cursors = dict.fromkeys(self._member.sources, 0)
        for source, cursor in list(self._cursors.items()):
            after, forgotten = await forget_settled(self._member.commands, source, cursor)
            self._report(source, forgotten)
            if after:
                self._cursors[source] = after
            else:
                del self._cursors[source]
        if not self._cursors:
            self._next_at = time.monotonic() + self._pause

    def _report(self, source: Source, forgotten: list[str]) -> None:
        if forgotten:
            logger.info(
                "forgot what was kept of %d entries that others acknowledged",
                len(forgotten),
                extra={**self._member.context, "stream": source.stream, "forgotten": forgotten},
            )
