"""A slot's move from one master to another, in steps, so that a test can stop in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from redis.exceptions import RedisError

from tests.servers.node import Node
from tests.servers.site import HOST

PAGE = 10
PATIENCE_MS = 5_000


class SlotMigration:
    """`begin`, `move_keys` as often as there are keys, `finish`: as redis-cli does it.

    Between the first and the last, the source answers ASK for keys it has given away and TRYAGAIN for several keys of
    which it has only some; the target serves the slot only after ASKING.
    """

    def __init__(self, slot: int, source: Node, target: Node, others: Sequence[Node] = ()) -> None:
        self.slot = slot
        self.source = source
        self.target = target
        self._others = others

    async def begin(self) -> None:
        """From now on keys that are not there are asked for at the target."""
        source, target = await self._id(self.source), await self._id(self.target)
        await self.target.ask("CLUSTER", "SETSLOT", self.slot, "IMPORTING", source)
        await self.source.ask("CLUSTER", "SETSLOT", self.slot, "MIGRATING", target)

    async def keys(self, limit: int = PAGE) -> list[bytes]:
        """Keys that are still at the source."""
        return await self.source.ask("CLUSTER", "GETKEYSINSLOT", self.slot, limit)

    async def move_keys(self, limit: int = PAGE) -> int:
        """Move up to `limit` keys, and say how many there were."""
        keys = await self.keys(limit)
        if keys:
            await self.move(*keys)
        return len(keys)

    async def move(self, *keys: bytes | str) -> None:
        """Move these very keys."""
        await self.source.ask("MIGRATE", HOST, self.target.port, "", 0, PATIENCE_MS, "REPLACE", "KEYS", *keys)

    async def finish(self) -> None:
        """Give the slot to the target, and tell the other masters."""
        owner = await self._id(self.target)
        await self.target.ask("CLUSTER", "SETSLOT", self.slot, "NODE", owner)
        await self.source.ask("CLUSTER", "SETSLOT", self.slot, "NODE", owner)
        for node in self._others:
            with suppress(RedisError, OSError):  # it hears of it from the others, when it is back
                await node.ask("CLUSTER", "SETSLOT", self.slot, "NODE", owner)

    async def run(self) -> None:
        """All of it."""
        await self.begin()
        while await self.move_keys():
            pass
        await self.finish()

    async def _id(self, node: Node) -> str:
        return (await node.ask("CLUSTER", "MYID")).decode()
