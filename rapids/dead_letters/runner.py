"""Taking operations that no process has, and carrying them out."""

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import get_args
from uuid import uuid4

from redis.exceptions import RedisError

from rapids._core.outages import HaltedError, Outages, Retries
from rapids._core.supervision import end_task
from rapids._storage import letter_index
from rapids._storage import operation_records as stored
from rapids._storage.client.connections import Commands
from rapids._storage.operation_records import Claim
from rapids.dead_letters.moves import Letters
from rapids.dead_letters.operating import Operating
from rapids.dead_letters.operation import OperationKind

__all__ = ["POLL_PAUSE", "Runner", "new_token"]

logger = logging.getLogger("rapids.operations")

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
        """Take and run operations until told to stop. The steps under way are finished first.

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
        """Let the steps under way be the last; being cancelled meanwhile cancels them."""
        for operating, _ in self._running.values():
            operating.halt()
        if tasks := {task for _, task in self._running.values()}:
            try:
                await asyncio.wait(tasks)
            finally:
                for task in tasks:
                    await end_task(task)
