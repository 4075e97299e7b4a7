"""The fetcher: fetches single entries that are held without their fields."""

import logging

from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from rapids._core.redis_errors import reason
from rapids._storage import groups, streams
from rapids._storage.keys import Source
from rapids._worker.context import WorkerContext
from rapids._worker.inflight import HeldEntry, Inflight, State
from rapids._worker.intake import Intake
from rapids._worker.losses import report_ghosts

__all__ = ["Fetcher", "UnfetchableError"]

logger = logging.getLogger("rapids.worker")

MOST_FETCHES = 5
"""Attempts to fetch an entry that Redis has."""
FETCH_PAUSE = 1.0
"""Seconds until the second attempt, and more for each further one. Other entries run in between."""


class UnfetchableError(Exception):
    """An entry that Redis has does not arrive, however often it is asked for alone."""


class Fetcher:
    """Asks for one entry at a time, on a connection of its own."""

    def __init__(self, context: WorkerContext, inflight: Inflight, intake: Intake) -> None:
        self._context = context
        self._inflight = inflight
        self._intake = intake
        self._attempts: dict[tuple[Source, bytes], int] = {}

    @property
    def unfetched(self) -> list[str]:
        """The ids of the held entries that could not be fetched until now."""
        return [entry_id.decode() for source, entry_id in self._attempts if self._inflight.get(source, entry_id)]

    async def fetch(self, held: HeldEntry, *, again: bool = False) -> bool:
        """Fetch the fields of a held entry. False if it comes back later, as that failed, or if it was trimmed.

        `again`: whether they had arrived, and were dropped. Raises `UnfetchableError` after the last attempt.
        """
        entry, context = held.entry, self._context
        source = entry.source
        if held.state is State.LOST:
            return False
        try:
            fields = await streams.entry(context.fetching, source.stream, entry.entry_id)
        except (RedisError, OSError) as error:
            await self._note_unfetched(held, error)
            return False
        context.outages.worked("fetching")
        self._attempts.pop((source, entry.entry_id), None)
        if fields is None:  # not there, or not on this server: an old master may have answered after a failover
            fields = await context.outages.retry(
                "fetching", lambda: groups.drop_ghost(context.commands, source, entry.entry_id)
            )
        if fields is not None:
            held.entry = entry._replace(fields=fields)
            if not again:
                context.counts.delivered([held.entry])
            return True
        self._inflight.drop(held)
        report_ghosts(context, source, [entry.entry_id.decode()], "held")
        return False

    async def _note_unfetched(self, held: HeldEntry, error: Exception) -> None:
        """Count a failed attempt to fetch an entry, if Redis answers. Raises `UnfetchableError` after the last one."""
        context, entry_id = self._context, held.entry.entry_id
        try:
            await streams.ping(context.commands)
            if isinstance(error, ResponseError | BusyLoadingError):
                raise error
        except (RedisError, OSError) as outage:
            context.outages.failed("fetching", outage)
            self._intake.put_later(held, FETCH_PAUSE)
            return
        context.outages.worked("fetching")
        key = held.entry.source, entry_id
        attempts = self._attempts.get(key, 0) + 1
        self._attempts = {one: count for one, count in self._attempts.items() if self._inflight.get(*one)}
        self._attempts[key] = attempts
        if attempts >= MOST_FETCHES:
            del self._attempts[key]
            raise UnfetchableError(
                f"could not be fetched in {attempts} attempts, although Redis answers: "
                f"{type(error).__name__}: {reason(error)}"
            ) from error
        pause = FETCH_PAUSE * attempts
        logger.warning(
            "entry %s cannot be fetched, although Redis answers: attempt %d of %d, next one in %.1f s: %s: %s",
            entry_id.decode(),
            attempts,
            MOST_FETCHES,
            pause,
            type(error).__name__,
            reason(error),
            extra={**context.log, "stream": held.entry.source.stream, "entry_id": entry_id.decode()},
        )
        self._intake.put_later(held, pause)
        context.next_look.within(pause)
