"""Carrying out one operation, for as long as this process has it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError

from rapids.dead_letters.choosing import earlier
from rapids.dead_letters.moving import Letters, Selected, Step
from rapids.dead_letters.operation import Operation
from rapids.dead_letters.pacing import LARGEST_BATCH, Pace
from rapids.dead_letters.patience import HaltedError, Patience
from rapids.dead_letters.selecting import Chunk
from rapids.dead_letters.stored_operations import read_operation, write_error
from rapids.exceptions import LetterNotFoundError, LetterStateError, OperationNotFoundError
from rapids.reasons import reason
from rapids.storage import operations as stored
from rapids.storage.connection import Commands, is_outage
from rapids.storage.moving import WorkStoppedError
from rapids.storage.operations import LEASE_MS, Claim

__all__ = ["Operating"]

logger = logging.getLogger("rapids.operations")

CHUNK = 2 * LARGEST_BATCH
MOST_SINGLY = 100
RENEWAL_PAUSE = LEASE_MS / 3000

LEAVE_TIMEOUT = 1.0
"""Seconds to let go of an operation in the end; where Redis is away its lease runs out."""

REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
"""What no letter is to blame for."""


class Operating:
    """An operation that this process has taken, until it ends, is paused or taken away, or this is told to halt.

    Letters are selected in chunks, the next one while the last is moved. Counts and places are written in the step
    that moves letters, so that whoever goes on with the operation begins where this process ended.
    """

    def __init__(self, commands: Commands, letters: Letters, claim: Claim) -> None:
        self._commands = commands
        self._letters = letters
        self._claim = claim
        self._halt = asyncio.Event()
        self._context = {"dlq": claim.dlq, "operation": claim.operation_id, "kind": claim.kind}
        self._patience = Patience(self._halt, self._context)
        self._scanned = "0-0"
        """All that is selected up to this place was dealt with."""

    def halt(self) -> None:
        """Let the step under way be the last one."""
        self._halt.set()

    async def run(self) -> bool:
        """Carry it out; whether it has ended here. What stops it is kept with it, and logged."""
        has_ended = False
        renewing = asyncio.create_task(self._renew(), name=f"rapids-operation-lease:{self._claim.operation_id}")
        try:
            has_ended = await self._carried_out()
        except HaltedError:
            logger.info("an operation is left as it is", extra=self._context)
        except OperationNotFoundError:
            logger.warning("an operation is gone", extra=self._context)
        except Exception:
            logger.exception("an operation is left as it is", extra=self._context)
        finally:
            renewing.cancel()
            await asyncio.wait({renewing})
            if not has_ended:
                await self._let_go()
        return has_ended

    async def _carried_out(self) -> bool:
        """Whether it is over; not so if another process has it by now."""
        try:
            operation = await self._patience.wait_out(self._look)
            logger.info("an operation is begun, or gone on with", extra=self._context)
            await self._deal_with_all(operation)
        except (HaltedError, OperationNotFoundError):
            raise
        except Exception as error:  # whatever it is, another process would meet it as well
            logger.exception("an operation failed", extra=self._context)
            return await self._end("failed", write_error("", _told(error)))
        return await self._end("completed")

    async def _look(self) -> Operation:
        claim = self._claim
        if (found := await stored.read(self._commands, claim.dlq, claim.operation_id)) is None:
            raise OperationNotFoundError(claim.operation_id)
        fields, errors = found
        self._scanned = _latest(fields["scanned"], fields["cursor"])
        return read_operation(claim.operation_id, fields, errors)

    async def _end(self, state: str, error: str = "") -> bool:
        ended = await self._patience.wait_out(lambda: stored.leave(self._commands, self._claim, state, error=error))
        if ended:
            logger.info("an operation has ended: %s", state, extra=self._context)
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
                if not await stored.renew(self._commands, self._claim, self._scanned):
                    self.halt()
                    return
            except (RedisError, OSError) as error:
                logger.debug("a lease was not renewed: %s", reason(error), extra=self._context)

    async def _deal_with_all(self, operation: Operation) -> None:
        claim, left = self._claim, operation.left
        if left == 0:
            return
        selected = self._letters.select(operation.kind, operation.selector)
        step = Step(claim, operation.kind, operation.scope, operation.actor, operation.reason)
        batches = _Batches(self._commands, self._letters, step, self._patience, Pace(operation.rate))
        async with aclosing(self._chunks(selected, operation.upto)) as chunks:
            async for chunk in chunks:
                places = chunk.entry_ids if left is None else chunk.entry_ids[:left]
                await batches.deal_with(places)
                self._scanned = chunk.scanned_to
                left = None if left is None else left - len(places)
                if left == 0:
                    return

    async def _chunks(self, selected: Selected, upto: str) -> AsyncGenerator[Chunk]:
        """What is selected, chunk by chunk, each asked for while the one before it is dealt with."""

        def asked_for(after: str) -> "asyncio.Task[Chunk]":
            asking = self._patience.wait_out(lambda: selected.following(after, upto, CHUNK))
            return asyncio.create_task(asking, name=f"rapids-operation-selection:{self._claim.operation_id}")

        ahead = asked_for(self._scanned)
        try:
            while not (chunk := await ahead).done:
                ahead = asked_for(chunk.scanned_to)
                yield chunk
            yield chunk
        finally:
            ahead.cancel()
            await asyncio.wait({ahead})
            if not ahead.cancelled():
                ahead.exception()  # it is known, or of no interest any more


class _Batches:
    """Moves letters in order, as many in one step as may be; those that others may not be moved with, by themselves."""

    def __init__(self, commands: Commands, letters: Letters, step: Step, patience: Patience, pace: Pace) -> None:
        self._commands = commands
        self._letters = letters
        self._step = step
        self._patience = patience
        self._pace = pace
        self._singly = 0
        """How many of the next letters to move by themselves."""
        self._singly_before = 0

    async def deal_with(self, places: Sequence[str]) -> None:
        """Move them all; one that cannot be moved is counted, and the rest goes on.

        Raises `HaltedError` when told to halt, or if the operation is not this process's to run any more.
        """
        while places:
            await self._patience.sleep(self._pace.wait)
            try:
                last = await (self._one(places[0]) if self._singly else self._many(places))
            except WorkStoppedError:
                raise HaltedError from None
            except (RedisError, OSError) as error:
                await self._patience.failed(error)
                last = await self._patience.wait_out(lambda: stored.cursor(self._commands, self._step.claim))
            else:
                self._patience.worked()
            places = self._behind(last, places)

    def _behind(self, last: str, places: Sequence[str]) -> Sequence[str]:
        if last not in places:
            return places
        dealt_with = places.index(last) + 1
        self._pace.took(dealt_with)
        return places[dealt_with:]

    async def _many(self, places: Sequence[str]) -> str:
        """The last one that was dealt with, '' where none was."""
        batch = places[: self._pace.batch]
        try:
            moved = await self._letters.move_many(self._step, batch)
        except RedisError as error:
            if is_outage(error) or isinstance(error, REFUSED):
                raise
            self._singly = len(batch)  # one of them is such that the script breaks: which, will be seen
            return await stored.cursor(self._commands, self._step.claim)
        if moved.last is not None:
            self._singly_before = 0
        if moved.blocked is not None or moved.last is None:
            self._singly = self._singly_before = min(2 * self._singly_before or 1, MOST_SINGLY)
        return moved.last or ""

    async def _one(self, place: str) -> str:
        self._singly -= 1
        try:
            await self._letters.move_one(self._step, place)
        except (LetterNotFoundError, LetterStateError):
            await self._pass_over("skipped", place)
        except WorkStoppedError:
            raise
        except Exception as error:  # of one letter, which may hold anything
            if isinstance(error, RedisError | OSError) and (is_outage(error) or isinstance(error, REFUSED)):
                raise
            await self._pass_over("failed", place, write_error(place, _told(error)))
        return place

    async def _pass_over(self, counted_as: str, place: str, error: str = "") -> None:
        if not await stored.pass_over(self._commands, self._step.claim, counted_as, place, error):
            raise HaltedError


def _latest(scanned: str, cursor: str) -> str:
    """Where to go on: all up to either place was dealt with."""
    if not scanned or not cursor:
        return scanned or cursor or "0-0"
    return scanned if earlier(cursor, scanned) else cursor


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {reason(error)}"
