"""Taking operations that no process has, and carrying them out."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import get_args
from uuid import uuid4

from redis.exceptions import RedisError

from rapids._core.outages import HaltedError, Outages, Retries
from rapids._core.redis_errors import is_outage, is_refused, reason
from rapids._core.supervision import TaskSupervisor, end_task
from rapids._storage import letter_index
from rapids._storage import operation_records as stored
from rapids._storage.client.connections import Commands
from rapids._storage.letter_moves import NoRoomError, WorkStoppedError
from rapids._storage.operation_records import LEASE_MS, Claim
from rapids.dead_letters.moves import Letters, Selected, Step
from rapids.dead_letters.operation import Operation, OperationKind, read_operation, write_error
from rapids.dead_letters.selection import Chunk
from rapids.exceptions import LetterNotFoundError, LetterStateError, OperationNotFoundError

__all__ = ["LARGEST_BATCH", "POLL_PAUSE", "Batches", "Operating", "Pace", "Runner", "new_token"]

LARGEST_BATCH = 400
"""Letters moved in one step: some 10 ms of the server's time, for which everybody else waits."""

STEP_SECONDS = 0.5
"""With a rate limit, about how many seconds' letters are moved in one step."""


class Pace:
    """Says how many letters the next step may take, and when it may begin. `rate` in letters a second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = 0.0

    @property
    def batch(self) -> int:
        """Letters for the next step."""
        return LARGEST_BATCH if self._rate is None else max(1, min(LARGEST_BATCH, int(self._rate * STEP_SECONDS)))

    @property
    def wait(self) -> float:
        """Seconds until the next step may begin."""
        return max(0.0, self._due - time.monotonic())

    def took(self, letters: int) -> None:
        """A step has dealt with so many. Time that was lost, in an outage say, is not made up for."""
        if self._rate is not None:
            self._due = max(self._due, time.monotonic()) + letters / self._rate


MOST_SINGLY = 100


class Batches:
    """Moves letters in order, as many in one step as may be; those that others may not be moved with, by themselves."""

    def __init__(self, commands: Commands, letters: Letters, step: Step, retries: Retries, pace: Pace) -> None:
        self._commands = commands
        self._letters = letters
        self._step = step
        self._retries = retries
        self._pace = pace
        self._singly = 0
        """How many of the next letters to move by themselves: more each time that one after another has to be."""
        self._singly_before = 0

    async def dealt_with(self, places: Sequence[str]) -> bool:
        """Move them all; one that cannot be moved is counted, and the rest goes on.

        False after an outage: whether the last step was taken, Redis must be asked. Raises `HaltedError` when told to
        halt, or if the operation is not this process's to run any more.
        """
        try:
            while places:
                await self._retries.sleep(self._pace.wait)
                count = await (self._one(places[0]) if self._singly else self._many(places))
                self._retries.worked()
                self._pace.took(count)
                places = places[count:]
        except WorkStoppedError:
            raise HaltedError from None
        except (RedisError, OSError) as error:
            await self._retries.failed(error)
            return False
        return True

    async def _many(self, places: Sequence[str]) -> int:
        """How many were dealt with."""
        batch = places[: self._pace.batch]
        try:
            moved = await self._letters.move_many(self._step, batch)
        except RedisError as error:
            if _is_of_all(error):
                raise
            self._singly = len(batch)  # one of them is such that the script breaks: which, will be seen
            return 0
        if moved.last is not None:
            self._singly_before = 0
        if moved.blocked is not None or moved.last is None:
            self._singly = self._singly_before = min(2 * self._singly_before or 1, MOST_SINGLY)
        return 0 if moved.last is None else batch.index(moved.last) + 1

    async def _one(self, place: str) -> int:
        self._singly -= 1
        try:
            await self._letters.move_one(self._step, place)
        except (LetterNotFoundError, LetterStateError):
            await self._pass_over("skipped", place)
        except WorkStoppedError:
            raise
        except Exception as error:  # of one letter, which may hold anything
            if _is_of_all(error):
                raise
            await self._pass_over("failed", place, write_error(await self._id_of(place), error))
        return 1

    async def _id_of(self, place: str) -> str:
        """The letter's own id; its place where it is gone."""
        for letter in await self._letters.read(self._step.kind, [place]):
            return letter.id
        return place

    async def _pass_over(self, counted_as: str, place: str, error: str = "") -> None:
        if not await stored.pass_over(self._commands, self._step.claim, counted_as, place, error):
            raise HaltedError


