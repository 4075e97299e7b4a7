"""The server's clock, compared with this process's own: whether it stepped, and what may be taken over after that."""

import asyncio
import logging
import math
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

__all__ = ["ServerClock"]

logger = logging.getLogger("rapids.worker")

TOLERANCE, LEAST_TOLERANCE = 1.0, 0.05
"""Seconds by which both clocks may differ from before: a quarter of a lease, within these limits."""

DRIFT = 0.001
"""By how much of the time one clock may be faster than the other."""

START_WAIT = 4.0
"""Seconds after the start in which nothing is taken over: living consumers notice a step within two."""

NEVER_MS = 2**53
"""Later than any time of a server (milliseconds)."""


class ServerClock:
    """Notices steps: the server's time no longer agrees with `time.monotonic()` of this process.

    Leases, names and waits end by the server's clock. After a step forward, those of living consumers look as if they
    had ended. So nothing is taken over until every living consumer had the time to renew its leases. Other answers
    bring the time; nothing is sent for it. Whether the clock stepped before this process first saw it cannot be known.
    """

    def __init__(self, log: dict[str, object], *, lease_seconds: float) -> None:
        """`log`: the fields of every log record. `lease_seconds`: how long a lease lasts."""
        self._log = log
        self._lease_seconds = lease_seconds
        self._tolerance = min(TOLERANCE, max(LEAST_TOLERANCE, lease_seconds / 4))
        self._seen_at = -math.inf
        self._low, self._high = -math.inf, math.inf
        """By how many seconds the server's clock is at least and at most ahead of this process's."""
        self._take_over_at = math.inf
        self._steady_since = math.inf
        """When the last step was noticed, or the clock was first seen (`time.monotonic()`, seconds)."""
        self._stepped = asyncio.Event()
        self.steps = 0
        """How many steps were noticed."""
        self.ahead: float = time.time() - time.monotonic()
        """By how many seconds the server's clock is ahead of `time.monotonic()`, as well as it is known."""

    def see(self, server_ms: int, asked_at: float) -> None:
        """Note the server's time (ms) in an answer to what was asked at `asked_at` (`time.monotonic()`, seconds)."""
        now = time.monotonic()
        low, high = server_ms / 1000 - now, (server_ms + 1) / 1000 - asked_at
        if self._seen_at == -math.inf:
            self._take_over_at, self._steady_since = now + min(self._lease_seconds, START_WAIT), now
            self._low, self._high, self._seen_at = low, high, now
            self.ahead = (low + high) / 2
            return
        least, most = self._expected(now)
        self._seen_at = now
        if least <= high and low <= most:
            self._low, self._high = max(low, least), min(high, most)
        elif least - high <= self._tolerance and low - most <= self._tolerance:
            self._low, self._high = least, most
        else:
            self._low, self._high = low, high
            self._step((low + high - least - most) / 2, server_ms)
        self.ahead = (self._low + self._high) / 2

    @property
    def may_take_over(self) -> bool:
        """Whether every living consumer had the time to renew its leases since the last step, and since the start."""
        return time.monotonic() >= self._take_over_at

    def is_steady(self, seconds: float) -> bool:
        """Whether it was seen for so many seconds without a step."""
        return time.monotonic() - self._steady_since >= seconds

    def latest_ms(self, lease_seconds: float) -> int:
        """Until which time (ms) of the server a lease that looks as if it had ended did end, or else the clock stepped:
        a lease is renewed three times while it lasts, so a step by half of it does no harm."""
        now = time.monotonic()
        latest = now + self._expected(now)[1] + lease_seconds / 2
        return NEVER_MS if latest == math.inf else round(latest * 1000)

    async def step(self, after: int, *, within: float) -> None:
        """Wait until `steps` is not `after`, at most `within` seconds."""
        if self.steps == after:
            with suppress(TimeoutError):
                async with asyncio.timeout(within):
                    await self._stepped.wait()

    def _expected(self, now: float) -> tuple[float, float]:
        drift = DRIFT * (now - self._seen_at) if self._seen_at > -math.inf else 0.0
        return self._low - drift, self._high + drift

    def _step(self, seconds: float, server_ms: int) -> None:
        self._steady_since = time.monotonic()
        self._take_over_at = self._steady_since + self._lease_seconds
        self.steps += 1
        self._stepped.set()  # for those that wait now
        self._stepped.clear()
        time_ = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=server_ms)
        logger.warning(
            "the server's clock stepped %s by %.1f s, to %s: no entry is taken over for %.1f s, in which living "
            "consumers renew their leases",
            "forward" if seconds > 0 else "back",
            abs(seconds),
            time_.isoformat(timespec="milliseconds"),
            self._lease_seconds,
            extra={**self._log, "step_seconds": seconds},
        )
