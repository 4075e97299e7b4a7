"""Group commit: emits that arrive during a write are sent together in the next write."""

import asyncio
import os
import sys
from collections import deque
from collections.abc import Sequence

from redis.exceptions import RedisError

from rapids._core.settings import EmitterSettings
from rapids._emit.faults import timed_out
from rapids._emit.write import Appended, Emit, EmitCounts, Outgoing, Shortfall, Write
from rapids._storage.appends import EntryPacker, LentConnection
from rapids._storage.client.connections import Client, check_process
from rapids._wire.entry_format import EVENT_FIELDS
from rapids._wire.trace_context import TRACE_FIELDS
from rapids.exceptions import NotConfiguredError

__all__ = ["Appender"]

MAX_WRITE = 1_000
"""The most entries in one write; a single emit is never split."""

MAX_WRITE_BYTES = 4_000_000
"""The number of bytes in one write after which no further emit joins it."""

MAX_QUEUE = 10_000
"""The most entries that wait for their write. Further callers wait before their events are encoded and stored here."""

OTHER_LOOP = (
    "the emitter is in use on another event loop, which runs in another thread, and connections to Redis belong to one "
    "event loop: hand the event over with asyncio.run_coroutine_threadsafe(emitter.emit(...), loop) or, in a thread "
    "that FastAPI or anyio started, anyio.from_thread.run(emitter.emit, event); or give this thread an EventEmitter "
    "with a client of its own"
)

EXPIRY_PAUSE = 0.05
"""Seconds between two searches for emits whose deadline has passed, if many deadlines follow each other."""


