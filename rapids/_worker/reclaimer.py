"""The reclaimer: finds abandoned entries, entries that an earlier process of this name left, and due entries."""

import asyncio
import logging
import math
import time

from rapids._core.entry_id import order
from rapids._storage import future_times, groups, inspection_queries, streams
from rapids._storage.client.connections import checked
from rapids._storage.groups import Claimed, PendingCounts, RawEntry, forget_settled
from rapids._storage.keys import Source
from rapids._storage.terms import Term
from rapids._worker.context import WorkerContext
from rapids._worker.exclusivity import TTL_MS as EXCLUSIVE_TTL_MS
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.gate import Gate
from rapids._worker.handler_comparison import TTL_MS as HANDLERS_TTL_MS
from rapids._worker.identity import TTL_MS as NAME_TTL_MS
from rapids._worker.inflight import HeldEntry, Inflight
from rapids._worker.intake import Abandoned, Intake
from rapids._worker.leases import Leases
from rapids._worker.losses import report_ghosts
from rapids._worker.pause_state import PauseState
from rapids._worker.plan import Planner
from rapids._worker.unarrived import Unarrived

__all__ = ["Reclaimer"]

logger = logging.getLogger("rapids.worker")

MAX_PAUSE = 1.0
PRUNES_PER_TTL = 4
LEDGER_LOOKS_PER_TTL = 4
MIN_PAUSE = 0.02

MOST_FOUND = 1_000
"""How many abandoned entries of a source are looked for in one turn."""

FORESEEN = 20
"""How many waiting entries are fetched in one round trip: only their keys are kept."""

NO_ROOM = math.inf
"""In place of a wait: it is not known whether an entry is due."""


