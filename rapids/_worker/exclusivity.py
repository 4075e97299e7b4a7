"""Exclusivity: of all consumers of a group, one is active at a time."""

import asyncio
import logging
import time

from rapids._storage import groups, terms
from rapids._storage.terms import Term
from rapids._worker.context import WorkerContext
from rapids._worker.gate import Gate
from rapids._worker.inflight import Inflight
from rapids._worker.intake import Intake

__all__ = ["Exclusivity"]

logger = logging.getLogger("rapids.worker")

TTL_MS = 3_000
"""For how many milliseconds a group has no active consumer after the active one died."""

STANDBY_PAUSE = 0.5
"""Seconds between two attempts of a consumer on standby to become active."""


class Exclusivity:
    """Holds the group while this consumer is the active one, and waits for it otherwise.

    A consumer that stood still asks for the group before it begins an entry. If another consumer was active since, that
    one has also taken the entries. Then this one drops all of them, and its term has ended: whatever it sends
    nevertheless is refused, except that a handler is done.
    """

    def __init__(self, context: WorkerContext, gate: Gate, inflight: Inflight, intake: Intake) -> None:
        self._context = context
        self._gate = gate
        self._inflight = inflight
        self._intake = intake
        self._on_standby = Term(context.sources[0])
        if context.settings.exclusive:
            gate.term = self._on_standby
        self._next_token = groups.new_token()
        self._asking = asyncio.Lock()
        self._remember_at = 0.0
        self.looked_at = time.monotonic()
        """When it last knew who is active (`time.monotonic()`, seconds)."""
        self.gained_at = 0.0
        """When this consumer became active."""

    async def run(self) -> None:
        """Hold the group, or wait for it, until cancelled."""
        while True:
            pause = TTL_MS / 3000 if await self.confirm() else STANDBY_PAUSE
            await asyncio.sleep(pause)

    async def confirm(self) -> bool:
        """Whether this consumer is active, or has just become active. Retries while Redis is unavailable."""
        async with self._asking:
            await self._context.outages.retry("holding the group", self._hold)
        return self._gate.is_active

    async def release(self) -> None:
        """Release the group, so that another consumer becomes active at once. Raises `RedisError`."""
        if self._gate.term is not None and self._gate.is_active:
            await terms.end(self._context.commands, self._gate.term)

    async def _hold(self) -> None:
        gate, term, asked_at = self._gate, self._gate.term or self._on_standby, time.monotonic()
        clock, ttl, remember = self._context.clock, TTL_MS / 1000, asked_at >= self._remember_at
        # The clock may have stepped, also just before the start: then the active consumer holds the group again first.
        latest_ms = clock.latest_ms(ttl) if clock.is_steady(ttl) else 0
        token, now_ms = await terms.hold(
            self._context.commands,
            term,
            self._next_token,
            ttl_ms=TTL_MS,
            latest_ms=latest_ms,
            remember=remember,
        )
        clock.see(now_ms, asked_at)
        self.looked_at = time.monotonic()
        is_next = token == self._next_token
        if gate.is_active and token != term.token:
            logger.error(
                "another consumer became active while this one stood still; %s",
                "now this one is active again, in a new term" if is_next else "on standby",
                extra=self._context.log,
            )
            gate.stand_by()
            gate.term = self._on_standby
            self._intake.forget()
            self._inflight.lose_all()
        if is_next:
            logger.info("this consumer is now the active one of its group", extra=self._context.log)
            gate.term, self._next_token = Term(term.source, token), groups.new_token()
            self.gained_at = time.monotonic()
            self._context.next_look.now()
        if gate.term is not self._on_standby:
            if remember or is_next:
                self._remember_at = asked_at + terms.REMEMBERED_MS / 4000
            gate.be_active(asked_at + TTL_MS / 1000)