def _is_of_all(error: Exception) -> bool:
    """Whether another letter would meet the same."""
    if isinstance(error, NoRoomError):
        return True
    return isinstance(error, RedisError | OSError) and (is_outage(error) or is_refused(error))


logger: logging.Logger = logging.getLogger("rapids.operations")

CHUNK = 5 * LARGEST_BATCH
RENEWAL_PAUSE = LEASE_MS / 3000

LEAVE_TIMEOUT = 1.0
"""Seconds to let go of an operation in the end; where Redis is away its lease runs out."""


class Operating:
    """An operation that this process has taken, until it ends, is paused or taken away, or is halted here.

    Letters are selected in chunks, the next one while the last is moved. Counts and places are written in the step
    that moves letters, so that the next process continues where this one ended.
    """

    def __init__(self, commands: Commands, letters: Letters, claim: Claim, outages: Outages) -> None:
        self._commands = commands
        self._letters = letters
        self._claim = claim
        self._halt = asyncio.Event()
        self._context = {"dlq": claim.dlq, "operation": claim.operation_id, "kind": claim.kind}
        self._retries = Retries(outages, f"operation {claim.operation_id}", self._halt)
        self._supervisor = TaskSupervisor(f"rapids-operation:{claim.operation_id}", self._halt, logger, self._context)
        self._pace: Pace | None = None

    def halt(self) -> None:
        """Let the step under way be the last one."""
        self._halt.set()

    async def run(self) -> bool:
        """Carry it out; whether it has ended here. What stops it is kept with it, and logged."""
        has_ended = False
        self._supervisor.start("lease", self._renew)
        try:
            has_ended = await self._carried_out()
        except HaltedError:
            logger.info("operation %s is left as it is", self._claim.operation_id, extra=self._context)
        except OperationNotFoundError:
            logger.warning("operation %s is gone", self._claim.operation_id, extra=self._context)
        except Exception:  # ending it failed as well: another process is to find it as it is
            logger.exception("operation %s is left as it is", self._claim.operation_id, extra=self._context)
        finally:
            await self._supervisor.end_all()
            if not has_ended:
                await self._let_go()
        return has_ended

    async def _carried_out(self) -> bool:
        """Whether it is over; not so if another process has it by now."""
        try:
            logger.info("operation %s is begun, or gone on with", self._claim.operation_id, extra=self._context)
            while not await self._dealt_with_all(*await self._retries.run(self._look)):
                pass  # Redis was away: how far it is, is what Redis says by now
        except (HaltedError, OperationNotFoundError):
            raise
        except Exception as error:  # whatever it is, another process would meet it as well
            logger.exception("operation %s failed", self._claim.operation_id, extra=self._context)
            return await self._end("failed", write_error("", error))
        return await self._end("completed")

    async def _look(self) -> tuple[Operation, str]:
        """The operation, and the place up to which letters were dealt with."""
        claim = self._claim
        if (found := await stored.read(self._commands, claim.dlq, claim.operation_id)) is None:
            raise OperationNotFoundError(claim.operation_id)
        fields, errors = found
        return read_operation(claim.operation_id, fields, errors), fields["cursor"] or "0-0"

    async def _end(self, state: str, error: str = "") -> bool:
        ended = await self._retries.run(lambda: stored.leave(self._commands, self._claim, state, error=error))
        if ended:
            logger.info("operation %s has ended: %s", self._claim.operation_id, state, extra=self._context)
        return ended

    async def _let_go(self) -> None:
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT):
                await stored.leave(self._commands, self._claim)

    async def _renew(self) -> None:
        """Keep the operation, until it is another's, paused or ended."""
        while True:
            await asyncio.sleep(RENEWAL_PAUSE)
            try:
                if not await stored.renew(self._commands, self._claim):
                    self.halt()
                    return
            except (RedisError, OSError) as error:
                logger.debug("a lease was not renewed: %s", reason(error), extra=self._context)

    async def _dealt_with_all(self, operation: Operation, after: str) -> bool:
        """Deal with the letters selected behind a place; False if an outage came in between."""
        claim, left = self._claim, operation.left
        if left == 0:
            return True
        self._pace = self._pace or Pace(operation.rate)
        selected = self._letters.select(operation.kind, operation.selector)
        step = Step(claim, operation.kind, operation.scope, operation.actor, operation.reason)
        batches = Batches(self._commands, self._letters, step, self._retries, self._pace)
        async with aclosing(self._chunks(selected, after, operation.upto)) as chunks:
            async for chunk in chunks:
                places = chunk.entry_ids if left is None else chunk.entry_ids[:left]
                if not await batches.dealt_with(places):
                    return False
                left = None if left is None else left - len(places)
                if left == 0:
                    return True
        return True

    async def _chunks(self, selected: Selected, after: str, upto: str) -> AsyncGenerator[Chunk]:
        """What is selected, chunk by chunk, each asked for while the one before it is dealt with."""

        def asked_for(behind: str) -> "asyncio.Task[Chunk]":
            asking = self._retries.run(lambda: selected.following(behind, upto, CHUNK))
            return asyncio.create_task(asking, name=f"rapids-operation-selection:{self._claim.operation_id}")

        ahead = asked_for(after)
        try:
            while not (chunk := await ahead).done:
                ahead = asked_for(chunk.scanned_to)
                yield chunk
            yield chunk
        finally:
            await end_task(ahead)


