"""What may go wrong with a Sentinel's fleet or a Cluster, besides faults of workers and emitters.

One such trouble at a time, and the next only when every replica follows its master again: data that one replica has
confirmed is safe from one failure, not from a second one while there is no replica.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tests.chaos.faults import Interruption, Scene
from tests.chaos.fleets import ClusterServers, Fleet
from tests.servers.migration import SlotMigration
from tests.servers.node import Node

CAUGHT_UP = 0.5
"""Seconds for replicas that follow to have all their masters have."""


@dataclass(frozen=True, slots=True)
class KillMaster:
    """kill -9 of the stream's master; it comes back as a replica, `down_seconds` after another took its place."""

    at: float
    down_seconds: float

    async def strike(self, scene: Scene) -> Interruption:
        async with _alone(scene) as fleet:
            return await _killed(fleet, await fleet.master(), self.down_seconds, "master killed")


@dataclass(frozen=True, slots=True)
class KillOtherMaster:
    """kill -9 of a master that does not have the stream; it may have the dead letters."""

    at: float
    which: int
    down_seconds: float

    async def strike(self, scene: Scene) -> Interruption:
        async with _alone(scene) as fleet:
            others = await _cluster(fleet).other_masters()
            node = others[self.which % len(others)]
            return await _killed(fleet, node, self.down_seconds, "other master killed")


@dataclass(frozen=True, slots=True)
class PauseMaster:
    """SIGSTOP of the stream's master until another took its place, and for `more_seconds` beyond.

    Continued, it answers what had been sent to it as if it were the master still, until it hears that it is not.
    """

    at: float
    more_seconds: float

    async def strike(self, scene: Scene) -> Interruption:
        async with _alone(scene) as fleet:
            master, begun = await fleet.master(), time.monotonic()
            master.pause()
            try:
                await fleet.until_replaced(master)
                await asyncio.sleep(self.more_seconds)
            finally:
                master.resume()
            await fleet.until_whole()
            return Interruption("master paused", begun, time.monotonic())


@dataclass(frozen=True, slots=True)
class HandOver:
    """A planned failover: SENTINEL FAILOVER or CLUSTER FAILOVER.

    Sentinel's, unless it is `coordinated`, promotes a replica while the old master continues for a second or two: what
    is written to it then is lost.
    """

    at: float
    coordinated: bool = True

    async def strike(self, scene: Scene) -> Interruption:
        async with _alone(scene) as fleet:
            begun = time.monotonic()
            await fleet.hand_over(self.coordinated)
            await fleet.until_whole()  # sentinels may put things right once more, at the cost of what was written since
            kind = "master handed over" + ("" if self.coordinated else " without its consent")
            return Interruption(kind, begun, time.monotonic())


@dataclass(frozen=True, slots=True)
class MoveSlot:
    """The stream's slot moves to another master, key by key with pauses, and back."""

    at: float
    pause: float
    stay_seconds: float

    async def strike(self, scene: Scene) -> Interruption:
        async with _alone(scene) as fleet:
            cluster, begun = _cluster(fleet), time.monotonic()
            there = await cluster.migration()
            await self._move(cluster, there)
            await asyncio.sleep(self.stay_seconds)
            await self._move(cluster, await cluster.migration(to=there.source))
            return Interruption("slot moved", begun, time.monotonic())

    async def _move(self, cluster: ClusterServers, migration: SlotMigration) -> None:
        await migration.begin()
        await asyncio.sleep(self.pause)
        while await migration.move_keys(1):
            await asyncio.sleep(self.pause)
        await migration.finish()
        await cluster.until_moved(migration)


async def _killed(fleet: Fleet, node: Node, down_seconds: float, kind: str) -> Interruption:
    begun = time.monotonic()
    node.kill()
    await fleet.until_replaced(node)
    await asyncio.sleep(down_seconds)
    await node.start()
    await fleet.until_whole()  # it may take itself for the master still, and writes with it
    return Interruption(kind, begun, time.monotonic())


@asynccontextmanager
async def _alone(scene: Scene) -> AsyncIterator[Fleet]:
    async with scene.server_free:
        yield scene.fleet
        await scene.fleet.until_whole()
        await asyncio.sleep(CAUGHT_UP)


def _cluster(fleet: Fleet) -> ClusterServers:
    assert isinstance(fleet, ClusterServers), "only a Cluster has slots"
    return fleet