class Appender:
    """Appends to one stream over a user's pool.

    A separate task does the writes and exists while there is something to write, so a cancelled caller does not cancel
    the write of others. If no write is in progress, one starts at once.
    """

    def __init__(self, client: Client, settings: EmitterSettings, counts: EmitCounts) -> None:
        self._commands = LentConnection(client, settings.stream)
        self.pack = EntryPacker(settings.stream, EVENT_FIELDS, settings.maxlen).pack
        """Packs an entry's values as a command."""
        self.pack_traced = [
            EntryPacker(settings.stream, (*EVENT_FIELDS, *TRACE_FIELDS[:count]), settings.maxlen).pack
            for count in range(len(TRACE_FIELDS) + 1)
        ]
        """The same for entries that have the first fields of a trace context as well, by the number of these."""
        self._settings = settings
        self._counts = counts
        self._last_seen: str | None = None
        self._task_name = f"rapids:{settings.stream}:writer"
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:  # it belongs to the loop of the first emit
            self._loop = None
        self._process = os.getpid()
        self._begin_on(self._loop)

    def _begin_on(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Start with an empty state for this event loop: work of an earlier event loop is lost with that loop.

        Raises `NotConfiguredError` while the earlier one runs in another thread, or if the process that forked this one
        may still use it.
        """
        if self._loop is not None:
            check_process(self._process, self._loop)
        if loop is not self._loop and self._loop is not None and self._loop.is_running():
            raise NotConfiguredError(OTHER_LOOP)
        self._left_loop = loop is not self._loop and self._loop is not None
        """Whether the client may have connections of an earlier event loop."""
        self._loop, self._process = loop, os.getpid()
        self._queue: deque[Emit] = deque()
        self._queued = 0
        self._waiting_for_room: deque[asyncio.Future[None]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._write: Write | None = None
        """The write in progress."""
        self._expiry: asyncio.TimerHandle | None = None
        """One timer for the deadlines of all emits. It runs on after its emit has ended: that costs less."""

    def append(self, outgoing: Sequence[Outgoing], deadline: float) -> "asyncio.Future[Appended]":
        """Append entries in order, until all are stored or refused, or the retries are used up.

        At `deadline`, by the event loop's time, it ends in any case.

        Cancelling it disturbs no other: a write in progress continues, and entries whose write has not begun are left
        out.
        """
        loop = asyncio.get_running_loop()
        if loop is not self._loop or os.getpid() != self._process:
            self._begin_on(loop)
        done: asyncio.Future[Appended] = loop.create_future()
        self._queue.append(Emit(outgoing, done, self._counts, deadline))
        if self._expiry is None or deadline < self._expiry.when():
            self._expire_at(loop, deadline)
        self._queued += len(outgoing)
        if self._writer is None:
            work = self._write_all()
            if sys.version_info >= (3, 12):  # a turn of the event loop costs a tenth of an emit
                writer = asyncio.Task(work, loop=loop, name=self._task_name, eager_start=True)
            else:
                writer = loop.create_task(work, name=self._task_name)
            self._writer = None if writer.done() else writer
        return done

    @property
    def is_full(self) -> bool:
        """Whether so many entries wait that the caller must await `room` before it appends."""
        return self._queued >= MAX_QUEUE or bool(self._waiting_for_room)

    async def room(self, deadline: float) -> None:
        """Wait for a turn to append. Turns come in the order of the calls. Raises `TimeoutError` at the deadline."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            return
        turn = loop.create_future()
        self._waiting_for_room.append(turn)
        try:
            async with asyncio.timeout_at(deadline):
                await turn
        finally:
            self._waiting_for_room.remove(turn)
            self._tell_room()

    async def drain(self) -> None:
        """Wait until no write is in progress and none waits."""
        while (writer := self._writer) is not None and self._loop is asyncio.get_running_loop():
            await asyncio.wait([writer])

    def _tell_room(self) -> None:
        if self._waiting_for_room and self._queued < MAX_QUEUE and not self._waiting_for_room[0].done():
            self._waiting_for_room[0].set_result(None)

    def _expire_at(self, loop: asyncio.AbstractEventLoop, deadline: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = loop.call_at(deadline, self._expire, loop)

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give a result to each emit whose deadline has passed."""
        self._expiry = None
        if loop is not self._loop:
            return
        now = loop.time()
        emits = list(self._queue)
        if self._write is not None:
            self._write.expire(now)
            emits += self._write.emits
        for emit in self._queue:
            if emit.deadline <= now and not emit.done.done():
                error = timed_out(self._settings.timeout)
                emit.settle(Shortfall([None] * len(emit.outgoing), frozenset(), 0, error))
        if rest := [emit.deadline for emit in emits if not emit.done.done()]:
            self._expire_at(loop, max(min(rest), now + EXPIRY_PAUSE))

    async def _write_all(self) -> None:
        try:
            if self._left_loop:
                await self._commands.leave_loop()
                self._left_loop = False
            while emits := self._next() or await self._rest():
                write = self._write = Write(self._commands, self._settings, emits, self._last_seen)
                await write.run()
                self._write, self._last_seen = None, write.last_id
                if self._commands.is_wanted:
                    await self._commands.return_connection()
        except BaseException as error:  # cancelled with its event loop, or a bug of Rapids: no caller may wait forever
            why = RedisError(f"the write was interrupted: {type(error).__name__}: {error}")
            if self._write is not None:
                self._write.abandon(why)
                self._write = None
            for emit in self._queue:
                if emit.done.done():
                    continue  # cancelled before it began
                emit.settle(Shortfall([None] * len(emit.outgoing), frozenset(), 0, why))
            self._queue.clear()
            self._queued = 0
            await self._commands.return_connection()
            if not isinstance(error, Exception):  # the callers have got any other
                raise
        finally:
            self._writer = None

    async def _rest(self) -> list[Emit]:
        """The emits that arrived during the write. If there are none, the connection is returned to its pool first.

        A caller that just got its result often emits again at once. Waiting for one turn of the event loop avoids a new
        task and another borrowed connection.
        """
        await asyncio.sleep(0)
        if emits := self._next():
            return emits
        await self._commands.return_connection()
        return self._next()

    def _next(self) -> list[Emit]:
        """The emits of the next write: the earliest, as many as fit. Cancelled ones are left out."""
        taken: list[Emit] = []
        entries = size = 0
        while self._queue and entries < MAX_WRITE and size < MAX_WRITE_BYTES:
            emit = self._queue[0]
            if taken and entries + len(emit.outgoing) > MAX_WRITE:
                break
            self._queue.popleft()
            self._queued -= len(emit.outgoing)
            if not emit.done.done():
                taken.append(emit)
                entries += len(emit.outgoing)
                size += sum([len(one.packed) for one in emit.outgoing])
        self._tell_room()
        return taken
