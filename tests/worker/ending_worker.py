"""A worker whose handler ends the process. Run as a script with the server's address and the way in which it ends."""

import asyncio
import os
import signal
import sys

sys.path.insert(0, ".")

from tests.servers.client import connect
from tests.worker.helpers import DvOrder, make_router


async def main(url: str, way: str) -> None:
    redis = connect(url)
    router = make_router(redis, max_deliveries=2)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    async def leave() -> None:
        sys.exit(2)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await redis.rpush("begun", event.number)
        if event.number == 1:
            match way:
                case "signal":
                    os.kill(os.getpid(), signal.SIGTERM)
                case "interrupt":
                    signal.signal(signal.SIGINT, signal.default_int_handler)
                    signal.raise_signal(signal.SIGINT)
                case "task":
                    await asyncio.create_task(leave())
                case "group":
                    async with asyncio.TaskGroup() as group:
                        group.create_task(leave())
                case _:
                    raise ValueError(way)
        await redis.rpush("done", event.number)

    await router.start()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
