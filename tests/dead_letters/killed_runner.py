"""A process that runs operations, to be killed. Run as a script with the server's address."""

import asyncio
import sys

sys.path.insert(0, ".")

from rapids import DeadLetterQueue
from tests.servers.client import connect
from tests.worker.helpers import DLQ


async def main(url: str) -> None:
    await DeadLetterQueue(connect(url), DLQ).operations.run(asyncio.Event())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