class Reclaimer:
    """Takes a turn at least once a second, at any load, and sooner if an entry becomes due."""

    def __init__(
        self,
        context: WorkerContext,
        gate: Gate,
        inflight: Inflight,
        intake: Intake,
        leases: Leases,
        pause_state: PauseState,
        unarrived: Unarrived,
        exclusivity: Exclusivity,
        planner: Planner,
    ) -> None:
        self._context = context
        self._settings = context.settings
        self._gate = gate
        self._inflight = inflight
        self._intake = intake
        self._leases = leases
        self._pause_state = pause_state
        self._unarrived = unarrived
        self._exclusivity = exclusivity
        self._planner = planner
        self._foreseen_in = gate.term
        self._found_all = True
        """Whether there are no more abandoned entries than the present turn has found."""
        self._all_placed = True
        """Whether each of these is held, or waits in its lane."""
        self._released_after: dict[Source, bytes] = {}
        """Where the search for entries that nobody holds continues."""
        self._peeking = asyncio.Lock()
        self._orphaned_ledgers = OrphanedLedgers(context)
        self._prune_at = 0.0
        self._corrected_after: int | None = None
        """How many steps of the server's clock had been noticed when times were last corrected."""
        self.turned_at = time.monotonic()
        """When it last took a turn (`time.monotonic()`, seconds)."""

    async def recall(self) -> None:
        """Find the entries that an earlier process with this consumer name left. Call before the first read."""
        for source in self._context.sources:
            left = await groups.entries_of(self._context.commands, source, self._context.name.encode())
            self._intake.announce(Abandoned(source, found.entry_id, 0, found.deliveries) for found in left)

    async def claim(self, abandoned: Abandoned) -> HeldEntry | None:
        """Claim an abandoned entry, unless another consumer was faster."""
        source, entry_id = abandoned.source, abandoned.entry_id
        if self._inflight.get(source, entry_id) is not None:
            return None
        clock = self._context.clock
        takes_over = abandoned.min_idle_ms > 0 and not self._settings.exclusive
        if takes_over and not clock.may_take_over:
            return None  # it is found again
        # If one consumer is active at a time, the others work on nothing.
        names_of = None if self._settings.exclusive else self._context.sources[0]
        attempts = 0

        async def claim() -> tuple[float, Claimed | None]:
            nonlocal attempts
            attempts += 1
            asked_at = time.monotonic()  # the lease counts from here: the answer may be read after a standstill
            return asked_at, await groups.claim(
                self._context.commands,
                source,
                self._context.name,
                ids=[entry_id],
                min_idle_ms=abandoned.min_idle_ms,
                due=0,
                names_of=names_of,
                again=attempts > 1,  # the first claim may have worked, and its answer was lost
                term=abandoned.term,
                **({"latest_ms": clock.latest_ms(abandoned.min_idle_ms / 1000)} if takes_over else {}),
            )

        self._unarrived.claiming.add((source, entry_id))
        try:
            asked_at, answer = await self._context.outages.retry("claiming", claim, repair=self._leases.repair)
        finally:
            self._unarrived.claiming.discard((source, entry_id))
        if (claimed := await self._in_term(abandoned.term, answer)) is None:
            return None
        clock.see(claimed.now_ms, asked_at)
        report_ghosts(self._context, source, claimed.ghosts, "pending")
        held = self._inflight.add_claimed(claimed.entries, since=asked_at)
        return held[0] if held else None

    async def run(self) -> None:
        """Take turns until cancelled."""
        next_look = self._context.next_look
        while True:
            next_look.forget()
            pause = await self._context.outages.retry("reclaiming", self._turn, repair=self._leases.repair)
            self.turned_at = time.monotonic()
            next_look.within(pause)
            await asyncio.sleep(MIN_PAUSE)
            await next_look.wait()

    async def _turn(self) -> float:
        """One turn: looks at every source. Returns the seconds until the next turn."""
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + self._settings.consumer_ttl / PRUNES_PER_TTL
            ttl_ms = round(self._settings.consumer_ttl * 1000)
            for source in self._context.sources:
                removed = await groups.prune_consumers(
                    self._context.commands, source, names_of=self._context.sources[0], ttl_ms=ttl_ms
                )
                if removed:
                    logger.info(
                        "removed consumers that were gone and owned nothing: %s",
                        ", ".join(removed),
                        extra={**self._context.log, "stream": source.stream, "removed": removed},
                    )
        if self._corrected_after != (steps := self._context.clock.steps):
            await self._correct_times()
            self._corrected_after = steps
        await self._orphaned_ledgers.turn()
        self._intake.put_back()
        if not self._gate.is_active:
            return MAX_PAUSE
        term = self._gate.term
        looks = await self._pause_state.look()
        if self._gate.is_paused:
            return MAX_PAUSE
        if self._foreseen_in is not term:
            await self._foresee()
            self._foreseen_in = term
        if self._unarrived.is_expected:
            await self._unarrived.take()
        self._found_all = self._all_placed = True
        sources = list(zip(self._context.sources, looks, strict=True))
        for source, look in sources:
            await self._find_abandoned(source, look.pending, term)
        waits = [await self._take_due(source, look.next_due_ms, term) for source, look in sources]
        if self._gate.term is not term:
            return MIN_PAUSE
        wait = min([MAX_PAUSE, *waits])
        if NO_ROOM not in waits:
            self._intake.free_overdue_lanes(self._inflight.is_held)
        nothing_is_due = all(0 < wait < NO_ROOM for wait in waits)
        self._pause_state.looked(nothing_is_due=nothing_is_due)
        if not self._gate.may_read.is_set():
            if nothing_is_due and self._found_all and self._intake.is_empty and self._inflight.rests:
                self._gate.may_read.set()  # everything that other consumers left is processed, or waits in its lane
            return MIN_PAUSE
        return wait

    async def _correct_times(self) -> None:
        """Correct what lies in the future, since the server's clock was set back: at the start nobody knows whether."""
        context = self._context
        corrected = await future_times.correct(
            context.commands,
            context.sources,
            name_ms=NAME_TTL_MS,
            handlers_ms=HANDLERS_TTL_MS,
            exclusive_ms=EXCLUSIVE_TTL_MS,
        )
        if corrected:
            logger.warning(
                "corrected the times of %d pending entries that the server's clock had in the future",
                corrected,
                extra={**context.log, "corrected": corrected},
            )

    async def _foresee(self) -> None:
        """Find out which keys must wait for an entry of another consumer that is to be delivered again."""
        if self._settings.order_by is None or not self._settings.retry_blocks_key:
            return
        commands = self._context.commands
        for source in self._context.sources:
            page = await inspection_queries.waiting(commands, source, most=FORESEEN)
            while rows := page.rows:
                asked = [("XRANGE", source.stream, row.entry_id, row.entry_id) for row in rows]
                for row, reply in zip(rows, await commands.send(asked), strict=True):
                    for entry_id, fields in checked(reply):
                        key, _ = self._planner.key_of(self._planner.plan(RawEntry(source, entry_id, fields)))
                        if key is not None:
                            self._intake.foresee(key, entry_id, (float(row.due) - page.now_ms) / 1000)
                if not page.more:
                    break
                after, until = (rows[-1].due.decode(), rows[-1].entry_id.decode()), page.until.decode()
                page = await inspection_queries.waiting(commands, source, after=after, until=until, most=FORESEEN)

    async def _in_term(self, term: Term | None, claimed: Claimed | None) -> Claimed | None:
        """What was claimed in a term, unless it has ended. Then the active consumer finds it again."""
        if claimed is None:
            await self._exclusivity.confirm()
        return claimed if self._gate.term is term else None

    async def _find_abandoned(self, source: Source, counts: PendingCounts, term: Term | None) -> None:
        # If one consumer is active at a time, all pending entries of others are abandoned, even for a short time.
        least = 1 if self._settings.exclusive else self._settings.claim_min_idle_ms
        idle = list[groups.PendingEntry]()
        if self._settings.exclusive or self._context.clock.may_take_over:
            commands = self._context.commands
            idle = await groups.idle_entries(commands, source, counts, min_idle_ms=least, most=MOST_FOUND)
            self._found_all = self._found_all and len(idle) < MOST_FOUND
            if counts.nobodys:
                after = self._released_after.get(source, b"-")
                released, self._released_after[source] = await groups.released_entries(commands, source, after)
                self._found_all = self._found_all and len(released) >= counts.nobodys
                idle += released
        if self._settings.exclusive:  # they are from several consumers, each list in its own order
            idle.sort(key=lambda found: order(found.entry_id))
        if self._gate.term is not term:
            return
        if any(self._unarrived.includes(source, found) for found in idle):
            self._unarrived.expect()
        abandoned = [
            Abandoned(source, found.entry_id, least, found.deliveries, term)
            for found in idle
            if self._inflight.get(source, found.entry_id) is None and not self._unarrived.was_given_here(found)
        ]
        self._all_placed = self._all_placed and all(map(self._intake.is_in_lane, abandoned))
        self._intake.announce(abandoned)

    async def _take_due(self, source: Source, next_due_ms: int | None, term: Term | None) -> float:
        """Take what is due. Returns the seconds until the next entry is."""
        may_take = self._all_placed or self._gate.may_read.is_set()  # else an earlier one could come after a due one
        if (room := self._intake.room_for_due) == 0 or not may_take or self._gate.term is not term:
            return NO_ROOM
        if next_due_ms != 0:
            return MAX_PAUSE if next_due_ms is None else next_due_ms / 1000
        asked_at = time.monotonic()
        try:
            answer = await groups.claim(
                self._context.commands,
                source,
                self._context.name,
                ids=(),
                min_idle_ms=0,
                due=room,
                term=term,
            )
        except BaseException:  # also if cancelled: the server may have given entries
            self._unarrived.expect()
            raise
        if (due := await self._in_term(term, answer)) is None:
            return NO_ROOM
        self._context.clock.see(due.now_ms, asked_at)
        self._intake.put_due(self._inflight.add_claimed(due.entries, since=asked_at))
        report_ghosts(self._context, source, due.ghosts, "pending")
        return MAX_PAUSE if due.next_due_ms is None else due.next_due_ms / 1000

    async def peek(self, abandoned: Abandoned) -> RawEntry | None:
        """An abandoned entry, without claiming it; None if it is no longer in the stream."""
        source, entry_id, context = abandoned.source, abandoned.entry_id, self._context
        async with self._peeking:  # even if a look must be repeated, entries enter their lanes in order
            fields = await context.outages.retry(
                "looking at an entry", lambda: streams.entry(context.fetching, source.stream, entry_id)
            )
        return None if fields is None else RawEntry(source, entry_id, fields, abandoned.deliveries)


class OrphanedLedgers:
    """Deletes ledgers of settled entries: looks through all ledgers four times in `consumer_ttl`, a page each turn.

    A foreign consumer that settles an entry that waited or was parked does not delete its ledger.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._pause = context.settings.consumer_ttl / LEDGER_LOOKS_PER_TTL
        self._next_at = time.monotonic() + self._pause
        self._cursors: dict[Source, int] = {}
        """Where the next page begins, during a walk."""

    async def turn(self) -> None:
        """Look at a page, if it is time. Raises `RedisError`."""
        if not self._cursors:
            if time.monotonic() < self._next_at:
                return
            self._cursors = dict.fromkeys(self._context.sources, 0)
        for source, cursor in list(self._cursors.items()):
            after, forgotten = await forget_settled(self._context.commands, source, cursor)
            if forgotten:
                logger.info(
                    "deleted the ledgers of %d entries that other consumers had acknowledged",
                    len(forgotten),
                    extra={**self._context.log, "stream": source.stream, "forgotten": forgotten},
                )
            if after:
                self._cursors[source] = after
            else:
                del self._cursors[source]
        if not self._cursors:
            self._next_at = time.monotonic() + self._pause
