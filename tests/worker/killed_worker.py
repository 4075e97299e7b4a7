"""A worker to be killed: notes what it handled in a list. Run as a script with the server's address."""

import asyncio
import sys

sys.path.insert(0, ".")

from tests.servers.client import connect
from tests.worker.helpers import DvOrder, make_router


async def main(url: str) -> None:
    redis = connect(url)
    router = make_router(redis, claim_min_idle_ms=300)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await asyncio.sleep(0.01)
        await redis.rpush("done", event.number)

    await router.start()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
