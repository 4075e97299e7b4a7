"""Carries out an operation, to be killed during it.

Run as a script with a server's address, a dead-letter stream and the id of an operation.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import Process

sys.path.insert(0, ".")

from rapids import DeadLetterQueue
from rapids._storage import operation_records
from rapids.dead_letters import runner
from tests.servers.client import connected

ARCHIVED = 20_000
"""Letters kept in the archive."""

LEASE_MS = 500
"""For how long a killed process keeps others from continuing: less than usual, to keep the test short."""


async def begin(url: str, dlq: str, operation_id: str) -> Process:
    """A process that carries it out."""
    return await asyncio.create_subprocess_exec(sys.executable, __file__, url, dlq, operation_id)


async def main(url: str, dlq: str, operation_id: str) -> None:
    operation_records.LEASE_MS = LEASE_MS
    runner.RENEWAL_PAUSE = LEASE_MS / 3000
    async with connected(url) as redis:
        await DeadLetterQueue(redis, dlq, archive_maxlen=ARCHIVED).operations.run_until_ended(operation_id)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
