"""The runner of operations: takes those that no process has, and moves their letters step by step."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import partial
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
from rapids.dead_letters.canary_watch import CanaryStopError, CanaryWatch
from rapids.dead_letters.moves import QueueMoves
from rapids.dead_letters.operation import (
    Operation,
    OperationKind,
    Step,
    read_operation,
    search_for,
    write_error,
)
from rapids.dead_letters.selection import Batch, Search, Span
from rapids.exceptions import LetterNotFoundError, LetterStateError, OperationNotFoundError

__all__ = ["MAX_STEP", "POLL_PAUSE", "OperationRun", "Pace", "Runner", "StepMover", "new_token"]

MAX_STEP = 400
"""Letters moved in one step: about 10 ms of the server's time, in which it does nothing else."""

STEP_SECONDS = 0.5
"""With a rate limit, the letters of about so many seconds are moved in one step."""


class Pace:
    """How many letters the next step may move, and when it may begin. `rate` is in letters a second."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._due = 0.0

    @property
    def step(self) -> int:
        """Letters for the next step."""
        return MAX_STEP if self._rate is None else max(1, min(MAX_STEP, int(self._rate * STEP_SECONDS)))

    @property
    def wait(self) -> float:
        """Seconds until the next step may begin."""
        return max(0.0, self._due - time.monotonic())

    def moved(self, letters: int) -> None:
        """A step has processed so many. Time that was lost, for example in an outage, is not caught up."""
        if self._rate is not None:
            self._due = max(self._due, time.monotonic()) + letters / self._rate


MAX_SINGLE = 100


class StepMover:
    """Moves letters in order, as many as possible in one step. Letters that cannot be moved with others go singly."""

    def __init__(
        self, commands: Commands, moves: QueueMoves, search: Search, step: Step, retries: Retries, pace: Pace
    ) -> None:
        self._commands = commands
        self._moves = moves
        self._search = search
        self._step = step
        self._retries = retries
        self._pace = pace
        self._single = 0
        """How many of the next letters to move singly: more each time that a letter blocks others in a row."""
        self._single_before = 0

    async def move(self, places: Sequence[str]) -> bool:
        """Move all of them. A letter that cannot be moved is counted, and the others are moved.

        False after an outage, and if the server has lost a step in a failover: only Redis knows where the operation is.
        Raises `HaltedError` if this was
        halted, or if this process no longer has the operation.
        """
        try:
            while places:
                await self._retries.sleep(self._pace.wait)
                if self._single:
                    self._single -= 1
                    await self._move_one(places[0])
                    count = 1
                else:
                    count = await self._move_many(places[: self._pace.step])
                self._retries.worked()
                self._pace.moved(count)
                if count:
                    self._step = replace(self._step, claim=replace(self._step.claim, after=places[count - 1]))
                places = places[count:]
        except WorkStoppedError:
            raise HaltedError from None
        except stored.ElsewhereError:
            claim = self._step.claim
            logger.info(
                "operation %s is at another place than it was left at: its next letters are read again",
                claim.operation_id,
                extra={"dlq": claim.dlq, "operation": claim.operation_id, "kind": claim.kind},
            )
            return False
        except (RedisError, OSError) as error:
            await self._retries.failed(error)
            return False
        return True

    async def _move_many(self, places: Sequence[str]) -> int:
        """How many were processed."""
        step = self._step
        try:
            if step.kind == "restore":
                moved = await self._moves.restore_many(places, step.claim, step.change)
            else:
                scope = step.scope if step.kind == "replay" else ""
                moved = await self._moves.move_many(places, step.claim, step.change, scope=scope)
        except RedisError as error:
            if _concerns_all(error):
                raise
            self._single = len(places)  # the script fails for one of them: which one, the next steps find out
            return 0
        if moved.last is not None:
            self._single_before = 0
        if moved.blocked is not None or moved.last is None:
            self._single = self._single_before = min(2 * self._single_before or 1, MAX_SINGLE)
        return 0 if moved.last is None else places.index(moved.last) + 1

    async def _move_one(self, place: str) -> None:
        try:
            await self._moves.move_one(self._step, place)
            return
        except (LetterNotFoundError, LetterStateError):
            counted_as, why = "skipped", ""
        except (WorkStoppedError, stored.ElsewhereError):
            raise
        except Exception as error:  # of one letter, which may have any content
            if _concerns_all(error):
                raise
            letter_id = next((letter.id for letter in await self._search.read([place])), place)
            counted_as, why = "failed", write_error(letter_id, error)
        if not await stored.count_unmoved(self._commands, self._step.claim, counted_as, place, why):
            raise HaltedError


def _concerns_all(error: Exception) -> bool:
    """Whether the same would happen to other letters."""
    if isinstance(error, NoRoomError):
        return True
    return isinstance(error, RedisError | OSError) and (is_outage(error) or is_refused(error))


logger: logging.Logger = logging.getLogger("rapids.operations")

BATCH = 5 * MAX_STEP
RENEWAL_PAUSE = LEASE_MS / 3000

LEAVE_TIMEOUT = 1.0
"""Seconds to release an operation at the end. If Redis is unavailable, its lease expires."""


@dataclass(frozen=True, slots=True)
class End:
    """How an operation ends, or is paused: the state, an error or "", and why its canary stopped."""

    state: str
    error: str = ""
    stopped: str = ""
    why: str = ""


class OperationRun:
    """The run of an operation that this process has taken, until it ends, is paused or taken away, or is halted here.

    Letters are found in batches, the next one while the last is moved. Counts and places are written in the step that
    moves letters, so that the next process continues where this one ended.
    """

    def __init__(self, commands: Commands, moves: QueueMoves, claim: Claim, outages: Outages) -> None:
        self._commands = commands
        self._moves = moves
        self._claim = claim
        self._halt = asyncio.Event()
        self._context = {"dlq": claim.dlq, "operation": claim.operation_id, "kind": claim.kind}
        self._retries = Retries(outages, f"operation {claim.operation_id}", self._halt)
        self._supervisor = TaskSupervisor(f"rapids-operation:{claim.operation_id}", self._halt, logger, self._context)

    def halt(self) -> None:
        """End after the current step."""
        self._halt.set()

    async def run(self) -> bool:
        """Run it. Returns whether it has ended here. An error is stored with it, and logged."""
        operation_id, has_ended = self._claim.operation_id, False
        self._supervisor.start("lease", self._renew)
        try:
            end = await self._move_all()
            leave = partial(
                stored.leave, self._commands, self._claim, end.state, error=end.error, stopped=end.stopped, why=end.why
            )
            if has_ended := await self._retries.run(leave):  # not so if another process has it now
                log = logger.warning if end.stopped else logger.info
                what = "is paused by its canary" if end.state == "paused" else f"has ended: {end.state}"
                log("operation %s %s%s", operation_id, what, end.why and f": {end.why}", extra=self._context)
        except HaltedError:
            logger.info("operation %s no longer runs in this process", operation_id, extra=self._context)
        except OperationNotFoundError:
            logger.warning("operation %s is gone", operation_id, extra=self._context)
        except Exception:  # ending it failed too: another process finds it as it is
            logger.exception("operation %s no longer runs in this process", operation_id, extra=self._context)
        finally:
            await self._supervisor.end_all()
            if not has_ended:
                with suppress(RedisError, OSError, TimeoutError):
                    async with asyncio.timeout(LEAVE_TIMEOUT):
                        await stored.leave(self._commands, self._claim)
        return has_ended

    async def _move_all(self) -> End:
        """Move the letters, until the operation ends or its canary stops it."""
        operation_id, pace = self._claim.operation_id, None
        try:
            logger.info("operation %s is started or continued", operation_id, extra=self._context)
            while True:
                operation, after = await self._retries.run(self._read)
                pace = pace or Pace(operation.rate)
                if await self._move_from(operation, after, pace):
                    return End("completed")
        except CanaryStopError as stop:
            return End("completed" if stop.is_last else "paused", stopped=stop.stop, why=stop.why)
        except (HaltedError, OperationNotFoundError):
            raise
        except Exception as error:  # another process would have the same error
            logger.exception("operation %s failed", operation_id, extra=self._context)
            return End("failed", write_error("", error))

    async def _read(self) -> tuple[Operation, str]:
        """The operation, and the place until which letters were processed."""
        claim = self._claim
        if (found := await stored.read(self._commands, claim.dlq, claim.operation_id)) is None:
            raise OperationNotFoundError(claim.operation_id)
        fields, errors = found
        return read_operation(claim.operation_id, fields, errors), fields["cursor"] or "0-0"

    async def _move_from(self, operation: Operation, after: str, pace: Pace) -> bool:
        """Move the letters after a place. False after an outage. Raises `CanaryStopError`."""
        canary = CanaryWatch(self._commands, self._claim, self._retries) if operation.canary else None
        left = operation.left
        search = search_for(self._commands, self._claim.dlq, operation.kind, operation.selector)
        claim = replace(self._claim, after=after)
        step = Step(claim, operation.kind, operation.scope, operation.actor, operation.reason)
        mover = StepMover(self._commands, self._moves, search, step, self._retries, pace)
        async with aclosing(self._batches(search, Span(after, operation.upto))) as batches:
            async for batch in batches:
                places = batch.places if left is None else batch.places[:left]
                left = None if left is None else left - len(places)
                while places:
                    count = len(places) if canary is None else min(await canary.room(), pace.step)
                    if not await mover.move(places[:count]):
                        return False
                    places = places[count:]
                if left == 0:
                    break
        if canary is not None:
            await canary.finish()
        return True

    async def _batches(self, search: Search, span: Span) -> AsyncGenerator[Batch]:
        """What the search finds. The next batch is requested while the last one is moved."""

        def requested(rest: Span) -> "asyncio.Task[Batch]":
            request = self._retries.run(lambda: search.step(rest, BATCH))
            return asyncio.create_task(request, name=f"rapids-operation-search:{self._claim.operation_id}")

        following = requested(span)
        try:
            while (rest := (batch := await following).rest) is not None:
                following = requested(rest)
                yield batch
            yield batch
        finally:
            await end_task(following)

    async def _renew(self) -> None:
        """Renew the lease, until another process has the operation, or it is paused or ended."""
        while True:
            await asyncio.sleep(RENEWAL_PAUSE)
            try:
                if not await stored.renew(self._commands, self._claim):
                    self.halt()
                    return
            except (RedisError, OSError) as error:
                logger.debug("a lease was not renewed: %s", reason(error), extra=self._context)


POLL_PAUSE = 2.0
"""Seconds between two queries for operations that no process has. While there are none, this is the whole cost."""

INDEX_PAUSE = 0.02
"""Seconds between two steps that each index a thousand letters that others wrote: the server has other work to do."""


def new_token() -> str:
    """The owner of an operation: the process, for readers, and a part that no other owner has."""
    return f"{socket.gethostname().replace(':', '-')}-{os.getpid()}:{uuid4().hex}"


class Runner:
    """Runs operations of a dead-letter stream, at most one of each kind at a time, until `stop` is set.

    It also indexes letters that were written without the index, for example after an upgrade or `reindex`.
    """

    def __init__(self, commands: Commands, dlq: str, moves: QueueMoves, stop: asyncio.Event) -> None:
        self._commands = commands
        self._dlq = dlq
        self._moves = moves
        self._stop = stop
        self._outages = Outages(logger, {"dlq": dlq})
        self._retries = Retries(self._outages, "taking operations", stop)
        self._wake = asyncio.Event()
        self._running: dict[str, tuple[OperationRun, asyncio.Task[bool]]] = {}

    def wake(self) -> None:
        """Look for operations at once."""
        self._wake.set()

    async def run(self) -> None:
        """Take and run operations until stopped. The steps in progress are finished first.

        Raises `RedisError` for an error that is no outage, for example a missing permission.
        """

        async def wake_when_stopped() -> None:
            await self._stop.wait()
            self.wake()

        stopping = asyncio.create_task(wake_when_stopped(), name=f"rapids-operations-stop:{self._dlq}")
        try:
            while not self._stop.is_set():
                self._wake.clear()
                await self._take()
                try:
                    is_indexed = await letter_index.catch_up(self._commands, self._dlq)
                except (RedisError, OSError):  # the next query tries again
                    is_indexed = True
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_PAUSE if is_indexed else INDEX_PAUSE):
                        await self._wake.wait()
        except HaltedError:
            pass
        finally:
            await end_task(stopping)
            for operation, _ in self._running.values():
                operation.halt()  # after the step in progress
            tasks = {task for _, task in self._running.values()}
            try:
                if tasks:
                    await asyncio.wait(tasks)
            finally:
                for task in tasks:
                    await end_task(task)

    async def _take(self) -> None:
        """Take operations of the kinds that do not run here."""
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
            run = OperationRun(self._commands, self._moves, claim, self._outages)
            task = asyncio.create_task(run.run(), name=f"rapids-operation:{claim.operation_id}")
            task.add_done_callback(lambda _: self.wake())  # there may be another operation of its kind
            self._running[claim.kind] = run, task
