"""What a contender has to offer. Each does it by the public API of its library, as its documentation shows."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from benchmarks.contenders.tally import Tally
from benchmarks.jobs import Job


class Unavailable(Exception):
    """The contender has no way to do what was asked; the message says what is missing."""


class Emitting(Protocol):
    """Both return when the server has stored everything."""

    async def emit(self, number: int) -> None: ...

    async def emit_list(self, numbers: range) -> None: ...


class Contender(Protocol):
    def emitting(self, job: Job) -> AbstractAsyncContextManager[Emitting]: ...

    def consuming(self, job: Job, tally: Tally) -> AbstractAsyncContextManager[asyncio.Task[object] | None]:
        """Consume in the background for as long as the block, and give the task, if there is one, to watch."""
        ...
