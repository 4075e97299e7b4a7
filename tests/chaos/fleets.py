"""A Sentinel's fleet and a Cluster, as the faults see them: who is master of the stream, and who takes its place."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from redis.exceptions import RedisError

from tests.chaos.settings import STREAM, TOPOLOGIES
from tests.servers.cluster import Cluster, slot_of
from tests.servers.migration import SlotMigration
from tests.servers.node import Node
from tests.servers.sentinel import SentinelFleet
from tests.support import eventually

PATIENCE = 60.0
"""Seconds for a failover: much more than it takes, on a machine that has much to do."""

DOWN_AFTER_MS = 1_000
NODE_TIMEOUT_MS = 1_500


class Fleet(Protocol):
    """Servers of which one is master of the stream at a time."""

    @property
    def url(self) -> str: ...
    @property
    def nodes(self) -> list[Node]: ...

    async def start(self) -> None: ...
    async def close(self) -> None: ...

    async def master(self) -> Node:
        """The stream's master."""
        ...

    async def until_replaced(self, old: Node) -> None:
        """Wait until another is master of what the old one, which is dead or paused, was the master of."""
        ...

    async def hand_over(self, coordinated: bool) -> None:
        """Have a replica take the master's place; `coordinated`: as the last thing the master has a say in."""
        ...

    async def until_whole(self) -> None:
        """Wait until every replica follows its master."""
        ...


class SentinelServers:
    """A master, two replicas and three sentinels."""

    def __init__(self) -> None:
        self._fleet = SentinelFleet(replicas=TOPOLOGIES["sentinel"], down_after=DOWN_AFTER_MS)
        self.url = self._fleet.url
        self.nodes = self._fleet.nodes

    async def start(self) -> None:
        await self._fleet.start()

    async def close(self) -> None:
        self._fleet.close()

    async def master(self) -> Node:
        return await self._fleet.master()

    async def until_replaced(self, old: Node) -> None:
        await self._fleet.until_failed_over(old)

    async def hand_over(self, coordinated: bool) -> None:
        await self._fleet.failover(coordinated=coordinated)

    async def until_whole(self) -> None:
        await self._fleet.until_whole()


class ClusterServers:
    """Three masters with a replica each."""

    def __init__(self) -> None:
        self._cluster = Cluster(replicas=TOPOLOGIES["cluster"], node_timeout=NODE_TIMEOUT_MS)
        self.url = self._cluster.url
        self.nodes = self._cluster.nodes

    async def start(self) -> None:
        await self._cluster.start()

    async def close(self) -> None:
        self._cluster.close()

    async def master(self) -> Node:
        return await self._cluster.master_of(STREAM)

    async def other_masters(self) -> list[Node]:
        """The masters that do not have the stream, in one order."""
        slot = slot_of(STREAM)
        others = [one for one in await self._cluster.members() if one.is_master and one.slots and not one.owns(slot)]
        others.sort(key=lambda member: member.slots[0].start)
        return [next(node for node in self.nodes if node.port == member.port) for member in others]

    async def until_replaced(self, old: Node) -> None:
        async def replaced() -> bool:
            for node in self.nodes:
                if node is not old and node.alive:
                    with suppress(RedisError, OSError):
                        members = await self._cluster.members(node)
                        if any(member.port == old.port and member.slots for member in members):
                            return False
            return True

        await eventually(replaced, PATIENCE, 0.05)

    async def hand_over(self, coordinated: bool) -> None:
        assert coordinated, "a Cluster's is: CLUSTER FAILOVER"
        await self._cluster.failover(STREAM)

    async def migration(self, to: Node | None = None) -> SlotMigration:
        """The move of the stream's slot to another master, not begun yet."""
        return await self._cluster.migration(STREAM, to)

    async def until_moved(self, migration: SlotMigration) -> None:
        await self._cluster.until_served(STREAM, by=[migration.target])

    async def until_whole(self) -> None:
        await self._cluster.until_whole()