logger: logging.Logger = logging.getLogger("rapids.operations")

POLL_PAUSE = 2.0
"""Seconds between two looks for operations that nobody runs: what all this costs while there are none."""


INDEX_PAUSE = 0.02
"""Seconds between two steps of a thousand letters each that others wrote past the index: the server has other work."""


def new_token() -> str:
    """Who runs an operation: the process, for people, and what no other one has."""
    return f"{socket.gethostname().replace(':', '-')}-{os.getpid()}:{uuid4().hex}"


class Runner:
    """Runs operations of a dead-letter stream, at most one of each kind at a time, until told to stop; and sees to it
    that letters which others wrote are indexed, after an upgrade or `reindex` say."""

    def __init__(self, commands: Commands, dlq: str, letters: Letters, stop: asyncio.Event) -> None:
        self._commands = commands
        self._dlq = dlq
        self._letters = letters
        self._stop = stop
        self._outages = Outages(logger, {"dlq": dlq})
        self._retries = Retries(self._outages, "taking operations", stop)
        self._wake = asyncio.Event()
        self._running: dict[str, tuple[Operating, asyncio.Task[bool]]] = {}

    def wake(self) -> None:
        """Look now: there is something to do."""
        self._wake.set()

    async def run(self) -> None:
        """Take and run operations until stopped. The steps in progress are finished first.

        Raises `RedisError` for what is no outage: no right to a command, say.
        """
        stopping = asyncio.create_task(self._until_stopped(), name=f"rapids-operations-stop:{self._dlq}")
        try:
            while not self._stop.is_set():
                self._wake.clear()
                await self._take()
                pause = POLL_PAUSE if await self._is_indexed() else INDEX_PAUSE
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        except HaltedError:
            pass
        finally:
            await end_task(stopping)
            await self._finish()

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        self.wake()

    async def _take(self) -> None:
        """Take what there is to take, of the kinds of which none is run here."""
        self._running = {kind: one for kind, one in self._running.items() if not one[1].done()}
        while kinds := [kind for kind in get_args(OperationKind) if kind not in self._running]:
            try:
                claim = await stored.claim(self._commands, self._dlq, kinds, new_token())
            except (RedisError, OSError) as error:
                await self._retries.failed(error)
                continue
            self._retries.worked()
            if claim is None:
                return
            self._begin(claim)

    async def _is_indexed(self) -> bool:
        """Catch up with the index a little; whether there is nothing more to do. A failure is left to the next look."""
        try:
            return await letter_index.catch_up(self._commands, self._dlq)
        except (RedisError, OSError):
            return True

    def _begin(self, claim: Claim) -> None:
        operating = Operating(self._commands, self._letters, claim, self._outages)
        task = asyncio.create_task(operating.run(), name=f"rapids-operation:{claim.operation_id}")
        task.add_done_callback(lambda _: self.wake())  # it, or another of its kind, may be there to be taken
        self._running[claim.kind] = operating, task

    async def _finish(self) -> None:
        """Let the steps in progress be the last ones. Cancelling this cancels them."""
        for operating, _ in self._running.values():
            operating.halt()
        if tasks := {task for _, task in self._running.values()}:
            try:
                await asyncio.wait(tasks)
            finally:
                for task in tasks:
                    await end_task(task)
