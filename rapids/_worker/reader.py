"""The reader: reads new entries while the intake has room."""

import asyncio
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from rapids._storage import groups
from rapids._storage.client.connections import OwnConnection, Reply
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._storage.reads import ReadCommand, TermRead
from rapids._worker.acks import Acks, Batch
from rapids._worker.context import WorkerContext
from rapids._worker.exclusivity import Exclusivity
from rapids._worker.gate import Gate
from rapids._worker.inflight import Inflight
from rapids._worker.intake import Intake
from rapids._worker.leases import Leases
from rapids._worker.losses import Gaps
from rapids._worker.unarrived import Unarrived

__all__ = ["Reader"]

BLOCK_AFTER_ERROR = 1_000
"""Milliseconds that the read after a failed one may wait. Its answer shows that Redis is back, even without new
entries."""


class Reader:
    """Reads the stream and the group's replay stream with one blocking command, on a connection of its own."""

    def __init__(
        self,
        connection: OwnConnection,
        context: WorkerContext,
        gate: Gate,
        inflight: Inflight,
        intake: Intake,
        leases: Leases,
        acks: Acks,
        exclusivity: Exclusivity,
        unarrived: Unarrived,
    ) -> None:
        self._connection = connection
        self._context = context
        self._identity = context.identity
        self._settings = context.settings
        self._gate = gate
        self._inflight = inflight
        self._intake = intake
        self._leases = leases
        self._acks = acks
        self._exclusivity = exclusivity
        self._unarrived = unarrived
        self._gaps = Gaps(context)
        self._stopping = asyncio.Event()
        self._client_id: int | None = None
        self._lost_answer = False
        self._turned_at = time.monotonic()
        self._last_reading: ReadCommand | TermRead | None = None
        self._last_reading_for: object = None
        self.is_waiting = False
        """Whether it may not read now: the intake has no room, or older entries come first."""
        self.reads_as: str | None = None
        """The consumer's name in the latest read."""

    async def run(self) -> None:
        """Read until stopped."""
        outages, may_read, intake, reads = self._context.outages, self._gate.may_read, self._intake, 0
        while not self._stopping.is_set():
            if not (may_read.is_set() and intake.has_room):
                self.is_waiting = True
                try:
                    while not (may_read.is_set() and intake.has_room):  # the first may end while the second is awaited
                        await may_read.wait()
                        await intake.room()
                finally:
                    self.is_waiting = False
                self._turned_at = time.monotonic()
            if self._stopping.is_set():
                return
            if time.monotonic() >= self._gate.active_until and not await self._exclusivity.confirm():
                continue
            try:
                await self._turn()
            except (RedisError, OSError) as error:
                await outages.retry("reading", self._turn, after=error, repair=self._leases.repair)
            self._turned_at = time.monotonic()
            reads += 1
            if reads % self._settings.claim_interval == 0:
                self._context.next_look.now()

    async def _turn(self) -> None:
        if not self._connection.is_connected:
            self._client_id = await groups.client_id(self._connection)
        if self._stopping.is_set():
            return
        unarrived, may_read = self._unarrived, self._gate.may_read
        if self._lost_answer and self._gate.is_active and not self._gate.is_shut and may_read.is_set():
            await unarrived.take()  # they are older than what is read next
            self._lost_answer = False
        if not may_read.is_set():
            return  # another consumer became active since the last attempt, or the group was paused
        asked_at, name, term = time.monotonic(), self._identity.name, self._gate.term
        unarrived.reading_since, self.reads_as = asked_at, name
        try:
            read = await self._read(name)
        except BaseException:  # also if cancelled: the server may have given entries
            self._lost_answer = True
            unarrived.expect()
            raise
        finally:
            unarrived.reading_since = None
        if read is None:
            await self._exclusivity.confirm()
            return
        new = read.get(self._context.sources[0], ())
        if self._gaps.open is not None or len(new) >= self._settings.batch_size:
            self._gaps.read(new)
        given_out = self._inflight.given_out(asked_at)
        if (first_at := self._connection.arrivals.first_at) is not None:
            given_out = min(given_out, max(first_at, self._leases.renewed_at))
        for source, entries in read.items():
            self._inflight.last_read[source] = entries[-1].entry_id.decode()
            if name != self._identity.name or term is not self._gate.term:
                continue  # another process has this one's place, and finds these entries as abandoned
            # An id that is held already was delivered again by a stream that lost its data: its handler runs now.
            self._intake.put(self._inflight.add_new(source, entries, since=given_out))
        if read and self._gate.is_paused:
            self._context.next_look.now()  # to release them

    async def _read(self, name: str) -> dict[Source, list[RawEntry]] | None:
        """The new entries; None if this consumer is no longer the active one of its group.

        Acknowledgements are sent before the read, and answered before it waits for new entries.
        """
        block_ms, reading, for_ = self._settings.block_ms, self._last_reading, (name, self._gate.term)
        if block_ms > BLOCK_AFTER_ERROR and "reading" in self._context.outages.failing:
            reading = self._new_reading(name, BLOCK_AFTER_ERROR)
        elif reading is None or self._last_reading_for != for_:
            reading, self._last_reading_for = self._new_reading(name, block_ms), for_
            self._last_reading = reading
        acks: Batch = {} if self._inflight.registering else self._acks.take()
        open_, sampling = bool(acks), self._gaps.ahead() if time.monotonic() >= self._gaps.next_at else ()

        def on_ahead(replies: Sequence[Reply]) -> None:
            nonlocal open_
            acked = len(replies) - len(sampling)
            if open_:
                open_ = False
                self._acks.answered(acks, replies[:acked])
            if sampling or self._gaps.open is not None:
                self._gaps.sampled(replies[acked:])
            if sampling and isinstance(reading, TermRead):
                reading.check(self._context.sources[0], self._gaps.delivered)

        try:
            return await reading.read(self._connection, acks, on_ahead, sampling)
        except (RedisError, OSError) as error:
            if open_:
                open_ = False
                self._acks.failed(acks, error)
            raise
        finally:
            if open_:  # interrupted
                self._acks.requeue(acks)

    def _new_reading(self, name: str, block_ms: int) -> ReadCommand | TermRead:
        sources, count, gate = self._context.sources, self._settings.batch_size, self._gate
        if gate.term is None:
            return ReadCommand(sources, name, count=count, block_ms=block_ms)

        def may_take() -> bool:
            return gate.may_read.is_set() and not self._stopping.is_set()

        return TermRead(sources, name, gate.term, count=count, block_ms=block_ms, may_take=may_take)

    @property
    def turned_at(self) -> float:
        """When it last took a turn or got a part of an answer (`time.monotonic()`, seconds): now, while a read waits no
        longer than `block_ms`."""
        now = time.monotonic()
        if not self._gate.may_read.is_set():
            return now  # on standby, or older entries come first
        since = self._unarrived.reading_since
        is_waiting = since is not None and now - since <= self._settings.block_ms / 1000
        return now if is_waiting else max(self._turned_at, self._connection.arrivals.last_at)

    def stop(self) -> None:
        """Read no more. A blocked read continues until `unblock`."""
        self._stopping.set()
        self._gate.may_read.set()

    async def unblock(self) -> None:
        """Let a blocked read return at once. A cancellation could lose entries that the server has just delivered."""
        commands = self._context.commands
        blocked = self._client_id if self._unarrived.reading_since is not None else None
        # On another node of a Cluster, this number is the id of another connection.
        if blocked is not None and commands.server == self._connection.server:
            await groups.unblock(commands, blocked)
