"""Carrying out one operation, for as long as this process has it."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from redis.exceptions import RedisError

from rapids._core.outages import HaltedError, Outages, Retries
from rapids._core.redis_errors import reason
from rapids._core.supervision import TaskSupervisor, end_task
from rapids._storage import operation_records as stored
from rapids._storage.client.connections import Commands
from rapids._storage.operation_records import LEASE_MS, Claim
from rapids.dead_letters.batches import Batches
from rapids.dead_letters.moves import Letters, Selected, Step
from rapids.dead_letters.operation import Operation
from rapids.dead_letters.pacing import LARGEST_BATCH, Pace
from rapids.dead_letters.selection import Chunk
from rapids.dead_letters.stored_operations import read_operation, write_error
from rapids.exceptions import OperationNotFoundError

__all__ = ["Operating"]

logger: logging.Logger = logging.getLogger("rapids.operations")

CHUNK = 5 * LARGEST_BATCH
RENEWAL_PAUSE = LEASE_MS / 3000

LEAVE_TIMEOUT = 1.0
"""Seconds to let go of an operation in the end; where Redis is away its lease runs out."""


class Operating:
    """An operation that this process has taken, until it ends, is paused or taken away, or this is told to halt.

    Letters are selected in chunks, the next one while the last is moved. Counts and places are written in the step
    that moves letters, so that whoever goes on with the operation begins where this process ended.
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
