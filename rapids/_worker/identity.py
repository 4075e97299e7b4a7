"""The consumer's name, which no other live process has, and what others learn of its router: its name, its rates."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from operator import sub

from redis.exceptions import RedisError

from rapids._core.counter_state import Counts
from rapids._core.outages import Outages
from rapids._core.redis_errors import is_outage, reason
from rapids._core.settings import RouterSettings
from rapids._storage import groups, rates
from rapids._storage.announcements import announce
from rapids._storage.client.connections import Commands
from rapids._storage.keys import Source
from rapids._worker.gate import Gate
from rapids._worker.server_clock import ServerClock

__all__ = ["Announcement", "Identity"]

logger = logging.getLogger("rapids.worker")

TTL_MS = 6_000
"""For how many milliseconds a name stays taken after its process died."""

ANNOUNCE_PAUSE = 60.0
"""Seconds between two announcements of a router."""


class Identity:
    """Holds a consumer name by a key with a TTL, renewed while the process lives.

    If a process stood still for longer than that, another process may have taken its name, and with it the entries.
    Then this process drops all entries and takes another name.

    With the name, what the process has counted in ten seconds goes to the rates of its group, soon after their end.
    """

    def __init__(self, commands: Commands, source: Source, gate: Gate, clock: ServerClock, counts: Counts) -> None:
        self._commands = commands
        self._gate = gate
        self._clock = clock
        self._source = source
        self._token = groups.new_token()
        self._counts = counts
        self._reported = counts.totals(rates.COUNTED)
        self._period = 0
        """The ten seconds in which the last report was made."""
        self._base = ""
        self.name = ""

    async def acquire(self, wanted: str | None) -> str:
        """Take the wanted name, or `hostname-pid`. If a live process has it, a number is added."""
        self._base = wanted or f"{socket.gethostname()}-{os.getpid()}"
        self.name = name = await self._first_free()
        if wanted and name != wanted:
            logger.warning("consumer name %r is held by a live process; using %r", wanted, name)
        return name

    async def run(self, keep: Callable[[], Awaitable[None]], outages: Outages) -> None:
        """Keep the name until cancelled."""
        while True:
            await asyncio.sleep(TTL_MS / 3000)
            await outages.retry("keeping the consumer name", keep)

    async def keep(self) -> bool:
        """Hold the name for longer. False if another process has taken it. Raises `RedisError`."""
        return await self._hold(self.name)

    async def change(self) -> str:
        """Take another name: the wanted one with a number after it. Raises `RedisError`."""
        self.name = await self._first_free()
        return self.name

    async def release(self) -> None:
        """Release the name, so that another process can take it at once."""
        await self._hold(self.name, is_last=True)
        await groups.release(self._commands, self._source.consumer(self.name), self._token)

    async def _first_free(self) -> str:
        name = self._base
        for number in count(2):
            if await self._hold(name):
                break
            name = f"{self._base}-{number}"
        return name

    async def _hold(self, name: str, *, is_last: bool = False) -> bool:
        asked_at, report = time.monotonic(), None
        period = rates.period_of((asked_at + self._clock.ahead) * 1000)
        if is_last or period != self._period:
            totals, self._period = self._counts.totals(rates.COUNTED), period
            report = self._source, rates.report(list(map(sub, totals, self._reported)))
            self._reported = totals  # also if it does not arrive: counts of a minute do not belong in ten seconds
        held = await groups.hold(self._commands, self._source.consumer(name), self._token, ttl_ms=TTL_MS, rates=report)
        self._clock.see(held.now_ms, asked_at)
        if held.is_ours:
            self._gate.keep_name(asked_at + TTL_MS / 1000)
        return held.is_ours


class Announcement:
    """Announces the router to the other processes of this Redis, so that their admin shows its stream."""

    def __init__(self, commands: Commands, settings: RouterSettings, log: Mapping[str, object]) -> None:
        self._commands = commands
        self._settings = settings
        self._log = log

    async def run(self) -> None:
        """Announce the router from time to time, until cancelled. Nothing else depends on it, so it never fails."""
        settings, is_refused = self._settings, False
        while True:
            try:
                await announce(
                    self._commands,
                    stream=settings.stream,
                    group=settings.group,
                    dlq_stream=settings.dlq_stream,
                    dlq_maxlen=settings.dlq_maxlen,
                )
            except (RedisError, OSError) as error:
                if not is_outage(error) and not is_refused:  # the log says once what stays so
                    is_refused = True
                    logger.info(
                        "the router cannot announce its stream to other processes, so their admin shows it only if "
                        "Rapids(watch=...) names it: %s",
                        reason(error),
                        extra=self._log,
                    )
            await asyncio.sleep(ANNOUNCE_PAUSE)
